# A kill in front of any change of a file, from the first folder to the last rename, loses nothing.
source "$(dirname "$0")/lib.sh"

survives() {
  local step=$1 changes
  shift
  rm -rf straight
  changes=$(changes_of "$@" -o straight)
  finished straight
  for ((n = 1; n <= changes; n += step)); do
    rm -rf out
    killed_at "$n" "$@" -o out
    [ ! -d out ] || whole out
    expect 0 "$@" -o out
    finished out
    same straight out
  done
}

# One format: every change; two formats in shards, and a tuned run: some of them.
survives 1 quantize "$random" --method rtn --group-size 16 --threads 1
survives 7 quantize "$random" --method rtn --group-size 16 --threads 1 --format auto_round,fake --shard-size 0.001
survives 31 quantize "$tiny" "${small[@]}" --iters 2 --nsamples 4 --shard-size 0.001

# Killed while it finished, and again while it continued: what stands at the end of a path is taken back first.
command=(quantize "$random" --method rtn --group-size 16 --threads 1)
changes=$(changes_of "${command[@]}" -o late)
for ((n = changes - 9; n <= changes; n += 3)); do
  for ((m = 1; m <= 15; m += 2)); do
    rm -rf out
    killed_at "$n" "${command[@]}" -o out
    { LD_PRELOAD=$FILE_FAULT FAULT=kill FAULT_AT=$m "$SIGNROUND" "${command[@]}" -o out >out.txt 2>err.txt || true; } 2>/dev/null
    whole out
  done
  expect 0 "${command[@]}" -o out
  same late out
done

# A kill while --restart removes the old run: neither command takes what is left for its own finished result.
old=("${command[@]}" --asym)
expect 0 "${old[@]}" -o old
for ((n = 1; n <= 18; ++n)); do
  rm -rf out
  cp -a old out
  killed_at "$n" "${command[@]}" -o out --restart
  whole out
  code=0
  "$SIGNROUND" "${old[@]}" -o out >out.txt 2>err.txt || code=$?
  [ "$code" = 6 ] || { [ "$code" = 0 ] && finished out && same old out; } || die "exit code $code (killed at change $n)"
  expect 0 "${command[@]}" -o out --restart
  finished out
  same late out
done

# fake alone of a model in bf16: what a continued run reads back is what the first one went on with.
"$MAKE_MODEL" "$tiny" bf16 --dtype BF16
command=(quantize bf16 "${small[@]}" --format fake)
expect 0 "${command[@]}" -o fake1
n=8
until killed_at "$n" "${command[@]}" -o fake2 && [ "$(cat fake2/.signround/journal.jsonl 2>/dev/null | wc -l)" = 2 ]; do
  rm -rf fake2
  n=$((n + 3))
done
expect 0 "${command[@]}" -o fake2
grep -q 'continuing: 1 of 2 blocks' err.txt || die "it did not continue"
same fake1 fake2

# A finished block that was damaged on disk since is done again.
rm -rf fake2
killed_at "$n" "${command[@]}" -o fake2
size=$(stat -c %s fake2/model.safetensors.partial)
for at in $(seq 4096 65536 "$size"); do printf x | dd of=fake2/model.safetensors.partial bs=1 seek="$at" conv=notrunc status=none; done
expect 0 "${command[@]}" -o fake2
grep -q 'damaged on disk' err.txt || die "the damage was not seen"
same fake1 fake2
