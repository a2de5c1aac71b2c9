// The model section of tokenizer.json: turns one piece of text into ids.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "signround/text/vocab.h"

namespace signround {

class TokenModel {
 public:
  // Buffers that one call of encode leaves for the next.
  struct Scratch {
    std::vector<int32_t> ids;
    std::vector<uint32_t> ranks, next, previous;
    std::vector<uint64_t> heap;
    std::vector<double> scores;
    std::string text;
  };

  virtual ~TokenModel() = default;
  // Appends the ids of `piece` (not empty; valid UTF-8, or raw bytes after use_bytes).
  virtual void encode(std::string_view piece, Scratch& scratch,
                      std::vector<int32_t>& ids) const = 0;
  // Whether pieces may be raw bytes instead of their byte-level stand-ins; if so, use_bytes says
  // that they will be.
  virtual bool can_use_bytes() const { return false; }
  virtual void use_bytes() {}
  // Whether the spaces between words are part of the tokens' text.
  virtual bool keeps_spaces() const { return false; }

  const Vocab& vocab() const { return vocab_; }

 protected:
  Vocab vocab_;
};

// From the JSON of a model; what the file asks for and is not done (dropout) goes to `notes`.
std::unique_ptr<TokenModel> make_token_model(const nlohmann::json& config,
                                             std::vector<std::string>& notes);

// Fills a vocabulary from {"token": id, ...}.
void read_vocab(const nlohmann::json& config, const char* where, Vocab& vocab);
// Id of "<0x00>" to "<0xFF>"; an empty vector if one of them is missing.
std::vector<int32_t> byte_fallback_ids(const Vocab& vocab);

}  // namespace signround
