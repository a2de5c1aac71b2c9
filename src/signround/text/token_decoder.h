// The decoder section of tokenizer.json: turns the strings of tokens back into text.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace signround {

class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;
  // Rewrites the strings; joined, they are the text.
  virtual void apply(std::vector<std::string>& tokens) const = 0;
};

// From the JSON of a decoder; null for null.
std::unique_ptr<TokenDecoder> make_token_decoder(const nlohmann::json& config);

// Every `from` in `text` becomes `to`.
void replace_all(std::string& text, std::string_view from, std::string_view to);

}  // namespace signround
