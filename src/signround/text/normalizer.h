// The normalizer section of tokenizer.json: rewrites a text before it is cut into pieces.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace signround {

struct NormalizedText {
  std::string text;        // valid UTF-8
  bool at_origin = false;  // its first character comes from the start of the whole input
};

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual void apply(NormalizedText& t) const = 0;
};

// From the JSON of a normalizer; null for null.
std::unique_ptr<Normalizer> make_normalizer(const nlohmann::json& config);

}  // namespace signround
