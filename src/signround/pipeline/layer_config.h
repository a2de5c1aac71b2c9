// Schemes of single layers, in auto-round's notation: an object from names, parts of names or
// regular expressions to bits, the name of a scheme, or fields of one.
//   {"lm_head": 8, ".*down_proj": {"bits": 4, "group_size": 32}, "layers.0.": "W8A16"}
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/formats/name_pattern.h"
#include "signround/quant/scheme.h"

namespace signround {

class LayerConfig {
 public:
  LayerConfig() = default;
  // Fields that an entry does not name are those of `base`. Error{kInvalidArgument} naming the
  // entry for what is no scheme.
  LayerConfig(const std::string& json, const QuantScheme& base);

  // The scheme of this layer, or null. A whole name wins over parts and expressions, the longest of
  // those over shorter ones.
  const QuantScheme* find(const std::string& layer);
  bool names(const std::string& layer) const;  // an entry has this whole name
  // Keys that no find() has met.
  std::vector<std::string> unused() const;

 private:
  struct Entry {
    std::string key;
    QuantScheme scheme;
    NamePattern pattern;
    bool is_pattern = false, used = false;
    bool matches(const std::string& layer) const;
  };
  std::vector<Entry> entries_;  // longest key first
};

// The JSON text that `option` is or, as the path of a file, holds. "" stays "".
// Error{kInvalidArgument} if it is neither.
std::string layer_config_text(const std::string& option);

// What a scheme is in this notation.
nlohmann::ordered_json layer_config_entry(const QuantScheme& scheme);

}  // namespace signround
