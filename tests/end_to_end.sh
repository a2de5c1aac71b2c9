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

# On a GPU (one that is emulated will do) nearly the same, with the same bytes each time; where its memory is too small, on the CPU.
"$SIGNROUND" quantize "$tiny" "${small[@]}" --device cuda --iters 1 --nsamples 4 --seqlen 32 -o probe >out.txt 2>err.txt || exit 0
kl() { json "$1/signround.json" "/end_to_end/kl_$2"; }
gpu=("${settings[@]}" --iters 2 --nsamples 4 --seqlen 32 --e2e-epochs 2 --e2e-lr 0.01 --format auto_round)
expect 0 quantize "$tiny" "${gpu[@]}" --device cpu -o on_cpu
expect 0 quantize "$tiny" "${gpu[@]}" --device cuda -o on_gpu
finished on_gpu
if grep -q 'end-to-end pass runs on the CPU' err.txt; then die 'the pass has no room'; fi
for when in first last; do holds "$(kl on_gpu $when) < 1.01 * $(kl on_cpu $when) && $(kl on_gpu $when) > 0.99 * $(kl on_cpu $when)"; done
holds "$(json on_gpu/signround.json /peak_gpu_bytes) <= $(json on_gpu/signround.json /planned_gpu_memory_bytes)"
expect 0 quantize "$tiny" "${gpu[@]}" --device cuda -o again
same on_gpu again
limit=$(awk "BEGIN { print ($(json on_gpu/signround.json /planned_gpu_memory_bytes) - 1e6) / 1e9 }")
expect 0 quantize "$tiny" "${gpu[@]}" --device cuda --max-gpu-memory "$limit" -o refused_gpu
grep -q 'end-to-end pass runs on the CPU' err.txt || die 'the plan does not say where the pass runs'
holds "$(kl refused_gpu last) < 1.01 * $(kl on_cpu last) && $(kl refused_gpu last) > 0.99 * $(kl on_cpu last)"
