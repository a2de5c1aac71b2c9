#include "signround/model/gguf_config.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "signround/base/error.h"

namespace signround {
namespace {

constexpr const char* kWhere = "gguf";
constexpr const char* kRopeFactors = "rope_freqs.weight";

struct Family {
  std::string_view architecture, model_type, class_name;
  bool interleaved_rope;
  bool qkv_bias;  // what Hugging Face's model of this type always has
};
constexpr std::array kFamilies = {Family{"llama", "llama", "LlamaForCausalLM", true, false},
                                  Family{"qwen2", "qwen2", "Qwen2ForCausalLM", false, true},
                                  Family{"qwen3", "qwen3", "Qwen3ForCausalLM", false, false}};

// Keys of variants that are stored under the same architectures and that the families do not
// compute. 0 or 1, where it stands here, is the value that changes nothing.
struct Refused {
  std::string_view key;
  double harmless;
};
constexpr std::array kRefused = {Refused{"expert_count", 0},
                                 Refused{"attention.scale", 0},
                                 Refused{"logit_scale", 1},
                                 Refused{"residual_scale", 1},
                                 Refused{"embedding_scale", 1},
                                 Refused{"attention.clamp_kqv", 0},
                                 Refused{"attention.temperature_scale", 0}};

class Reader {
 public:
  Reader(const GgufFile& file, std::string_view architecture)
      : file_(file), prefix_(std::string(architecture) + ".") {}

  std::string key(std::string_view name) const { return prefix_ + std::string(name); }
  std::optional<int64_t> integer(std::string_view name) const { return file_.integer(key(name)); }
  std::optional<double> number(std::string_view name) const { return file_.number(key(name)); }

  int64_t positive(std::string_view name, std::optional<int64_t> fallback = std::nullopt) const {
    const GgufValue* value = file_.find(key(name));
    if (value && value->is_array)
      fail(ErrorKind::kUnsupported, kWhere, file_.path().string(), ": ", key(name),
           " differs from block to block, which is not supported");
    const auto found = value ? integer(name) : fallback;
    if (!found)
      fail(ErrorKind::kCorruptFile, kWhere, file_.path().string(), " lacks the key ", key(name));
    if (*found < 1 || *found > INT32_MAX)
      fail(ErrorKind::kCorruptFile, kWhere, file_.path().string(), ": ", key(name), " is ", *found,
           ", expected a positive 32-bit number");
    return *found;
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

// 1e-05 instead of 9.999999747378752e-06: the shortest decimal that is the same f32.
double shortest(double value) {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), narrow).ptr;
  double parsed = value;
  std::from_chars(text, end, parsed);
  return parsed;
}

const Family& family_of(const GgufFile& file) {
  const auto architecture = file.text("general.architecture");
  if (!architecture)
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(),
         " lacks the key general.architecture");
  for (const Family& family : kFamilies)
    if (family.architecture == *architecture) return family;
  fail(ErrorKind::kUnsupported, kWhere, file.path().string(), " holds the architecture ",
       excerpt(*architecture, 64),
       "; of GGUF files llama (with Mistral), qwen2 and qwen3 are read. For other models give the "
       "Hugging Face folder "
       "that the file was made from");
}

// The factor by which Llama 3's scaling divides the frequency of each pair of dimensions: formula
// of Llama 3.1's release, also `_compute_llama3_parameters` in transformers.
std::vector<double> llama3_divisors(double theta, int64_t dims, double factor, double low,
                                    double high, double original) {
  std::vector<double> divisors;
  for (int64_t i = 0; i < dims; i += 2) {
    const double frequency = std::pow(theta, -static_cast<double>(i) / static_cast<double>(dims));
    const double wavelength = 2 * std::numbers::pi / frequency;
    const double smooth = (original / wavelength - low) / (high - low);
    divisors.push_back(wavelength < original / high  ? 1
                       : wavelength > original / low ? factor
                                                     : 1 / ((1 - smooth) / factor + smooth));
  }
  return divisors;
}

// Factors are stored as f32 and were computed in f32: theta^(-i/d) has a relative error of some
// 1e-6 there (a product of log2(theta) * i/d < 20 with 2^-24 in the exponent), which `smooth`
// carries over at most tenfold.
bool matches(const std::vector<float>& factors, const std::vector<double>& wanted) {
  if (factors.size() != wanted.size()) return false;
  for (size_t i = 0; i < wanted.size(); ++i)
    if (!(std::abs(factors[i] - wanted[i]) <= 1e-5 * wanted[i])) return false;
  return true;
}

// rope_freqs.weight: Llama 3's scaling where it is that; else longrope, whose factors say the same
// for every length.
nlohmann::json scaling_of_factors(const GgufFile& file, const GgufTensor& tensor, double theta,
                                  int64_t dims, int64_t context) {
  if (tensor.type != GgmlType::kF32 || tensor.bytes != dims / 2 * 4)
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": ", kRopeFactors, " has ",
         tensor.bytes, " bytes of ", info_of(tensor.type).name, ", expected ", dims / 2,
         " values of F32");
  std::vector<float> factors(static_cast<size_t>(dims / 2));
  std::memcpy(factors.data(), file.bytes(tensor).data(), static_cast<size_t>(tensor.bytes));
  for (double factor : {8.0, 32.0})
    if (matches(factors, llama3_divisors(theta, dims, factor, 1, 4, 8192)))
      return {{"rope_type", "llama3"},
              {"factor", factor},
              {"low_freq_factor", 1.0},
              {"high_freq_factor", 4.0},
              {"original_max_position_embeddings", 8192}};
  nlohmann::json list = nlohmann::json::array();
  for (float f : factors) {
    if (!(f > 0) || std::isinf(f))
      fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": ", kRopeFactors, " holds ", f,
           ", expected positive numbers");
    list.push_back(shortest(f));
  }
  return {{"rope_type", "longrope"}, {"factor", 1.0},
          {"attention_factor", 1.0}, {"short_factor", list},
          {"long_factor", list},     {"original_max_position_embeddings", context}};
}

