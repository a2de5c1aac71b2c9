# A run that is killed at random moments and started again ends with the bytes of a run that was never stopped.
source "$(dirname "$0")/lib.sh"
seed=${SEED:-$(date +%s)}
echo "SEED=$seed repeats these moments, as far as the machine does"
RANDOM=$((seed % 32768))

killed_often() {
  local kills=$1 formats=$2 start duration moment pid
  shift 2
  local command=(quantize "$tiny" "${small[@]}" --format "$formats" --shard-size 0.001 "$@")
  rm -rf straight out
  start=$(date +%s%N)
  expect 0 "${command[@]}" -o straight
  duration=$((($(date +%s%N) - start) / 1000))
  finished straight
  local killed=0 tries=0 early=0 after=(0 0 0) code journal
  while ((killed < kills)); do
    ((++tries <= 20 * kills)) || die "only $killed of $tries runs were still alive when they were to be killed"
    moment=$((duration * RANDOM / 32768))
    "$SIGNROUND" "${command[@]}" -o out >out.txt 2>err.txt &
    pid=$!
    sleep "$((moment / 1000000)).$(printf %06d $((moment % 1000000)))"
    kill -9 $pid 2>/dev/null || true
    code=0
    wait $pid 2>/dev/null || code=$?
    if [ "$code" = 137 ]; then ((++killed)); else [ "$code" = 0 ] || die "exit code $code"; fi
    journal=out/.signround/journal.jsonl
    if [ "$code" = 137 ]; then
      if [ -s $journal ]; then ((++after[$(wc -l <$journal) - 1])); else ((++early)); fi
    fi
    [ ! -d out ] || whole out
    if [ -e out/signround.json ] && [ ! -e out/.signround ]; then # it was faster than the kill
      same straight out
      rm -rf out
    fi
  done
  expect 0 "${command[@]}" -o out
  ! grep -q 'is damaged on disk' err.txt || die "a block that was finished is taken for a damaged one"
  finished out
  same straight out
  echo "$kills kills in $tries runs: $early before the journal, ${after[*]} with 0, 1, 2 blocks finished"
}

killed_often 20 auto_round,gptq,fake
killed_often 10 auto_round --symmetry asym --momentum 0.9
killed_often 10 auto_round --compute-dtype bfloat16
killed_often 10 fake,auto_round --method opt-rtn
killed_often 10 auto_round,gptq,fake --method rtn
settings=("${small[@]}")
small=(--threads 1) # groups are NF4's own
killed_often 10 bnb,fake --method nf4
small=("${settings[@]}")
killed_often 5 auto_round --recipe autoround
killed_often 5 auto_round --method gptq
killed_often 10 auto_round,fake --e2e-epochs 2
