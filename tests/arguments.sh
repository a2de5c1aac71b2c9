# AutoRound's spellings of flags mean ours.
source "$(dirname "$0")/lib.sh"
expect 0 quantize "$tiny" --output ours --format auto_round --group-size 32 --iters 3 --nsamples 4 --seqlen 64 --batch-size 2 --no-enable-minmax-tuning \
  --no-enable-quanted-input --ignore-layers k_proj,layers.1.mlp --compute-dtype float32 --threads 1 --symmetry asym --method signround
expect 0 quantize "$tiny" --output_dir=theirs --formats auto_round --group_size=32 --iters 3 --nsample 4 --seq_len 64 --train_bs 2 --disable_minmax_tuning \
  --disable-quanted-input --fp_layers k_proj,layers.1.mlp --compute_dtype float32 --threads=1 --asym --alg signround --device_map cpu
same ours theirs
expect 0 quantize "$tiny" -o short --group-size 32 --iters 3 --nsamples 4 --seqlen 64 --bs 2 --no-enable-minmax-tuning \
  --no-enable-quanted-input --ignore-layers k_proj,layers.1.mlp --compute-dtype float32 --threads 1 --asym --quiet
same ours short
[ ! -s err.txt ] || die "--quiet is not quiet"
for command in quantize plan eval generate inspect; do
  expect 0 $command --help
  grep -q 'usage: signround' out.txt || die "$command --help"
done
expect 0 --help
expect 0 --version
expect 0 quantize --model "$tiny" --output_dir by-name --group-size 32 --iters 3 --nsamples 4 --seqlen 64 --bs 2 --no-enable-minmax-tuning \
  --no-enable-quanted-input --ignore-layers k_proj,layers.1.mlp --compute-dtype float32 --threads 1 --asym --low_gpu_mem_usage --platform hf
same ours by-name
grep -q 'warning: --low_gpu_mem_usage has no effect' err.txt || die "a flag without effect is not named"
# --iters 0 is the search of scales.
expect 0 quantize "$tiny" "${small[@]}" --iters 0 -o zero
expect 0 quantize "$tiny" "${small[@]}" --iters 0 --method opt-rtn -o searched
same zero searched
expect 0 quantize "$tiny" "${small[@]}" --iters 0 --disable_opt_rtn -o plain
expect 0 quantize "$tiny" "${small[@]}" --method rtn -o rtn
same plain/model.safetensors rtn/model.safetensors
