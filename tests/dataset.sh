# --dataset as a user writes it: every kind of file and every option gives the tokens that the user gets by rendering and
# tokenizing the same text by hand. Two runs on the same tokens write the same bytes.
source "$(dirname "$0")/lib.sh"

cp -r "$tiny" model
cat >model/chat_template.jinja <<'END'
{{ bos_token }}{% for m in messages %}
[{{ m.role }}] {{ m.content }}
{% endfor %}
{% if add_generation_prompt %}[assistant] {% endif %}
END
sentences=('Once upon a time there was a little dog. He liked to run in the big park with his friends every day.'
  'Lily saw a red ball in the tree, and she asked her mom: "Can you help me?" Her mom said yes and smiled at her.'
  'The cat, the bird and the fish were sad, for it was cold and the sun was gone. Then a boy came with a lamp.')

# Texts in three forms, and the tokens of these texts, one row each, as `tokenize` prints them.
: >a.jsonl
for s in "${sentences[@]}"; do printf '{"text": "%s", "n": 1}\n' "${s//\"/\\\"}" >>a.jsonl; done
{ printf '['; sed '$!s/$/,/' a.jsonl; printf ']'; } >a.json
printf '%s\n' "${sentences[@]}" >a.txt
# ids FILE OPTIONS...: a data set of the ids of FILE's texts.
ids() {
  expect 0 tokenize model --file "$1" --json "${@:2}"
  sed 's/^{"ids":/{"input_ids":/' out.txt
}
# chats FILE SYSTEM_MESSAGE: the texts of a.jsonl in the template, as lines {"text": ...}
chats() {
  : >"$1"
  local s turns
  for s in "${sentences[@]}"; do
    turns="$2{\"role\": \"user\", \"content\": \"${s//\"/\\\"}\"}"
    printf '{"messages": [%s]}' "$turns" >turns.json
    expect 0 template model --messages turns.json --add-generation-prompt
    { printf '{"text": "'; sed 's/"/\\"/g' out.txt | awk '{ printf "%s%s", (NR > 1 ? "\\n" : ""), $0 }'; printf '"}\n'; } >>"$1"
  done
}

run=(--group-size 32 --iters 2 --seqlen 12 --nsamples 3 --batch-size 1 --compute-dtype float32 --threads 1)
# quantized NAME DATASET: the run's result in folder NAME.
quantized() { expect 0 quantize model "${run[@]}" --dataset "$2" -o "$1"; }
# agree A B: two data sets give the same result.
agree() {
  quantized one "$1"
  quantized two "$2"
  same one two
  rm -r one two
}

# Kinds of files: the same texts give the same tokens.
ids a.jsonl >ids.jsonl
[ "$(wc -l <ids.jsonl)" = 3 ] || die "three texts expected"
agree ./a.jsonl ./ids.jsonl
agree ./a.json ./ids.jsonl
# The chat template, with the reference's system prompt, with one's own (whose separators are quoted), and with none.
chats chat.jsonl '{"role": "system", "content": "You are a helpful assistant."}, '
grep -qF '[system] You are a helpful assistant.\n[user] Once' chat.jsonl || die "the template was not applied"
ids chat.jsonl --no-special >chat_ids.jsonl
agree ./a.jsonl:apply_chat_template ./chat_ids.jsonl
agree ./a.json:apply_chat_template=True ./chat_ids.jsonl
chats chat.jsonl '{"role": "system", "content": "Be brief: yes, or no=never"}, '
ids chat.jsonl --no-special >own_ids.jsonl
agree './a.jsonl:system_prompt="Be brief: yes, or no=never"' ./own_ids.jsonl
chats chat.jsonl ''
ids chat.jsonl --no-special >no_ids.jsonl
agree ./a.jsonl:system_prompt= ./no_ids.jsonl
quantized plain ./a.jsonl
quantized templated ./a.jsonl:apply_chat_template
different plain templated
rm -r plain templated
agree ./a.jsonl:apply_chat_template=False ./a.jsonl

# Parquet: the goldens of its reader have the same rows as JSON.
sed 's/.*"text":\(\[[^]]*\]\).*/\1/' "$TESTDATA/parquet/rows.json" >rows.json
agree "$TESTDATA/parquet/dictionary_snappy.parquet" ./rows.json
agree "$TESTDATA/parquet/dictionary_snappy.parquet:apply_chat_template" ./rows.json:apply_chat_template
quantized plain "$TESTDATA/parquet/messages.parquet"
quantized templated "$TESTDATA/parquet/messages.parquet:system_prompt="
different plain templated
rm -r plain templated

# concat: BOS is taken off, the documents (each cut to a row) are joined, BOS is put back.
run=(--group-size 32 --iters 2 --seqlen 24 --nsamples 2 --batch-size 1 --compute-dtype float32 --threads 1)
sed 's/.*\[//; s/\].*//' ids.jsonl | cut -d, -f1-24 >rows.txt
bos=$(head -1 rows.txt | cut -d, -f1)
{ while IFS=, read -r _ rest; do printf '%s,' "$rest"; done <rows.txt; } | sed 's/,$//' >joined.txt
{ printf '[%s,' "$bos"; cut -d, -f1-23 joined.txt; printf '],[%s,' "$bos"; cut -d, -f24-46 joined.txt; printf ']'; } |
  tr -d '\n' | sed 's/^/[/; s/$/]/' >joined.json
agree ./a.jsonl:concat=True:shuffle=False ./joined.json:shuffle=False
# Running text is never cut before it is joined.
agree ./a.txt:shuffle=False ./a.txt:concat=True:shuffle=False

# Several data sets, num= of one of them, a folder with splits.
run=(--group-size 32 --iters 2 --seqlen 12 --nsamples 4 --batch-size 1 --compute-dtype float32 --threads 1)
quantized two './a.jsonl:num=1,./a.json:apply_chat_template:num=3'
grep -qF "./a.jsonl: 1 of " two/signround.json || die "num=1 was not honoured"
grep -qF "./a.json: 3 of " two/signround.json || die "num=3 was not honoured"
rm -r two
mkdir -p data/test
sed 's/dog/fox/' a.jsonl >data/train.jsonl
cp a.jsonl data/validation.jsonl
run=(--group-size 32 --iters 2 --seqlen 12 --nsamples 3 --batch-size 1 --compute-dtype float32 --threads 1)
agree ./data:split=validation ./a.jsonl
agree ./data ./data/train.jsonl
expect 2 quantize model "${run[@]}" --dataset ./data:split=nowhere -o out
grep -q 'no file of the split' err.txt || die "a split that is not there"
