# --method nf4 writes what bitsandbytes would, reads it back, and opens it like any other checkpoint.
source "$(dirname "$0")/lib.sh"
expect 0 quantize "$tiny" --method nf4 --format bnb,fake -o both
grep -q 'NF4 b64 double by nf4' err.txt || die "the plan does not say what is done"
finished both
expect 0 quantize "$tiny" --method nf4 -o alone
same alone/model.safetensors both/bnb/model.safetensors

# The same weights in both forms: the same predictions.
for form in bnb fake; do
  expect 0 eval both/$form --reference "$tiny" --limit 4 --seqlen 64 --json
  json out.txt /results/0/kl/mean >$form.txt
done
cmp bnb.txt fake.txt || die "bnb and fake differ: $(cat bnb.txt fake.txt)"
holds "$(cat bnb.txt) > 0 && $(cat bnb.txt) < 0.2"
expect 0 generate alone --prompt 'Once upon a time' --max-new-tokens 4

# Scales in 8 bits need less room than in 32.
expect 0 quantize "$tiny" --method nf4 --no-bnb-double-quant -o single
bits() {
  expect 0 inspect "$1" --json --filter up_proj
  json out.txt /tensors/0/bits_per_weight
}
holds "$(bits alone) < $(bits single) && $(bits single) < 4.6"
expect 0 inspect single --summary
grep -q 'NF4 b64 ' out.txt || die "inspect does not name the levels"

# A head of its own, and layers that stay: config.json says so.
expect 0 quantize "$random" --method nf4 --quant-lm-head --ignore-layers v_proj -o head
finished head
grep -q 'lm_head.weight.quant_state' <(tensors head) || die "the head is not quantized"
[ "$(json head/config.json /quantization_config/llm_int8_skip_modules/1)" = model.layers.1.self_attn.v_proj ] || die "v_proj is not named"
! tensors head | grep 'v_proj.weight\.' || die "v_proj is quantized"

# What is damaged on disk is done again; a finished result is damaged loudly.
n=8
until killed_at "$n" quantize "$tiny" --method nf4 -o out && [ "$(cat out/.signround/journal.jsonl 2>/dev/null | wc -l)" = 2 ]; do
  rm -rf out
  n=$((n + 3))
done
at=$(grep -abo 'quant_type' out/model.safetensors.partial | awk 'NR == 1' | cut -d: -f1)
printf X | dd of=out/model.safetensors.partial bs=1 seek="$at" conv=notrunc status=none
expect 0 quantize "$tiny" --method nf4 -o out
grep -q 'is damaged on disk and is done again' err.txt || die "the damage was not seen"
same alone out
at=$(grep -abo 'quant_type' out/model.safetensors | awk 'NR == 1' | cut -d: -f1)
printf X | dd of=out/model.safetensors bs=1 seek="$at" conv=notrunc status=none
refuses 3 'has no "quant_type"' inspect out

refuses 2 'use --method nf4' quantize "$tiny" --method rtn --format bnb -o no
refuses 2 'bnb and fake only' quantize "$tiny" --method nf4 --format awq -o no
refuses 2 '--bits 3: --method nf4 has 4 bits' quantize "$tiny" --method nf4 --bits 3 -o no
refuses 2 'does not read' quantize "$tiny" --method nf4 --e2e-epochs 1 -o no
refuses 4 'is quantized already' quantize alone --method nf4 -o no
absent no
