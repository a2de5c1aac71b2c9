#include "signround/model/architecture.h"

#include "signround/base/error.h"
#include "signround/model/config.h"

namespace signround {

std::span<const Family> families() {
  static const std::vector<Family> all = {
      {"llama", {"llama", "mistral", "qwen2", "qwen3"}, read_llama},
  };
  return all;
}

Architecture read_architecture(const nlohmann::json& config) {
  if (!config.is_object()) fail(ErrorKind::kCorruptFile, "config.json", "is no JSON object");
  // Far above any model, far below what would exhaust the memory before a tensor is looked at.
  for (const auto& [key, most] :
       {std::pair{"num_hidden_layers", 1 << 16}, {"head_dim", 1 << 16}, {"hidden_size", 1 << 24}})
    if (const int64_t value = config_int(config, key, 1, 1); value > most)
      fail(ErrorKind::kCorruptFile, "config.json", "'", key, "' is ", value, ", expected at most ",
           most);
  const std::string type = config_string(config, "model_type", "");
  std::string known;
  for (const Family& family : families()) {
    for (auto name : family.model_types) {
      if (name == type) return family.read(config);
      known += (known.empty() ? "" : ", ") + std::string(name);
    }
  }
  if (type.empty())
    fail(ErrorKind::kCorruptFile, "config.json", "'model_type' is missing; known are ", known);
  fail(ErrorKind::kUnsupported, "config.json", "unknown architecture '", type,
       "'; this program knows ", known);
}

Architecture read_architecture(const Checkpoint& checkpoint) {
  Architecture a = read_architecture(checkpoint.config());
  if (a.tied && !checkpoint.find(a.embedding) && checkpoint.find("lm_head.weight")) {
    a.embedding = "lm_head.weight";
    a.head_name = "lm_head";
  }
  return a;
}

}  // namespace signround
