# What cannot be served is said at once, in one message with its reason, with its exit code, and leaves nothing.
source "$(dirname "$0")/lib.sh"
refused() {
  refuses "$@" -o out
  absent out
}

# Usage.
refuses 2 'MODEL is missing' quantize -o out
refuses 2 '-o OUT is missing' quantize "$tiny"
refused 2 'did you mean --iters?' quantize "$tiny" --itres 5
refused 2 '3 problems' quantize "$tiny" --bits 9 --frobnicate --lr fast
grep -q -- "--bits: '9' is outside" err.txt && grep -q -- '--frobnicate' err.txt && grep -q "'fast' is not a number" err.txt || die "a problem is not named"
refused 2 "'int3' is none of" quantize "$tiny" --format int3
refused 2 'names fake twice' quantize "$tiny" --format fake,fake
refused 2 "'magic' is none of" quantize "$tiny" --method magic
refused 2 '--group-size' quantize "$tiny" --group-size -2
refused 2 'bits' quantize "$tiny" --bits 5
refused 2 'is no list of blocks' quantize "$tiny" --blocks one
refused 2 'block 2' quantize "$tiny" --blocks 0-2
refused 2 "contains 'qqq'" quantize "$tiny" --ignore-layers qqq
refused 2 'no layer is left' quantize "$tiny" --ignore-layers self_attn,mlp --method rtn
refused 2 'float16 scales' quantize "$tiny" --scale-dtype bfloat16
refused 2 'tied' quantize "$tiny" --quant-lm-head
refused 2 '0 is no size' quantize "$tiny" --group-size 0
# What does not fit the model is named all at once as well.
refused 2 '5 problems' quantize "$tiny" --blocks 0-2 --ignore-layers qqq,rrr --quant-lm-head --layer-config '{"zzz": 8}'
grep -q 'block 2' err.txt && grep -q "contains 'qqq'" err.txt && grep -q "contains 'rrr'" err.txt && grep -q tied err.txt && grep -q "meant by 'zzz'" err.txt ||
  die "a problem is not named"
for number in --iters=-1 --nsamples=0 --seqlen=1 --batch-size=0 --lr=-1 --lr=nan --momentum=1 --shard-size=0 --max-memory=-1 \
  --iters=1e99 --nsamples=99999999999999999999 --seed=-1 --threads=x; do
  refused 2 "${number%%=*}" quantize "$tiny" "$number"
done
expect 2 nonsense
expect 2

# The model.
refused 5 'there is no' quantize ./nowhere
mkdir empty
refused 2 'no config.json' quantize empty
refused 4 'neither a folder nor a .gguf file' quantize "$tiny/config.json"
cp -r "$tiny" strange
sed -i 's/"model_type": "llama"/"model_type": "rwkv"/' strange/config.json
refused 4 "unknown architecture 'rwkv'; this program knows llama" quantize strange
expect 0 quantize "$tiny" --method rtn --group-size 32 -o packed --quiet
refused 4 'is quantized already' quantize packed

# Groups that no format can hold: skipped and counted, with --strict refused.
refused 9 'left in 16 bit' quantize "$random" --method rtn --group-size 32 --strict
refused 2 'no layer is left to quantize; the first that was skipped' quantize "$random" --method rtn --group-size 24 --format awq

# Groups that are not full at a row's end: packed, but nobody loads them from this format.
refused 9 'no known engine loads auto_round' quantize "$tiny" --method rtn --group-size 48 --strict
expect 0 quantize "$tiny" --method rtn --group-size 48 --format gptq -o uneven --strict

# Calibration.
refused 2 'nowhere.jsonl' quantize "$tiny" --dataset ./nowhere.jsonl
echo '{"text": "Too short."}' >short.jsonl
refused 2 'no sample of 64 tokens could be made' quantize "$tiny" "${small[@]}" --dataset ./short.jsonl
grep -q '1 documents, 1 too short' err.txt || die "the samples are not counted"
echo 'not JSON' >broken.jsonl
refused 3 'broken.jsonl' quantize "$tiny" "${small[@]}" --dataset ./broken.jsonl
: >empty.jsonl
refuses 2 'empty.jsonl' quantize "$tiny" "${small[@]}" --dataset ./empty.jsonl -o out
absent out
refused 9 'calibration samples' quantize "$tiny" "${small[@]}" --nsamples 100000 --strict

# Memory.
refused 7 '--max-memory allows' quantize "$tiny" "${small[@]}" --max-memory 0.001

# Other commands.
refuses 2 '--prompt is missing' generate "$tiny"
refuses 2 '--seqlen' eval "$tiny" --seqlen 1
: >empty.txt
refuses 2 'token' eval "$tiny" --text empty.txt
refuses 5 'nowhere.txt' eval "$tiny" --text nowhere.txt
refuses 5 'there is no' inspect ./nowhere
