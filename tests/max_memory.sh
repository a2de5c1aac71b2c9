# --max-memory: activations that do not fit wait in a file in OUT, which changes no byte of the result, shows in the plan,
# and leaves nothing behind, also after a kill.
source "$(dirname "$0")/lib.sh"
# Streams of 2 x 25 MB.
many=(--group-size 32 --iters 2 --nsamples 384 --seqlen 128 --batch-size 4 --compute-dtype float32 --threads 1 --stream-dtype float32)
stream=$((384 * 128 * 128 * 4))

# both STREAMS ARGS...: in memory, and with a limit that leaves no room for half of the activations.
both() {
  local streams=$1 planned limit
  shift
  rm -rf memory file
  expect 0 quantize "$tiny" "${many[@]}" "$@" -o memory
  ! grep -q 'in a file' err.txt || die "a file without --max-memory"
  planned=$(json memory/signround.json /planned_memory_bytes)
  limit=$(awk "BEGIN { print ($planned - $stream / 2) / 1e9 }")
  expect 0 quantize "$tiny" "${many[@]}" "$@" --max-memory "$limit" -o file
  grep -q "^plan: .*activations wait in float32, in a file of $((streams * stream / 1000000)) MB in OUT" err.txt || die "the plan names no file"
  holds "$(json file/signround.json /planned_memory_bytes) < $limit * 1e9"
  # What is planned and what is held differ by the same in both.
  holds "$(json file/signround.json /peak_rss_bytes) < $(json memory/signround.json /peak_rss_bytes) - $streams * $stream / 2"
  finished file
  same memory file
}
both 2
both 2 --method gptq
both 1 --method opt-rtn --awq

# The peak is this program's own, not that of a large process that starts it.
expect 0 quantize "$tiny" --method rtn --group-size 32 -o small
large=$(head -c 300000000 /dev/zero | tr '\0' x)
expect 0 quantize "$tiny" --method rtn --group-size 32 -o from_large
holds "$(json from_large/signround.json /peak_rss_bytes) < $(json small/signround.json /peak_rss_bytes) + 100e6"
unset large

# `plan` says the same and writes nothing.
plan() { grep '^plan: ' | head -2; }
expect 0 plan "$tiny" "${many[@]}" --method opt-rtn --awq -o planned
diff <(plan <out.txt) <("$SIGNROUND" quantize "$tiny" "${many[@]}" --method opt-rtn --awq -o again 2>&1 | plan) || die "another plan"
absent planned

limit=$(awk "BEGIN { print ($(json memory/signround.json /planned_memory_bytes) - $stream / 2) / 1e9 }")
command=(quantize "$tiny" "${many[@]}" --method opt-rtn --awq --max-memory "$limit")
# The disk must have room for it.
needed=$(($(stat -c %s memory/model.safetensors) + stream))
for free in $((needed - 1)) $needed; do
  rm -rf out
  code=0
  LD_PRELOAD=$FILE_FAULT FREE_BYTES=$free "$SIGNROUND" "${command[@]}" -o out >out.txt 2>err.txt || code=$?
  [ "$code" = $((free < needed ? 5 : 0)) ] || die "exit code $code with $free bytes free of $needed"
  [ "$code" = 0 ] || { grep -q 'MB of it while activations wait in a file' err.txt || die "the space is not named"; absent out; }
done
# Killed while the file has a name, and later: it is gone, or empty until the end of the next run.
n=1
until killed_at "$n" "${command[@]}" -o out && [ -e out/.signround/scratch.tmp ]; do
  rm -rf out
  ((++n < 40)) || die "the file never has a name"
done
[ ! -s out/.signround/scratch.tmp ] || die "a file with a name has bytes"
killed_at $((n + 3)) "${command[@]}" -o out
[ ! -e out/.signround/scratch.tmp ] || die "the file is still there"
expect 0 "${command[@]}" -o out
finished out
same memory out
refuses 7 '--max-memory allows' quantize "$tiny" "${many[@]}" --max-memory 0.02 -o no
refuses 7 '--max-memory allows' plan "$tiny" "${many[@]}" --max-memory 0.02 -o no
absent no

# Mixed precision's measurement keeps what every block reads; it waits in files as well.
few=(--group-size 32 --iters 2 --e2e-epochs 0 --nsamples 64 --seqlen 128 --batch-size 1 --compute-dtype float32 --threads 1 --avg-bits 4)
expect 0 quantize "$tiny" "${few[@]}" -o mixed
grep -q 'the measurement for mixed precision' err.txt || die "the plan does not count the measurement"
planned=$(json mixed/signround.json /planned_memory_bytes)
limit=$(awk "BEGIN { print ($planned - 8e6) / 1e9 }")
expect 0 plan "$tiny" "${few[@]}" -o planned
grep -q 'the measurement for mixed precision' out.txt || die "plan does not count the measurement"
expect 0 quantize "$tiny" "${few[@]}" --max-memory "$limit" -o mixed_file
holds "$(json mixed_file/signround.json /planned_memory_bytes) < $limit * 1e9"
holds "$(json mixed_file/signround.json /peak_rss_bytes) < $(json mixed/signround.json /peak_rss_bytes) - 6e6"
cmp mixed.sensitivity.json mixed_file.sensitivity.json || die "measured otherwise"
same mixed mixed_file
[ "$(ls -A mixed_file)" = "$(ls -A mixed)" ] || die "something is left"
refuses 7 '--max-memory allows' quantize "$tiny" "${few[@]}" --max-memory 0.02 -o no