// nullopt: no scaling.
std::optional<nlohmann::json> scaling_of_keys(const GgufFile& file, const Reader& keys,
                                              int64_t context) {
  const auto type = file.text(keys.key("rope.scaling.type"));
  const double factor =
      keys.number("rope.scaling.factor").value_or(keys.number("rope.scale_linear").value_or(1));
  if (!(factor > 0) || std::isinf(factor))
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), ": ",
         keys.key("rope.scaling.factor"), " is ", factor);
  if (type == "none" || (!type && factor == 1)) return std::nullopt;
  if (!type || type == "linear")
    return nlohmann::json{{"rope_type", "linear"}, {"factor", shortest(factor)}};
  if (type != "yarn")
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": rope scaling ",
         excerpt(*type, 32), "; none, linear and yarn are read");
  const int64_t original =
      keys.positive("rope.scaling.original_context_length",
                    std::max<int64_t>(1, std::llround(static_cast<double>(context) / factor)));
  nlohmann::json yarn = {{"rope_type", "yarn"},
                         {"factor", shortest(factor)},
                         {"original_max_position_embeddings", original}};
  if (const auto fast = keys.number("rope.scaling.yarn_beta_fast"))
    yarn["beta_fast"] = shortest(*fast);
  if (const auto slow = keys.number("rope.scaling.yarn_beta_slow"))
    yarn["beta_slow"] = shortest(*slow);
  // llama.cpp multiplies attn_factor by yarn's own 1 + 0.1 ln(factor); Hugging Face's key is the
  // product.
  if (const auto attention = keys.number("rope.scaling.attn_factor"); attention && *attention != 1)
    yarn["attention_factor"] = *attention * (1 + 0.1 * std::log(std::max(factor, 1.0)));
  return yarn;
}

