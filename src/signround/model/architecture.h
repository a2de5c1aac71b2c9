// Where architectures live: a family reads config.json and writes one block into a graph. Knows no
// quantization.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "signround/graph/graph.h"
#include "signround/io/checkpoint.h"

namespace signround {

// What the rest of the program needs to know of a model besides its checkpoint.
struct Architecture {
  std::string model_type;  // of config.json
  int64_t blocks = 0, hidden = 0, vocab = 0;
  int64_t max_position = 0;   // longest sequence that the rope angles are right for; 0: not known
  std::string block_prefix;   // "model.layers": block i's tensors begin with "model.layers.i."
  std::string embedding;      // tensor of (vocab, hidden)
  float embedding_scale = 1;  // Gemma multiplies embeddings
  bool tied = false;          // the head multiplies with the embedding
  std::function<Graph(int64_t)> block;  // records block i: (tokens, hidden) -> (tokens, hidden)
  std::string head_name;                // the head's linear layer, as LinearParam names it
  // Records final norm and a head of this name: (tokens, hidden) -> (tokens, vocab) logits.
  std::function<Graph(const std::string& head_name)> write_head;
  Graph head() const { return write_head(head_name); }
  // Linear layers that engines fuse into one; they must share scheme and exclusion. Names inside a
  // block.
  std::vector<std::vector<std::string>> fused;
};

// One entry per family; model_types as in config.json.
struct Family {
  std::string_view name;
  std::vector<std::string_view> model_types;
  Architecture (*read)(const nlohmann::json& config);
};
std::span<const Family> families();

// Error{kUnsupported} for an unknown model_type, naming it and those that work; Error{kCorruptFile}
// for a config that lacks or contradicts what its family needs.
Architecture read_architecture(const nlohmann::json& config);
// The same for a checkpoint: where embedding and head are tied, either tensor may be the one that
// the file holds.
Architecture read_architecture(const Checkpoint& checkpoint);

// The llama-like family: Llama 2 to 3.2, Mistral, Qwen2, Qwen2.5, Qwen3 and others that differ by
// switches.
Architecture read_llama(const nlohmann::json& config);

}  // namespace signround
