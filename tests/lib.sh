# Helpers of the whole-program tests. A test sources this file and then works in a fresh folder, which is removed at
# its end. SIGNROUND is the program; TESTDATA, MAKE_MODEL, JSON_VALUE, FILE_FAULT: see CMakeLists.txt.
set -euo pipefail
export LC_ALL=C
export OMP_WAIT_POLICY=passive  # threads that wait leave the processor to the tests beside this one
# In memory where there is room: on a busy disk these many small fsyncs take longer than all else.
room=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1 || true)
[ "${room:-0}" -lt 500000 ] || [ ! -w /dev/shm ] || export TMPDIR=${TMPDIR:-/dev/shm}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

tiny=$TESTDATA/tinystories       # two blocks, F32, head tied to the embedding, with a tokenizer
random=$TESTDATA/models/llama31  # two blocks of 32 x 32, F32, own head, no tokenizer
# Half a second a run.
small=(--group-size 32 --iters 6 --lr 0.02 --nsamples 8 --seqlen 64 --batch-size 4 --compute-dtype float32 --threads 1)

die() {
  echo "FAILED: $*" >&2
  [ ! -s err.txt ] || sed 's/^/  stderr: /' err.txt >&2
  exit 1
}

# expect CODE ARGS...: the program ends with this exit code; what it printed is in out.txt and err.txt.
expect() {
  local want=$1 code=0
  shift
  "$SIGNROUND" "$@" >out.txt 2>err.txt || code=$?
  [ "$code" = "$want" ] || die "exit code $code, expected $want: signround $*"
}

# refuses CODE TEXT ARGS...: one error on stderr, with this text in it.
refuses() {
  local code=$1 text=$2
  shift 2
  expect "$code" "$@"
  [ "$(grep -c '^signround: .*error: ' err.txt)" = 1 ] || die "expected one error: signround $*"
  grep -qF -- "$text" err.txt || die "the error lacks '$text': signround $*"
}

absent() {
  local path
  for path; do [ ! -e "$path" ] || die "$path is there: $(find "$path")"; done
}

# finished OUT: nothing of the work is left, and every folder with a config.json can be read.
finished() {
  local left config
  left=$(find "$1" -name .signround -o -name '*.partial' -o -name '*.tmp')
  [ -z "$left" ] || die "left over: $left"
  whole "$1"
  [ -n "$(find "$1" -name config.json)" ] || die "$1 has no config.json"
}

# whole OUT: where a config.json stands, the weights are complete.
whole() {
  local config
  while read -r config; do
    expect 0 inspect "$(dirname "$config")" --summary
  done < <(find "$1" -name config.json 2>/dev/null)
}

# same A B: the same files with the same bytes, but for the reports, which hold times.
same() { diff -r --exclude=signround.json --exclude=signround.md "$1" "$2" >&2 || die "$1 and $2 differ"; }

different() {
  if diff -rq --exclude=signround.json --exclude=signround.md "$1" "$2" >/dev/null; then die "$1 and $2 are the same"; fi
}

json() { "$JSON_VALUE" "$@" || die "$*"; }

# holds 'EXPRESSION': arithmetic on numbers with fractions.
holds() { awk "BEGIN { exit !($1) }" || die "not true: $1"; }

# killed_at N ARGS...: the program is killed right before its N-th change of a file (tools/file_fault.cc).
killed_at() {
  local code=0 n=$1
  shift
  { LD_PRELOAD=$FILE_FAULT FAULT=kill FAULT_AT=$n "$SIGNROUND" "$@" >out.txt 2>err.txt || code=$?; } 2>/dev/null
  [ "$code" = 137 ] || die "exit code $code, expected a kill at change $n: signround $*"
}

# Number of changes of files of a whole run.
changes_of() {
  LD_PRELOAD=$FILE_FAULT FAULT_COUNT=count.txt "$SIGNROUND" "$@" >out.txt 2>err.txt || die "signround $*"
  cat count.txt
}

tensors() { "$TENSOR_HASHES" "$1" | sort; }
