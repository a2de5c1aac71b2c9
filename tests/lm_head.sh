# --quant-lm-head quantizes a head of its own and is refused for one that is the embedding.
source "$(dirname "$0")/lib.sh"
refuses 2 'tied to its embedding' quantize "$tiny" "${small[@]}" --quant-lm-head -o tied
# So is its name in a layer config, under both of its names, unless it is to be left as it is.
for name in lm_head model.embed_tokens; do
  refuses 2 'tied to its embedding' quantize "$tiny" --method rtn --group-size 32 --layer-config "{\"$name\": 8}" -o tied
  expect 0 quantize "$tiny" --method rtn --group-size 32 --layer-config "{\"$name\": 16}" -o left-$name
done
absent tied
# An embedding of its own stays as it is, and a wish for something else is refused with the reason.
refuses 2 'the embedding stays as it is' quantize "$random" --method rtn --group-size 32 --layer-config '{"model.embed_tokens": 8}' -o embedding
refuses 2 'no format that is written here has readers' quantize "$random" --method rtn --quant-embedding -o embedding
absent embedding
command=(quantize "$random" --method rtn --group-size 32 --threads 1)
expect 0 "${command[@]}" -o with --quant-lm-head --format auto_round,fake
finished with
grep -q lm_head.qweight <(tensors with/auto_round) || die "the head is not quantized"
! grep -q lm_head.weight <(tensors with/auto_round) || die "the head is there twice"
expect 0 inspect with/auto_round --json --filter lm_head.weight
holds "$(json out.txt /tensors/0/bits_per_weight) < 5"
expect 0 "${command[@]}" -o without
diff <(tensors "$random" | grep lm_head) <(tensors without | grep lm_head) || die "the head was touched"
