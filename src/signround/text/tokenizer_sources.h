// Tokenizers that come without a tokenizer.json, written as the tokenizer.json that transformers
// would convert them to.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "signround/text/tokenizer.h"

namespace signround {

struct TokenizerSource {
  nlohmann::json tokenizer;  // as of tokenizer.json
  nlohmann::json config;     // tokenizer_config.json, with what the source itself says filled in
  std::vector<std::string> notes;  // choices that the files left open
};

std::unique_ptr<Tokenizer> make_tokenizer(TokenizerSource source);

// vocab.json and merges.txt; the class named in `config` says how text is normalized and split.
TokenizerSource vocab_and_merges(const nlohmann::json& vocab, std::string_view merges,
                                 nlohmann::json config);
// A SentencePiece model (protobuf), BPE or Unigram.
TokenizerSource sentencepiece_model(std::string_view file, nlohmann::json config);
// A tiktoken file: a line for each token, its bytes in base64, a space, its rank.
bool is_tiktoken(std::string_view file);
TokenizerSource tiktoken_model(std::string_view file, nlohmann::json config);

}  // namespace signround
