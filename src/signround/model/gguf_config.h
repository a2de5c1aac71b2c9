// The metadata of a GGUF file as Hugging Face's config.json and generation_config.json.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "signround/io/gguf.h"
#include "signround/tensor/dtype.h"

namespace signround {

// What the translation of tensors needs to know of the architecture.
struct GgufModel {
  nlohmann::json config;
  int64_t blocks = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool interleaved_rope = false;  // rows of q and k come in the order of llama.cpp's rotation
};

// Error{kUnsupported} for an architecture or a feature that cannot be expressed;
// Error{kCorruptFile} where keys are missing or contradict the tensors.
GgufModel read_gguf_model(const GgufFile& file, DType presented);

nlohmann::json generation_config_from_gguf(const GgufFile& file);

// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; nullopt for a name that is not
// known. `block` gets 3 (-1 outside the blocks).
std::optional<std::string> hugging_face_name(std::string_view gguf_name, int64_t& block);

}  // namespace signround
