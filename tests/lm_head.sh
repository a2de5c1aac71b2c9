# --quant-lm-head quantizes a head of its own and is refused for one that is the embedding.
source "$(dirname "$0")/lib.sh"
refuses 2 'tied to its embedding' quantize "$tiny" "${small[@]}" --quant-lm-head -o tied
absent tied
command=(quantize "$random" --method rtn --group-size 32 --threads 1)
expect 0 "${command[@]}" -o with --quant-lm-head --format auto_round,fake
finished with
grep -q lm_head.qweight <(tensors with/auto_round) || die "the head is not quantized"
! grep -q lm_head.weight <(tensors with/auto_round) || die "the head is there twice"
expect 0 inspect with/auto_round --json --filter lm_head.weight
holds "$(json out.txt /tensors/0/bits_per_weight) < 5"
expect 0 "${command[@]}" -o without
diff <(tensors "$random" | grep lm_head) <(tensors without | grep lm_head) || die "the head was touched"
