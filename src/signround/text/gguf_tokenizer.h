// The tokenizer in a GGUF file's metadata, as the files that Hugging Face's libraries load.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "signround/io/gguf.h"

namespace signround {

// tokenizer.json. For `tokenizer.ggml.model` gpt2, gemma4 and whitespace (BPE; `tokenizer.ggml.pre`
// says how texts are cut and tokens written) and llama (SentencePiece BPE; merges are derived from
// the scores).
// Error{kUnsupported} names another one.
std::string tokenizer_json_from_gguf(const GgufFile& file);

// tokenizer_config.json, with the chat template.
nlohmann::json tokenizer_config_from_gguf(const GgufFile& file);

}  // namespace signround
