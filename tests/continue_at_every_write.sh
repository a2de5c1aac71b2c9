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

# One format: every change. Three formats in shards: every fifth, from a first one that differs from day to day.
survives 1 quantize "$random" --method rtn --group-size 16 --threads 1
survives 7 quantize "$random" --method rtn --group-size 16 --threads 1 --format auto_round,fake --shard-size 0.001
survives 23 quantize "$tiny" "${small[@]}" --iters 2 --nsamples 4 --shard-size 0.001

# A kill while --restart removes the old run leaves what the next run, with or without --restart, makes whole.
old=(quantize "$random" --method rtn --group-size 16 --threads 1 --asym)
new=(quantize "$random" --method rtn --group-size 16 --threads 1)
expect 0 "${new[@]}" -o straight2
for n in $(seq 1 14); do
  rm -rf out
  expect 0 "${old[@]}" -o out
  killed_at "$n" "${new[@]}" -o out --restart
  whole out
  expect 0 "${new[@]}" -o out --restart
  finished out
  same straight2 out
done

# fake alone of a model in bf16: what a continued run reads back is what the first one went on with.
"$MAKE_MODEL" "$tiny" bf16 --dtype BF16
command=(quantize bf16 "${small[@]}" --format fake)
changes=$(changes_of "${command[@]}" -o fake1)
n=$((changes / 2))
until killed_at "$n" "${command[@]}" -o fake2 && [ "$(wc -l <fake2/.signround/journal.jsonl)" = 2 ]; do
  rm -rf fake2
  n=$((n + 1))
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
