// The llama-like family (Touvron et al., arXiv 2302.13971): pre-norm blocks of rotary attention and
// a gated MLP. The models differ by switches: biases (Qwen2), norms on q and k (Qwen3), sliding
// windows (Mistral), rope scalings.
#include <cmath>

#include "signround/base/error.h"
#include "signround/model/architecture.h"
#include "signround/model/config.h"

namespace signround {
namespace {

using nlohmann::json;

struct LlamaConfig {
  int64_t hidden, intermediate, blocks, heads, kv_heads, head_dim, vocab, max_position;
  float norm_eps;
  bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
  Activation activation;
  RopeSpec rope;
  std::vector<int64_t> window;  // of each block; 0: full attention
};

Activation activation_of(const std::string& name) {
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_new") return Activation::kGeluTanh;
  if (name == "gelu") return Activation::kGeluErf;
  fail(ErrorKind::kUnsupported, "config.json", "hidden_act '", name,
       "'; known are silu, gelu, gelu_pytorch_tanh");
}

// Which blocks slide: layer_types where the config lists them, else Qwen2's max_window_layers, else
// all (Mistral).
std::vector<int64_t> windows_of(const json& config, const std::string& type, int64_t blocks) {
  const bool wanted = type == "mistral" || config_bool(config, "use_sliding_window", false);
  const int64_t window = wanted ? config_int(config, "sliding_window", 1, 0) : 0;
  std::vector<int64_t> windows(static_cast<size_t>(blocks), window);
  const auto types = config.find("layer_types");
  if (types != config.end() && types->is_array()) {
    if (static_cast<int64_t>(types->size()) != blocks)
      fail(ErrorKind::kCorruptFile, "config.json", "layer_types has ", types->size(),
           " entries for ", blocks, " blocks");
    for (size_t i = 0; i < windows.size(); ++i)
      if ((*types)[i] != "sliding_attention") windows[i] = 0;
  } else if (type != "mistral") {
    const int64_t first = config_int(config, "max_window_layers", 0, blocks);
    for (int64_t i = 0; i < std::min(first, blocks); ++i) windows[static_cast<size_t>(i)] = 0;
  }
  return windows;
}

LlamaConfig read_config(const json& config) {
  LlamaConfig c{};
  const std::string type = config_string(config, "model_type", "");
  c.hidden = config_int(config, "hidden_size", 1);
  c.intermediate = config_int(config, "intermediate_size", 1);
  c.blocks = config_int(config, "num_hidden_layers", 1);
  c.heads = config_int(config, "num_attention_heads", 1);
  c.kv_heads = config_int(config, "num_key_value_heads", 1, c.heads);
  c.head_dim = config_int(config, "head_dim", 2, c.hidden / c.heads);
  c.vocab = config_int(config, "vocab_size", 1);
  c.max_position = config_int(config, "max_position_embeddings", 1, 2048);
  c.norm_eps = static_cast<float>(config_number(config, "rms_norm_eps", 1e-6));
  c.tied = config_bool(config, "tie_word_embeddings", false);
  const bool bias = config_bool(config, "attention_bias", false);
  c.qkv_bias = type == "qwen2" || bias;
  c.o_bias = type != "qwen2" && bias;
  c.mlp_bias = config_bool(config, "mlp_bias", false);
  c.qk_norm = type == "qwen3";
  c.activation = activation_of(config_string(config, "hidden_act", "silu"));
  c.rope = read_rope(config, c.head_dim, c.max_position);
  c.window = windows_of(config, type, c.blocks);
  if (c.heads % c.kv_heads != 0 || c.head_dim % 2 != 0)
    fail(ErrorKind::kCorruptFile, "config.json", "heads ", c.heads, ", key heads ", c.kv_heads,
         ", head_dim ", c.head_dim, ": key heads must divide heads and head_dim must be even");
  return c;
}

Graph write_block(const LlamaConfig& c, int64_t index) {
  Graph g;
  const auto name = [&](const std::string& part) {
    return "model.layers." + std::to_string(index) + "." + part;
  };
  const auto linear = [&](const char* part, int64_t out, int64_t in, bool bias) {
    return LinearParam{name(part), out, in, bias};
  };
  const auto norm = [&](const char* part, int64_t size) {
    return VectorParam{name(part) + std::string(".weight"), size};
  };
  const int64_t q_cols = c.heads * c.head_dim, kv_cols = c.kv_heads * c.head_dim;

  const Value x = g.input(c.hidden);
  const Value h = g.rms_norm(x, norm("input_layernorm", c.hidden), c.norm_eps);
  const auto qkv = g.linears(h, {linear("self_attn.q_proj", q_cols, c.hidden, c.qkv_bias),
                                 linear("self_attn.k_proj", kv_cols, c.hidden, c.qkv_bias),
                                 linear("self_attn.v_proj", kv_cols, c.hidden, c.qkv_bias)});
  Value q = qkv[0], k = qkv[1];
  if (c.qk_norm) {
    q = g.rms_norm(q, norm("self_attn.q_norm", c.head_dim), c.norm_eps, c.heads);
    k = g.rms_norm(k, norm("self_attn.k_norm", c.head_dim), c.norm_eps, c.kv_heads);
  }
  q = g.rope(q, c.heads, c.head_dim, c.rope);
  k = g.rope(k, c.kv_heads, c.head_dim, c.rope);
  const AttentionSpec attention{.heads = c.heads,
                                .kv_heads = c.kv_heads,
                                .head_dim = c.head_dim,
                                .scale = 1 / std::sqrt(static_cast<float>(c.head_dim)),
                                .window = c.window[static_cast<size_t>(index)]};
  const Value a = g.attention(q, k, qkv[2], attention);
  const Value x1 = g.add(x, g.linear(a, linear("self_attn.o_proj", c.hidden, q_cols, c.o_bias)));

  const Value h1 = g.rms_norm(x1, norm("post_attention_layernorm", c.hidden), c.norm_eps);
  const auto gate_up = g.linears(h1, {linear("mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias),
                                      linear("mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias)});
  const Value m = g.gated(c.activation, gate_up[0], gate_up[1]);
  g.output(g.add(x1, g.linear(m, linear("mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias))));
  return g;
}

Graph write_head(const LlamaConfig& c, const std::string& head_name) {
  Graph g;
  const Value h = g.rms_norm(g.input(c.hidden), {"model.norm.weight", c.hidden}, c.norm_eps);
  g.output(g.linear(h, {head_name, c.vocab, c.hidden, false}));
  return g;
}

}  // namespace

Architecture read_llama(const json& config) {
  const LlamaConfig c = read_config(config);
  Architecture a;
  a.model_type = config_string(config, "model_type", "");
  a.blocks = c.blocks;
  a.hidden = c.hidden;
  a.vocab = c.vocab;
  a.max_position = longest_sequence(config, c.max_position);
  a.block_prefix = "model.layers";
  a.embedding = "model.embed_tokens.weight";
  a.tied = c.tied;
  a.head_name = c.tied ? "model.embed_tokens" : "lm_head";
  a.block = [c](int64_t index) { return write_block(c, index); };
  a.write_head = [c](const std::string& head_name) { return write_head(c, head_name); };
  a.fused = {{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
             {"mlp.gate_proj", "mlp.up_proj"}};
  return a;
}

}  // namespace signround
