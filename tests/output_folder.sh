# What OUT holds decides: nothing to do, another run's, somebody else's, locked, not writable.
source "$(dirname "$0")/lib.sh"
command=(quantize "$random" --method rtn --group-size 16 --threads 1)

# The same command twice: nothing to do, not a byte changes.
expect 0 "${command[@]}" -o out
cp -a out before
expect 0 "${command[@]}" -o out
grep -q 'nothing to do' err.txt || die "it does not say that there was nothing to do"
diff -r before out || die "the second run changed the result"

expect 0 "${command[@]}" -o out --json
[ "$(json out.txt /result_bytes)" = "$(json out/signround.json /result_bytes)" ] || die "--json does not print the report of the run that was done"

# A finished result that was damaged since is no result: the file is named, and --restart makes it anew.
expect 0 "${command[@]}" -o sharded --format auto_round,fake --shard-size 0.001
expect 0 quantize "$tiny" --method rtn --group-size 32 --shard-size 0.001 -o shards
damaged() { # SOURCE TEXT COMMAND-TO-DAMAGE: in the folder bad
  rm -rf bad
  cp -a "$1" bad
  (cd bad && eval "$3")
  refuses 3 "$2" "${again[@]}" -o bad
  grep -q 'was damaged since' err.txt || die "it does not say what happened"
  expect 0 "${again[@]}" -o bad --restart
  same "$1" bad
}
flip() { printf x | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # a byte in the middle of a weight
again=("${command[@]}")
size=$(stat -c %s out/model.safetensors)
damaged out 'weights are not the ones' "flip model.safetensors $((size / 2))"
damaged out 'weights are not the ones' "flip model.safetensors $((size - 5))"
damaged out 'model.safetensors' 'truncate -s 100 model.safetensors'
damaged out 'model.safetensors' 'rm model.safetensors'
damaged out 'config.json' 'rm config.json'
damaged out 'config.json is not' "sed -i 's/\"bits\": 4/\"bits\": 8/' config.json"
again=("${command[@]}" --format auto_round,fake --shard-size 0.001)
damaged sharded 'fake/model.safetensors' 'rm fake/model.safetensors'
again=(quantize "$tiny" --method rtn --group-size 32 --shard-size 0.001)
damaged shards 'model.safetensors.index.json is not there' 'rm model.safetensors.index.json'
damaged shards 'model-00002' 'rm model-00002*'

# Another training of the same model is another model, finished or not.
cp -r "$random" trained
expect 0 quantize trained --method rtn --group-size 16 --threads 1 -o of-trained
size=$(stat -c %s trained/model.safetensors)
for ((at = size / 4; at < size - 64; at += 64)); do flip trained/model.safetensors "$at"; done
refuses 6 'other settings' quantize trained --method rtn --group-size 16 --threads 1 -o of-trained

# Other settings: refused, the result stays; --restart replaces it.
refuses 6 'other settings' "${command[@]}" -o out --asym
grep -q 'symmetry: "full" then, "asym" now' err.txt || die "the setting is not named"
diff -r before out || die "a refused run changed the result"
expect 0 "${command[@]}" -o out --asym --restart
finished out
expect 0 "${command[@]}" -o asym --asym
same out asym
different out before

# One format after several: nothing of the others looks whole.
expect 0 "${command[@]}" -o several --format auto_round,fake
expect 0 "${command[@]}" -o several --restart
finished several
absent several/fake/config.json several/auto_round/config.json several/fake/model.safetensors

# An unfinished run of other settings: refused, with the settings that differ by name; both can still go on.
changes=$(changes_of "${command[@]}" -o counted)
killed_at $((changes / 2)) "${command[@]}" -o cut
refuses 6 'unfinished run with other settings' "${command[@]}" -o cut --seed 7 --bits 8
grep -q 'seed: 42 then, 7 now' err.txt || die "the seed is not named"
grep -q 'bits: 4 then, 8 now' err.txt || die "the bits are not named"
expect 0 "${command[@]}" -o cut
same cut before

# Two runs into one OUT: the second is refused and the first goes on.
"$SIGNROUND" quantize "$tiny" "${small[@]}" --iters 30 -o shared >out1.txt 2>err1.txt &
pid=$!
# The file is there a moment before it is held; the number of the process is in it after that.
while [ ! -s shared/.signround/lock ] && kill -0 $pid 2>/dev/null; do sleep 0.01; done
kill -STOP $pid
refuses 6 "is held by process $pid" quantize "$tiny" "${small[@]}" --iters 30 -o shared
kill -CONT $pid
wait $pid || die "the first run failed: $(cat err1.txt)"
finished shared

# OUT is the model, holds something else, is a file, or lies below one.
refuses 2 'the folder of the model itself' "${command[@]}" -o "$random"
ln -s "$random" link
refuses 2 'the folder of the model itself' "${command[@]}" -o link
mkdir other
echo precious >other/thesis.tex
refuses 6 'thesis.tex' "${command[@]}" -o other
refuses 6 'thesis.tex' "${command[@]}" -o other --restart
[ "$(find other -type f)" = other/thesis.tex ] || die "the folder was touched"
echo text >file
refuses 6 'is a file' "${command[@]}" -o file
refuses 5 'cannot create' "${command[@]}" -o file/out
refuses 5 'cannot create' "${command[@]}" -o /proc/out

# --restart leaves models alone that lie in OUT but are not its own.
expect 0 "${command[@]}" -o mine
cp -r "$random" mine/original
expect 0 "${command[@]}" -o mine --restart --asym
diff -r "$random" mine/original || die "--restart touched another model"

# A folder whose name is no UTF-8.
expect 0 "${command[@]}" -o $'caf\xe9'
finished $'caf\xe9'
expect 0 "${command[@]}" -o $'caf\xe9' --json
