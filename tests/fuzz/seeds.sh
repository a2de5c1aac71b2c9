#!/usr/bin/env bash
# Writes the seeds of all fuzz targets: seeds.sh FUZZ_SEEDS TESTDATA FOLDER.
set -euo pipefail
rm -rf "$3"
mkdir -p "$3"/fuzz_{jsonl,parquet,template,tokenizer_json}
"$1" "$3"
find "$2/tokenizers" -name '*.json' -size -40k -exec cp {} "$3/fuzz_tokenizer_json" \;
cp "$2"/chat_templates/*.jinja "$3/fuzz_template"
cp "$2"/parquet/*.parquet "$3/fuzz_parquet"
# The first byte chooses the reader: lines of JSON, a JSON file, text, the option syntax of --dataset.
{ printf '\0'; cat "$2/calibration/a.jsonl"; } >"$3/fuzz_jsonl/lines"
{ printf '\1'; cat "$2/calibration/b.json"; } >"$3/fuzz_jsonl/file"
{ printf '\2'; cat "$2/calibration/c.jsonl"; } >"$3/fuzz_jsonl/text"
printf '\3%s' 'a.jsonl:split=train+test:num=8:concat=True:apply_chat_template:system_prompt="x",b.txt' >"$3/fuzz_jsonl/options"
