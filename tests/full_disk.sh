# A disk that is full at any moment: exit code 5, nothing that looks whole, and the run goes on when there is space.
source "$(dirname "$0")/lib.sh"
command=(quantize "$random" --method rtn --group-size 16 --threads 1 --format auto_round,fake)
changes=$(changes_of "${command[@]}" -o straight)
for ((n = 1; n <= changes; n += 5)); do
  rm -rf out
  code=0
  LD_PRELOAD=$FILE_FAULT FAULT=full FAULT_AT=$n "$SIGNROUND" "${command[@]}" -o out >out.txt 2>err.txt || code=$?
  if [ "$code" = 0 ]; then # only names were left to change
    finished out
    continue
  fi
  [ "$code" = 5 ] || die "exit code $code, expected 5 (space ends at change $n)"
  grep -q 'No space left on device' err.txt || die "the reason is not named"
  [ ! -d out ] || whole out
  expect 0 "${command[@]}" -o out
  finished out
  same straight out
done

# Too little space for the plan: said before anything is written. What an earlier run holds already is not asked for again.
rm -rf out
needed=$(($(stat -c %s straight/auto_round/model.safetensors) + $(stat -c %s straight/fake/model.safetensors)))
with_free() {
  local free=$1 want=$2 code=0
  shift 2
  LD_PRELOAD=$FILE_FAULT FREE_BYTES=$free "$SIGNROUND" "$@" >out.txt 2>err.txt || code=$?
  [ "$code" = "$want" ] || die "exit code $code with $free bytes free, expected $want"
}
with_free $((needed - 1)) 5 "${command[@]}" -o out
grep -q 'the result needs .* free are' err.txt || die "the space is not named"
absent out
killed_at $((changes / 2)) "${command[@]}" -o out
with_free 20000 0 "${command[@]}" -o out
same straight out
with_free 20000 0 "${command[@]}" -o out # nothing to do
with_free 20000 0 "${command[@]}" -o out --restart
same straight out

# A limit of the size of files acts as a full disk, not as a signal that ends the process.
code=0
(ulimit -f 64 && "$SIGNROUND" "${command[@]}" -o limited >out.txt 2>err.txt) || code=$?
[ "$code" = 5 ] || die "exit code $code under a file-size limit, expected 5"
grep -q 'File too large' err.txt || die "the limit is not named"
absent limited