void add_rope(const GgufFile& file, const Reader& keys, GgufModel& model) {
  const int64_t rotated = keys.positive("rope.dimension_count", model.head_dim);
  if (rotated != model.head_dim || rotated % 2 != 0)
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": ",
         keys.key("rope.dimension_count"), " is ", rotated, ", of heads with ", model.head_dim,
         " dimensions; only heads that rotate as a whole are read");
  const double theta = shortest(keys.number("rope.freq_base").value_or(10000));
  const int64_t context = model.config["max_position_embeddings"];
  model.config["rope_theta"] = theta;
  const GgufTensor* factors = file.find_tensor(kRopeFactors);
  auto scaling = scaling_of_keys(file, keys, context);
  if (factors && scaling)
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), " has ", kRopeFactors,
         " as well as ", keys.key("rope.scaling"),
         ": only one kind of rope scaling can be expressed");
  if (factors) scaling = scaling_of_factors(file, *factors, theta, rotated, context);
  model.config["rope_scaling"] = scaling ? *scaling : nlohmann::json();
}

void add_token_ids(const GgufFile& file, nlohmann::json& json) {
  constexpr std::array<std::pair<const char*, const char*>, 3> kIds = {
      {{"bos_token_id", "tokenizer.ggml.bos_token_id"},
       {"eos_token_id", "tokenizer.ggml.eos_token_id"},
       {"pad_token_id", "tokenizer.ggml.padding_token_id"}}};
  for (const auto& [name, key] : kIds)
    if (const auto id = file.integer(key)) json[name] = *id;
}

int64_t count_tensors(const GgufFile& file, std::string_view ending) {
  int64_t n = 0;
  for (const GgufTensor& t : file.tensors())
    n += t.name.starts_with("blk.") && t.name.ends_with(ending);
  return n;
}

// Hugging Face's models have a bias on all layers of a kind in all blocks, or on none.
void add_biases(const GgufFile& file, const Family& family, GgufModel& model) {
  const auto all_or_none = [&](std::initializer_list<std::string_view> endings, const char* what) {
    int64_t sum = 0;
    for (std::string_view ending : endings) sum += count_tensors(file, ending);
    if (sum != 0 && sum != static_cast<int64_t>(endings.size()) * model.blocks)
      fail(ErrorKind::kUnsupported, kWhere, file.path().string(),
           ": only some of the layers have a bias (", what, ": ", sum, "), which ",
           family.class_name, " cannot express");
    return sum != 0;
  };
  const bool mlp = all_or_none({"ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"}, "feed-forward");
  if (family.qkv_bias) {
    const bool qkv = all_or_none({"attn_q.bias", "attn_k.bias", "attn_v.bias"}, "q, k and v");
    if (!qkv || mlp || count_tensors(file, "attn_output.bias") != 0)
      fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": ", family.class_name,
           " has biases on q, k and v only");
    return;
  }
  model.config["attention_bias"] =
      all_or_none({"attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"}, "attention");
  if (family.model_type == "llama")
    model.config["mlp_bias"] = mlp;
  else if (mlp)
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": ", family.class_name,
         " has no feed-forward bias");
}

int64_t vocabulary_size(const GgufFile& file, int64_t hidden) {
  const GgufTensor* embedding = file.find_tensor("token_embd.weight");
  if (!embedding)
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(),
         " has no token_embd.weight: is it a model?");
  if (embedding->shape.size() != 2 || embedding->columns() != hidden)
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(),
         ": token_embd.weight's rows do not fit the embedding_length ", hidden);
  const GgufValue* tokens = file.find("tokenizer.ggml.tokens");
  if (tokens && tokens->count > embedding->rows())
    fail(ErrorKind::kCorruptFile, kWhere, file.path().string(), " has ", tokens->count,
         " tokens, but token_embd.weight has only ", embedding->rows(), " rows");
  return embedding->rows();
}

}  // namespace

