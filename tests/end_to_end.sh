# The end-to-end pass changes scales and norms and nothing else, is in the report, and lowers the divergence that it learns from.
source "$(dirname "$0")/lib.sh"
settings=("${small[@]}" --bits 2 --format auto_round,fake)
expect 0 quantize "$tiny" "${settings[@]}" --e2e-epochs 0 -o blocks
expect 0 quantize "$tiny" "${settings[@]}" --e2e-epochs 4 --e2e-lr 0.01 --no-e2e-norms -o scales
expect 0 quantize "$tiny" "${settings[@]}" --e2e-epochs 4 --e2e-lr 0.01 -o learned
finished learned
holds "$(json learned/signround.json /end_to_end/steps) == 8"  # 8 samples in batches of 4, 4 times
holds "$(json learned/signround.json /end_to_end/kl_last) < $(json learned/signround.json /end_to_end/kl_first)"
changed() { diff <(tensors blocks/auto_round) <(tensors "$1"/auto_round) | grep '^>' || true; }
for what in scales layernorm; do
  [ "$(changed learned | grep -c "$what")" -ge 1 ] || die "no $what differs"
done
[ "$(changed learned | grep -v scales | grep -vc layernorm)" = 0 ] || die "more than scales and norms differ"
[ "$(changed scales | grep -c scales)" -ge 1 ] || die "no scale differs"
[ "$(changed scales | grep -vc scales)" = 0 ] || die "more than scales differ"
[ "$(diff <(tensors blocks/fake) <(tensors learned/fake) | grep -c '^>')" -ge 1 ] || die "fake has the scales of the blocks"
refuses 2 'packed format' quantize "$tiny" "${small[@]}" --format fake --e2e-epochs 1 -o refused
refuses 2 'does not read' quantize "$tiny" "${small[@]}" --method rtn --e2e-epochs 1 -o refused
