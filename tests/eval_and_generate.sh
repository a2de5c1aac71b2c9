# The JSON that programs read, by its stable names; a model equals itself.
source "$(dirname "$0")/lib.sh"
expect 0 eval "$tiny" --reference "$tiny" --json --limit 2 --seqlen 64 --threads 1
[ "$(json out.txt /results/0/model)" = "$tiny" ] || die "model"
[ "$(json out.txt /results/0/perplexity/tokens)" = 126 ] || die "tokens"
holds "$(json out.txt /results/0/perplexity/value) > 1 && $(json out.txt /results/0/perplexity/stderr) > 0"
for name in mean median p90 p99 max; do holds "$(json out.txt /results/0/kl/$name) == 0"; done
holds "$(json out.txt /results/0/same_top) == 1"
[ "$(json out.txt /results/0/perplexity/value)" = "$(json out.txt /results/0/reference_perplexity/value)" ] || die "two perplexities of one model"

expect 0 quantize "$tiny" "${small[@]}" -o out --json
[ "$(json out.txt /program)" = signround ] || die "--json prints something else"
report=out/signround.json
holds "$(json $report /seconds) > 0 && $(json $report /peak_rss_bytes) > 1e6 && $(json $report /result_bytes) > 1e5"
[ "$(json $report /options/iters /options/method /options/group_size /version | tr '\n' ' ' | cut -d' ' -f1-3)" = '6 signround 32' ] || die "options"
[ "$(json $report '/blocks#' /blocks/0/index /blocks/1/index | tr '\n' ' ')" = '2 0 1 ' ] || die "blocks"
for block in 0 1; do
  holds "$(json $report /blocks/$block/loss_best) < $(json $report /blocks/$block/loss_first)"
  holds "$(json $report /blocks/$block/error_db) < -5 && $(json $report /blocks/$block/seconds) > 0"
done
holds "$(stat -c %s out/model.safetensors) == $(json $report /result_bytes)"

expect 0 eval out --reference "$tiny" --json --limit 2 --seqlen 64
holds "$(json out.txt /results/0/kl/mean) > 0 && $(json out.txt /results/0/kl/p99) >= $(json out.txt /results/0/kl/median) && $(json out.txt /results/0/same_top) > 0.3"

prompt=(--prompt 'Once upon a time' --max-tokens 12)
expect 0 generate "$tiny" "${prompt[@]}" --json
text=$(json out.txt /text) tokens=$(json out.txt /tokens)
[ "$(json out.txt '/tokens#')" = 12 ] || die "tokens: $tokens"
expect 0 generate "$tiny" "${prompt[@]}" # streamed, the same text
[ "$(cat out.txt)" = "$text" ] || die "'$(cat out.txt)' is not '$text'"
expect 0 generate out "${prompt[@]}" --json --temperature 1 --seed 3
first=$(json out.txt /tokens)
expect 0 generate out "${prompt[@]}" --json --temperature 1 --seed 3
[ "$(json out.txt /tokens)" = "$first" ] || die "the same seed gives another text"
expect 0 generate out "${prompt[@]}" --json --temperature 1 --seed 4
[ "$(json out.txt /tokens)" != "$first" ] || die "another seed gives the same text"

# An answer ends at each of the tokens that generation_config.json names.
cp -r "$tiny" ending
expect 0 generate "$tiny" "${prompt[@]}" --json
third=$(json out.txt /tokens/2)
echo "{\"eos_token_id\": [5, $third]}" >ending/generation_config.json
expect 0 generate ending "${prompt[@]}" --json
[ "$(json out.txt '/tokens#')" -le 3 ] || die "it goes on: $(json out.txt /tokens)"
expect 0 generate ending "${prompt[@]}" --json --ignore-eos
[ "$(json out.txt '/tokens#')" = 12 ] || die "it ends"

# The other commands' JSON.
expect 0 tokenize "$tiny" --text 'Once upon' --json
[ "$(json out.txt '/ids#')" -ge 2 ] || die "ids"
echo '{"messages": [{"role": "user", "content": "Hello"}]}' >chat.json
echo '{{ messages[0].content }}!' >chat.jinja
expect 0 template --template chat.jinja --messages chat.json --json
[ "$(json out.txt /text)" = 'Hello!' ] || die "text: $(cat out.txt)"
for name in signround onednn compiler; do [ -n "$(json $report /versions/$name)" ] || die "version of $name"; done

# Longer than the model's longest input: said.
expect 0 eval "$tiny" --seqlen 600 --limit 1
grep -q "longer than the model's 512" err.txt || die "not said"
expect 0 eval "$tiny" --seqlen 512 --limit 1
[ ! -s err.txt ] || die "said without need"
expect 0 generate "$tiny" --prompt 'Once' --max-tokens 511 --json
grep -q "the model's longest input is 512" err.txt || die "not said"

# What a layer's last group lacks in weights it does not lack in bits: groups of 48 in rows of 128 and 384.
expect 0 quantize "$tiny" "${small[@]}" --group-size 48 --format gptq,fake -o uneven
for format in gptq fake; do
  expect 0 eval uneven/$format --json --limit 1 --seqlen 128
  cp out.txt $format.json
done
holds "($(json gptq.json /results/0/perplexity/value) / $(json fake.json /results/0/perplexity/value) - 1)^2 < 1e-12"

expect 0 inspect out --json
[ "$(json out.txt /model_type)" = llama ] || die "model_type"
expect 0 inspect out --json --filter layers.0.mlp.up_proj.weight
[ "$(json out.txt '/tensors#' /tensors/0/name | tr '\n' ' ')" = '1 model.layers.0.mlp.up_proj.weight ' ] || die "the filter"
# 4 bits, and a group of 32 shares 16 bits of scale and 4 of zero point.
holds "$(json out.txt /tensors/0/bits_per_weight) == 4 + 20 / 32"