GgufModel read_gguf_model(const GgufFile& file, DType presented) {
  const Family& family = family_of(file);
  const Reader keys(file, family.architecture);
  for (const auto& [name, harmless] : kRefused)
    if (const auto value = keys.number(name); value && *value != harmless)
      fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": ", keys.key(name), " is ",
           *value, ", which ", family.class_name,
           " does not have: it is a variant that this program reads from a Hugging Face folder "
           "only");
  GgufModel model;
  model.interleaved_rope = family.interleaved_rope;
  model.blocks = keys.positive("block_count");
  model.heads = keys.positive("attention.head_count");
  model.kv_heads = keys.positive("attention.head_count_kv", model.heads);
  const int64_t hidden = keys.positive("embedding_length");
  model.head_dim = keys.positive("attention.key_length", hidden / model.heads);
  if (keys.positive("attention.value_length", model.head_dim) != model.head_dim ||
      model.heads % model.kv_heads != 0)
    fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": ", model.heads,
         " heads with keys of ", model.head_dim,
         " values and other values' lengths, or not a multiple of ", model.kv_heads,
         " key-value heads");
  nlohmann::json& config = model.config;
  config = {
      {"architectures", {family.class_name}},
      {"model_type", family.model_type},
      {"hidden_size", hidden},
      {"intermediate_size", keys.positive("feed_forward_length")},
      {"num_hidden_layers", model.blocks},
      {"num_attention_heads", model.heads},
      {"num_key_value_heads", model.kv_heads},
      {"head_dim", model.head_dim},
      {"hidden_act", "silu"},
      {"rms_norm_eps", shortest(keys.number("attention.layer_norm_rms_epsilon").value_or(1e-5))},
      {"max_position_embeddings", keys.positive("context_length")},
      {"vocab_size", vocabulary_size(file, hidden)},
      {"tie_word_embeddings", file.find_tensor("output.weight") == nullptr},
      {"torch_dtype", torch_name_of(presented)},
      {"use_cache", true},
      {"attention_dropout", 0.0},
      {"initializer_range", 0.02}};
  add_biases(file, family, model);
  add_rope(file, keys, model);
  add_token_ids(file, config);
  if (const auto window = keys.integer("attention.sliding_window"); window && *window > 0) {
    if (family.model_type != "llama")
      fail(ErrorKind::kUnsupported, kWhere, file.path().string(), ": ", family.class_name,
           " with a sliding window is not read from GGUF");
    config["model_type"] = "mistral";  // a llama with a window, and without biases
    config["architectures"] = {"MistralForCausalLM"};
    config["sliding_window"] = *window;
  }
  return model;
}

nlohmann::json generation_config_from_gguf(const GgufFile& file) {
  nlohmann::json json = {{"_from_model_config", true}};
  add_token_ids(file, json);
  nlohmann::json ends = nlohmann::json::array();
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"})
    if (const auto id = file.integer(key);
        id && std::find(ends.begin(), ends.end(), *id) == ends.end())
      ends.push_back(*id);
  if (ends.size() > 1) json["eos_token_id"] = ends;
  return json;
}

std::optional<std::string> hugging_face_name(std::string_view name, int64_t& block) {
  using Pair = std::pair<std::string_view, std::string_view>;
  constexpr std::array<Pair, 3> kOutside = {Pair{"token_embd.weight", "model.embed_tokens.weight"},
                                            Pair{"output_norm.weight", "model.norm.weight"},
                                            Pair{"output.weight", "lm_head.weight"}};
  constexpr std::array<Pair, 11> kInside = {
      Pair{"attn_norm", "input_layernorm"},    Pair{"attn_q", "self_attn.q_proj"},
      Pair{"attn_k", "self_attn.k_proj"},      Pair{"attn_v", "self_attn.v_proj"},
      Pair{"attn_output", "self_attn.o_proj"}, Pair{"attn_q_norm", "self_attn.q_norm"},
      Pair{"attn_k_norm", "self_attn.k_norm"}, Pair{"ffn_norm", "post_attention_layernorm"},
      Pair{"ffn_gate", "mlp.gate_proj"},       Pair{"ffn_up", "mlp.up_proj"},
      Pair{"ffn_down", "mlp.down_proj"}};
  block = -1;
  for (const auto& [from, to] : kOutside)
    if (name == from) return std::string(to);
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), block);
  const std::string number(name.data(), end);
  if (error != std::errc() || number != std::to_string(block) || end == name.data() + name.size() ||
      *end != '.')
    return std::nullopt;
  name.remove_prefix(number.size() + 1);
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view layer = name.substr(0, dot), kind = name.substr(dot);
  if (kind != ".weight" && (kind != ".bias" || layer.ends_with("_norm"))) return std::nullopt;
  for (const auto& [from, to] : kInside)
    if (layer == from) return "model.layers." + number + "." + std::string(to) + std::string(kind);
  return std::nullopt;
}

}  // namespace signround
