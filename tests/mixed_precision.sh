# Mixed precision stays within its budget, is resumed with what it chose, and costs about what was predicted.
source "$(dirname "$0")/lib.sh"
settings=("${small[@]}" --method opt-rtn --nsamples 16)
bytes_of() { stat -c %s "$1"/model*.safetensors | awk '{ sum += $1 } END { printf "%d", sum }'; }
expect 0 quantize "$tiny" "${settings[@]}" --avg-bits 4 -o mixed
finished mixed
[ -s mixed.sensitivity.json ] || die "no file of sensitivities"
extra=$(json mixed/config.json '/quantization_config/extra_config#')
[ "$extra" -ge 2 ] || die "only $extra layers differ from 4 bits"

# The same once more: measured before.
expect 0 quantize "$tiny" "${settings[@]}" --avg-bits 4 -o again --sensitivity mixed.sensitivity.json
grep -q 'taken from mixed.sensitivity.json' err.txt || die "measured anew"
same mixed again
absent again.sensitivity.json

# Other layers to choose for: what the file holds is of no use.
cp mixed.sensitivity.json other.json
expect 0 quantize "$tiny" "${settings[@]}" --avg-bits 4 -o other --sensitivity other.json --ignore-layers o_proj
grep -q 'measured anew' err.txt || die "took the sensitivities of other layers"

# A run that is killed goes on with the schemes that it began with, without measuring.
changes=$(changes_of quantize "$tiny" "${settings[@]}" --avg-bits 4 -o counted --sensitivity mixed.sensitivity.json)
cp mixed.sensitivity.json killed.json
killed_at $((changes - 10)) quantize "$tiny" "${settings[@]}" --avg-bits 4 -o killed --sensitivity killed.json
rm -f killed.json
expect 0 quantize "$tiny" "${settings[@]}" --avg-bits 4 -o killed --sensitivity killed.json
absent killed.json
same mixed killed

# By size of the whole checkpoint.
size=$(bytes_of mixed)
expect 0 quantize "$tiny" "${settings[@]}" --size "${size}B" -o sized --sensitivity mixed.sensitivity.json
[ "$(bytes_of sized)" -le "$size" ] || die "$(bytes_of sized) bytes, $size were allowed"

# At the size of 3 bits in groups of 32: the divergence is near the prediction, and below what the layers' own errors choose.
settings=(--group-size 32 --method opt-rtn --bits 3 --nsamples 64 --seqlen 128 --compute-dtype float32)
expect 0 quantize "$tiny" "${settings[@]}" -o uniform
settings+=(--size "$(bytes_of uniform)B" --sensitivity measured.json)
for measure in kl error; do
  expect 0 quantize "$tiny" "${settings[@]}" --sensitivity-measure $measure -o by_$measure
  [ $measure = error ] || predicted=$(sed -n 's/.*chosen.*divergence \([0-9.]*\).*/\1/p' err.txt)
  [ "$(bytes_of by_$measure)" -le "$(bytes_of uniform)" ] || die "larger than allowed"
  expect 0 eval by_$measure --reference "$tiny" --seqlen 128 --limit 32 --json
  cp out.txt $measure.json
done
kl=$(json kl.json /results/0/kl/mean)
holds "$kl < $(json error.json /results/0/kl/mean)"
holds "$kl < 1.5 * $predicted && $kl > $predicted / 1.5"

settings=("${small[@]}" --method opt-rtn)
refuses 2 'too small' quantize "$tiny" "${settings[@]}" --avg-bits 2 -o refused
refuses 2 'leave one out' quantize "$tiny" "${settings[@]}" --avg-bits 4 --size 1GB -o refused
refuses 2 'is no size' quantize "$tiny" "${settings[@]}" --size huge -o refused
refuses 2 'does not read' quantize "$tiny" --method rtn --avg-bits 4 -o refused
