# --device cuda: a run on a GPU (one that is emulated will do) gives the same bytes each time, also after a kill and wherever
# activations wait, and nearly what a CPU gives. A program without CUDA says so.
source "$(dirname "$0")/lib.sh"
if ! "$SIGNROUND" quantize "$tiny" "${small[@]}" --device cuda -o probe >out.txt 2>err.txt; then
  refuses 8 'use --device cpu' quantize "$tiny" "${small[@]}" --device cuda -o out
  absent out
  expect 0 quantize "$tiny" "${small[@]}" --device auto -o out
  refuses 2 "'gpu' is none of cpu, cuda, cuda:N, auto" quantize "$tiny" "${small[@]}" --device gpu -o out2
  exit 0
fi
gpu=(--group-size 32 --iters 6 --nsamples 4 --seqlen 32 --batch-size 4 --threads 2 --device cuda)
loss() { json "$1/signround.json" /blocks/0/loss_best; }  # of the first block: whether a later one begins anew hangs on its last bits

for settings in '--compute-dtype bfloat16' '--compute-dtype float32' '--recipe autoround' '--recipe autoround --enable-norm-bias-tuning --momentum 0.9'; do
  read -ra more <<<"$settings"
  rm -rf a b c cpu
  expect 0 quantize "$tiny" "${gpu[@]}" "${more[@]}" -o a
  finished a
  expect 0 quantize "$tiny" "${gpu[@]}" "${more[@]}" -o b
  same a b
  expect 0 quantize "$tiny" "${gpu[@]}" "${more[@]}" --device cpu --compute-dtype bfloat16 -o cpu
  holds "$(loss a) < 1.05 * $(loss cpu) && $(loss a) > 0.95 * $(loss cpu)"
done

# After a kill at several moments.
command=(quantize "$tiny" "${gpu[@]}" --format auto_round,fake)
expect 0 "${command[@]}" -o straight
changes=$(changes_of "${command[@]}" -o counted)
for n in $((changes / 4)) $((changes / 2)) $((changes * 3 / 4)); do
  rm -rf out
  killed_at "$n" "${command[@]}" -o out
  expect 0 "${command[@]}" -o out
  finished out
  same straight out
done
# On a CPU that is another run.
refuses 6 'other settings' "${command[@]}" --device cpu -o out

# What was degraded in a block is written down with that block, though it is journalled while the next one is tuned.
"$MAKE_MODEL" "$tiny" spoiled --set model.layers.0.mlp.up_proj.weight 5 nan
command=(quantize spoiled "${gpu[@]}")
expect 0 "${command[@]}" -o told
changes=$(changes_of "${command[@]}" -o told-too)
killed_at $((changes - 3)) "${command[@]}" -o told-again
[ "$(wc -l <told-again/.signround/journal.jsonl)" = 3 ] || die 'both blocks were to be finished'
expect 0 "${command[@]}" -o told-again
diff <(json told/signround.json /degradations) <(json told-again/signround.json /degradations) || die 'told twice, or not at all'

# Activations in the host's memory, and in a file, where a GPU has no room for them. 2 x 6.3 MB.
many=(--group-size 32 --iters 2 --nsamples 384 --seqlen 32 --batch-size 4 --threads 2 --stream-dtype float32 --device cuda)
stream=$((384 * 32 * 128 * 4))
expect 0 quantize "$tiny" "${many[@]}" -o there
grep -q 'activations wait in its memory' err.txt || die 'the plan does not say where activations wait'
limit=$(awk "BEGIN { print ($(json there/signround.json /planned_gpu_memory_bytes) - $stream / 2) / 1e9 }")
expect 0 quantize "$tiny" "${many[@]}" --max-gpu-memory "$limit" -o host
grep -q "activations wait in the host's memory" err.txt || die 'activations are not planned in the host'
same there host
holds "$(json host/signround.json /peak_gpu_bytes) < $(json there/signround.json /peak_gpu_bytes) - $stream"
limit_host=$(awk "BEGIN { print ($(json host/signround.json /planned_memory_bytes) - $stream / 2) / 1e9 }")
expect 0 quantize "$tiny" "${many[@]}" --max-gpu-memory "$limit" --max-memory "$limit_host" -o file
grep -q 'activations wait in a file' err.txt || die 'activations are not planned in a file'
same there file
refuses 7 'of GPU memory' quantize "$tiny" "${many[@]}" --max-gpu-memory 0.001 -o none
absent none
