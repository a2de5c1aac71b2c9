// What a checkpoint's "quantization_config" says of each of its layers, for the methods whose
// tensors decode.h reads.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/formats/format.h"
#include "signround/quant/scheme.h"

namespace signround {

class QuantizationConfig {
 public:
  // `source` is for messages. Error{kUnsupported} naming the method, packing, checkpoint format or
  // data type that is not known; Error{kCorruptFile} for a field that is missing or of the wrong
  // type.
  QuantizationConfig(const nlohmann::ordered_json& section, std::string source);
  ~QuantizationConfig();

  const nlohmann::ordered_json& section() const { return section_; }
  Packing packing() const { return packing_; }
  bool act_order() const { return act_order_; }          // the file must have g_idx
  const QuantScheme& scheme() const { return scheme_; }  // of layers without a rule of their own

  // Scheme of a layer; bits 16: the config says that it is not quantized. Rules: "extra_config" by
  // exact name (also with "model." added or removed), then by the first regular expression found
  // anywhere in the name; "dynamic" by the first that matches from the start of the name. A
  // symmetric layer is reported as kFullRange: files do not tell whether scales may be negative.
  QuantScheme scheme_of(std::string_view layer) const;

  // Patterns that are no regular expressions, and so match nothing.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  struct Rule;
  void read_extra_config();
  void read_dynamic();
  QuantScheme changed(const nlohmann::ordered_json& fields, const std::string& where) const;
  void add_rule(const std::string& pattern, bool anchored, QuantScheme scheme);

  nlohmann::ordered_json section_;
  std::string source_;
  Packing packing_ = Packing::kNone;
  bool act_order_ = false;
  QuantScheme scheme_;
  std::unordered_map<std::string, QuantScheme> exact_;
  std::vector<Rule> rules_;
  std::vector<std::string> notes_;
};

}  // namespace signround
