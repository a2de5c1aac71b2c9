// From what the user names to a checkpoint whose weights can be read: a folder, a .gguf file, or a
// Hub id.
#pragma once

#include <memory>
#include <string>

#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"
#include "signround/text/tokenizer.h"

namespace signround {

// Resolves `model` (a Hub id is downloaded into the cache) and opens it. With `decoded`, a
// quantized checkpoint is presented with its weights dequantized (decoded_checkpoint.h).
std::unique_ptr<Checkpoint> open_model(const std::string& model, bool decoded = true);

// The tokenizer that came with the checkpoint. Error{kUnsupported} where there is none.
std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint);

// tokenizer_config.json, or an empty object.
nlohmann::json read_tokenizer_config(const Checkpoint& checkpoint);

// Tokens that end an answer: the tokenizer's end-of-text token and those of generation_config.json,
// or where that names none, of config.json.
std::vector<int32_t> end_tokens(const Checkpoint& checkpoint, const Tokenizer& tokenizer);

}  // namespace signround
