# Ctrl-C and SIGTERM end a run with exit code 130; the same command continues to the same bytes.
source "$(dirname "$0")/lib.sh"
command=(quantize "$tiny" "${small[@]}" --iters 30)
expect 0 "${command[@]}" -o straight
for signal in INT TERM; do
  code=0
  for try in 1 2 3 4 5 6; do # a run may end before the signal comes
    rm -rf out
    "$SIGNROUND" "${command[@]}" -o out >out.txt 2>err.txt &
    pid=$!
    while [ ! -e out/.signround/journal.jsonl ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
    kill -$signal $pid 2>/dev/null || true
    code=0
    wait $pid || code=$?
    [ "$code" = 0 ] || break
  done
  [ "$code" = 130 ] || die "exit code $code after SIG$signal, expected 130"
  grep -q 'the same command continues' err.txt || die "no word on how to go on"
  absent out/config.json
  expect 0 "${command[@]}" -o out
  finished out
  same straight out
done
