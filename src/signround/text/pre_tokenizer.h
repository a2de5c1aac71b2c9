// The pre_tokenizer section of tokenizer.json: cuts a normalized text into the pieces that the
// model sees one by one.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "signround/text/pieces.h"

namespace signround {

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(PieceList& list) const = 0;

  // If the last step writes bytes as printable characters (ByteLevel), leave the bytes as they are,
  // for a model that works on bytes. False: it does not end in such a step.
  virtual bool keep_bytes() { return false; }
};

// From the JSON of a pre_tokenizer; null for null.
std::unique_ptr<PreTokenizer> make_pre_tokenizer(const nlohmann::json& config);

}  // namespace signround
