# tokenize and template as a user calls them: what they print, and the exit code of each failure.
source "$(dirname "$0")/lib.sh"

# The goldens have a "text" and the ids that the reference gives it: the very file is a request.
mkdir model
cp "$TESTDATA/tokenizers/bpe-llama2.json" model/tokenizer.json
golden=$TESTDATA/tokenizers/bpe-llama2.jsonl
expect 0 tokenize model --file "$golden" --json
sed 's/.*\("ids":\[[0-9,]*\]\),"plain".*/{\1}/' "$golden" >wanted.txt
[ "$(wc -l <wanted.txt)" -gt 20 ] || die "the golden is short"
same wanted.txt out.txt

printf 'Once upon a time' >text.txt
expect 0 tokenize "$tiny" --file text.txt --ids
cp out.txt file.txt
expect 0 tokenize "$tiny" --text 'Once upon a time' --ids
same file.txt out.txt
[ "$(wc -l <out.txt)" = 1 ] || die "--ids prints more than a line"
expect 0 tokenize "$tiny" --text 'Once upon a time' --no-special --ids
[ "$(wc -w <out.txt)" -lt "$(wc -w <file.txt)" ] || die "--no-special adds BOS"
expect 0 tokenize "$tiny" --text 'Once upon a time' --json
[ "$(tr -d '{}":[]ids' <out.txt | tr , ' ')" = "$(cat file.txt)" ] || die "--json and --ids differ"

printf 'Once\377upon' >bytes.txt
expect 0 tokenize "$tiny" --file bytes.txt --ids
grep -qF 'bytes.txt: byte 4 is not UTF-8 text' err.txt || die "bytes that are no text are read without a word"

refuses 2 'either --text or --file' tokenize "$tiny"
refuses 5 'there is no such folder' tokenize nowhere --text a
refuses 5 'neither a folder nor a .gguf file' tokenize text.txt --text a
refuses 5 'is a folder' tokenize "$tiny" --file model
printf '{"text": "a"}\n{"text": \n' >bad.jsonl
refuses 3 'bad.jsonl line 2' tokenize "$tiny" --file bad.jsonl --json
printf '{"text": 1}\n' >bad.jsonl
refuses 3 'a string "text"' tokenize "$tiny" --file bad.jsonl --json
# A megabyte of a string without an end is not quoted in full.
{ printf '{"a": "'; head -c 1000000 /dev/zero | tr '\0' x; } >model/tokenizer.json
refuses 3 'missing closing quote' tokenize model --text a
[ "$(wc -c <err.txt)" -lt 1000 ] || die "the error quotes the whole file"
# A pattern is quoted up to a character's end: here byte 200 is inside one.
pattern=$(printf '你%.0s' $(seq 100))
printf '{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"xa(%s"},"behavior":"Isolated"},"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}' \
  "$pattern" >model/tokenizer.json
refuses 4 'pattern "xa(你' tokenize model --text a
iconv -f UTF-8 -t UTF-8 err.txt >/dev/null || die "the error is not UTF-8"

# template
gemma=$TESTDATA/chat_templates/chujiezheng-gemma-it.jinja
printf '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}' >chat.json
printf '{{ bos_token }}\n{%% for m in messages %%}\n{{ m.role }}: {{ m.content }}{{ eos_token }}\n{%% endfor %%}\n{%% if add_generation_prompt %%}>{%% endif %%}' >own.jinja
expect 0 template --template own.jinja --messages chat.json --bos '<b>' --eos '<e>' --add-generation-prompt
printf '<b>\nuser: Hi<e>\nassistant: Ho<e>\n>' >wanted.txt
cmp wanted.txt out.txt || die "the rendering, and nothing else, is printed"
expect 0 template --template own.jinja --messages chat.json --bos '<b>' --eos '<e>'
[ "$(tail -c 1 out.txt)" = '' ] || die "a generation prompt that nobody asked for"
printf '{"messages": [{"role": "assistant", "content": "Hi"}]}' >wrong.json
refuses 2 'Conversation roles must alternate' template --template "$gemma" --messages wrong.json
[ ! -s out.txt ] || die "a template that raises printed something"
grep -q 'line [0-9]*, column [0-9]*' err.txt || die "the error has no place"
printf '{%% for i in range(99999) %%}{%% for j in range(99999) %%}{%% endfor %%}{%% endfor %%}' >endless.jinja
refuses 2 'line 1' template --template endless.jinja --messages chat.json
printf '{%% if %%}' >broken.jinja
refuses 3 'line 1, column' template --template broken.jinja --messages chat.json
refuses 5 'nothing.json' template --template "$gemma" --messages nothing.json
refuses 4 'has no chat template' template model --messages chat.json
