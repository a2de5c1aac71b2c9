# Files that break their own format: exit code 3, the file and the place by name, no result.
source "$(dirname "$0")/lib.sh"
copy() {
  rm -rf bad
  cp -r "$tiny" bad
}
corrupt() {
  refuses "$1" "$2" quantize bad --method rtn --group-size 32 -o out
  absent out
}
weights=bad/model.safetensors
size=$(stat -c %s "$tiny/model.safetensors")

# safetensors cut at many lengths; headers that lie.
for bytes in 0 1 7 8 9 100 1000 $((size / 2)) $((size - 1)); do
  copy
  head -c "$bytes" "$tiny/model.safetensors" >$weights
  corrupt 3 model.safetensors
done
for length in '\x00\x00\x00\x00\x00\x00\x00\x00' '\xff\xff\xff\xff\xff\xff\xff\xff' '\xff\xff\xff\xff\xff\xff\xff\x7f' '\x05\x00\x00\x00\x00\x00\x00\x00'; do
  copy
  printf "$length" | dd of=$weights conv=notrunc status=none
  corrupt 3 model.safetensors
done
copy
sed -i 's/"dtype":"F32","shape":\[2048,128\]/"dtype":"F32","shape":[9048,128]/' $weights
corrupt 3 model.safetensors
copy
sed -i 's/"dtype":"F32","shape":\[2048,128\]/"dtype":"Q99","shape":[2048,128]/' $weights
corrupt 4 Q99
copy
printf more >>bad/model.safetensors
corrupt 3 model.safetensors

# Shards and their index.
"$MAKE_MODEL" "$tiny" sharded --shards 3
shards() {
  rm -rf bad
  cp -r sharded bad
}
shards
rm bad/model-00002-of-00003.safetensors
corrupt 3 'lacks the shard model-00002-of-00003.safetensors'
shards
rm bad/model.safetensors.index.json
corrupt 3 'the index is missing'
shards
sed -i 's/"model.norm.weight"/"model.norm.nobody"/' bad/model.safetensors.index.json
corrupt 3 model.norm
shards
sed -i 's/: "model-00001-of/: "..\/model-00001-of/' bad/model.safetensors.index.json
corrupt 3 'the name of a file in the same folder'
for index in '' '{' '[]' '{}' '{"weight_map": 1}' '{"weight_map": {"a": 1}}'; do
  shards
  echo "$index" >bad/model.safetensors.index.json
  corrupt 3 model.safetensors.index.json
done

# Tensors that are missing or have another shape than config.json says.
rm -rf bad
"$MAKE_MODEL" "$tiny" bad --drop model.layers.1.mlp.up_proj.weight
corrupt 3 model.layers.1.mlp.up_proj.weight
rm -rf bad
"$MAKE_MODEL" "$tiny" bad --drop model.norm.weight
corrupt 3 model.norm.weight
rm -rf bad
"$MAKE_MODEL" "$tiny" bad --reshape model.layers.0.self_attn.q_proj.weight 64x256
corrupt 3 model.layers.0.self_attn.q_proj.weight
rm -rf bad
"$MAKE_MODEL" "$tiny" bad --reshape model.layers.1.input_layernorm.weight 2x64
corrupt 3 model.layers.1.input_layernorm.weight

# config.json.
for config in '' '{' 'null' '[]' '"llama"' '{}' '{"model_type": 3}' '{"model_type": "llama"}' $'{"model_type": "ll\xff"}'; do
  copy
  printf '%s' "$config" >bad/config.json
  corrupt 3 config.json
done
for change in 's/"hidden_size": 128/"hidden_size": -128/' 's/"hidden_size": 128/"hidden_size": 9223372036854775807/' 's/"hidden_size": 128/"hidden_size": "many"/' \
  's/"num_hidden_layers": 2/"num_hidden_layers": 1000000000000/' 's/"num_attention_heads": 8/"num_attention_heads": 0/' \
  's/"num_key_value_heads": 4/"num_key_value_heads": 3/' 's/"rope_theta": 10000.0/"rope_theta": -1/' 's/"rms_norm_eps": 1e-06/"rms_norm_eps": []/' \
  's/"num_hidden_layers": 2/"num_hidden_layers": 3/' 's/"intermediate_size": 384/"intermediate_size": 383/'; do
  copy
  sed -i "$change" bad/config.json
  corrupt 3 ''
done
copy
head -c 100000 /dev/zero | tr '\0' '[' >bad/config.json
corrupt 3 config.json

# tokenizer.json is read where text is.
broken_tokenizer() {
  refuses "$1" "$2" quantize bad "${small[@]}" -o out
  absent out
}
for text in '' '{' '{}' '[]' '{"model": {"type": "BPE"}}' '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'; do
  copy
  printf '%s' "$text" >bad/tokenizer.json
  broken_tokenizer 3 ''
done
copy
head -c 40000 "$tiny/tokenizer.json" >bad/tokenizer.json
broken_tokenizer 3 tokenizer.json
copy
rm bad/tokenizer*.json
broken_tokenizer 4 tokenizer
copy
sed -i 's/"vocab_size": 2048/"vocab_size": 1024/' bad/config.json
corrupt 3 ''

# GGUF.
gguf() {
  refuses "$1" "$2" quantize bad.gguf --method rtn -o out
  absent out
}
: >bad.gguf
gguf 3 bad.gguf
printf 'GGUF' >bad.gguf
gguf 3 bad.gguf
printf 'GGML\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' >bad.gguf
gguf 3 bad.gguf
printf 'GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f' >bad.gguf
gguf 3 bad.gguf
printf 'GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\x7fabc' >bad.gguf
gguf 3 bad.gguf
# Blocks that config.json does not count are copied, and named.
mkdir fewer
cp "$tiny"/* fewer/
sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' fewer/config.json
expect 0 quantize fewer "${small[@]}" --method rtn -o fewer-out
grep -q 'tensors of blocks behind the 1 that config.json speaks of, the first model.layers.1.' err.txt || die "not named"
refuses 9 'behind the 1' quantize fewer "${small[@]}" --method rtn -o strict --strict
