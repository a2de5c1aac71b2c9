# --enable-norm-bias-tuning: norms of blocks and biases of rounded layers learn, are written in the checkpoint's own type,
# stand in the report, and survive a kill.
source "$(dirname "$0")/lib.sh"
expect 0 quantize "$tiny" "${small[@]}" -o plain
expect 0 quantize "$tiny" "${small[@]}" --enable-norm-bias-tuning -o tuned
finished tuned
changed() { diff <(tensors "$1") <(tensors "$2") | grep '^>' || true; }
[ "$(changed plain tuned | grep -c 'layers.*layernorm')" = 4 ] || die "not all norms of blocks differ"
[ "$(changed plain tuned | grep -v layernorm | grep -vEc 'qweight|scales')" = 0 ] || die "more than packed layers and norms differ"
for block in 0 1; do
  [ "$(json tuned/signround.json /blocks/$block/norms_and_biases/tuned)" = 2 ] || die "not two norms in block $block"
  holds "$(json tuned/signround.json /blocks/$block/norms_and_biases/mean_change) > 0"
done
grep -q '^## Norms and biases' tuned/signround.md || die "the report for people does not speak of it"
! grep -q '^## Norms and biases' plain/signround.md || die "norms changed that were not to"

# A model with biases in BF16; layers of 16 or 48 rows or columns (k, v, gate, up, down) fit no packed format and keep their biases.
mkdir biased
"$MAKE_MODEL" "$TESTDATA/models/llama-bias" made --dtype BF16 >/dev/null
cp -r made/. biased
vocab=$(for i in {0..25}; do printf '"%b":%d,' "\\x$(printf %x $((97 + i)))" "$i"; done)
cat >biased/tokenizer.json <<EOT
{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
 "decoder": null, "model": {"type": "BPE", "dropout": null, "unk_token": "?", "continuing_subword_prefix": null, "end_of_word_suffix": null,
 "fuse_unk": false, "byte_fallback": false, "vocab": {$vocab" ":26,"?":27}, "merges": []}}
EOT
for i in {1..8}; do echo "{\"text\": \"$(printf 'the quick brown fox %s jumps over a lazy dog and %s runs on ' "${i}a" "b$i" "${i}c" "d$i")\"}"; done >text.jsonl
biased=(quantize biased "${small[@]}" --group-size 16 --dataset text.jsonl --format auto_round,gptq)
expect 0 "${biased[@]}" -o without
expect 0 "${biased[@]}" --enable-norm-bias-tuning -o with
finished with
for format in auto_round gptq; do
  for bias in q_proj o_proj; do
    [ "$(changed without/$format with/$format | grep -c "self_attn.$bias.bias")" = 2 ] || die "$format: not both biases of $bias differ"
  done
  [ "$(changed without/$format with/$format | grep -c bias)" = 4 ] || die "$format: biases of layers that are not rounded differ"
  expect 0 inspect with/$format --json --filter layers.0.self_attn.q_proj.bias
  [ "$(json out.txt /tensors/0/dtype)" = BF16 ] || die "$format: a bias in another type"
done
diff <(tensors with/auto_round | grep bias) <(tensors with/gptq | grep bias) || die "other biases in another format"

# Killed at any change of a file, and continued: the same bytes. With learned factors on top of tuned norms as well.
for more in "" "--bits 2 --e2e-epochs 1"; do
  # shellcheck disable=SC2086
  command=(quantize "$tiny" "${small[@]}" --enable-norm-bias-tuning $more)
  rm -rf straight
  expect 0 "${command[@]}" -o straight
  count=$(changes_of "${command[@]}" -o counted)
  rm -rf counted
  for ((n = 1; n <= count; n += 1 + count / 12)); do
    rm -rf out
    killed_at "$n" "${command[@]}" -o out
    expect 0 "${command[@]}" -o out
    ! grep -q 'is damaged on disk' err.txt || die "killed at $n: a block that was finished is taken for a damaged one"
    finished out
    same straight out
  done
done
# What the work folder holds of a finished block is checked as its packed layers are.
rm -rf out
for ((n = count; n > 0; --n)); do
  rm -rf out
  killed_at "$n" "${command[@]}" -o out
  [ ! -f out/.signround/vectors/1.safetensors ] || [ ! -f out/.signround/journal.jsonl ] || [ "$(wc -l <out/.signround/journal.jsonl)" -lt 3 ] || break
done
printf '\0\0\0\0' | dd of=out/.signround/vectors/0.safetensors bs=1 seek=$(($(stat -c %s out/.signround/vectors/0.safetensors) - 4)) conv=notrunc 2>/dev/null
expect 0 "${command[@]}" -o out
grep -q 'is damaged on disk' err.txt || die "changed norms of a finished block were taken as they are"
same straight out
refuses 2 'nothing is tuned' quantize "$tiny" "${small[@]}" --method rtn --enable-norm-bias-tuning -o refused
