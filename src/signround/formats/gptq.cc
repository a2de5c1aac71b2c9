// GPTQ as AutoGPTQ, GPTQModel, vLLM and transformers read it; v1 stores zero - 1, v2 the zero
// point. docs/formats/gptq.md.
#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>

#include "signround/base/error.h"
#include "signround/base/version.h"
#include "signround/formats/packed.h"

namespace signround::formats {
namespace {

// Engines join these layers at load time and look rules up under the joined name.
struct Fusion {
  std::string_view joined;
  std::array<std::string_view, 3> parts;
};
constexpr Fusion kFusions[] = {{"qkv_proj", {"q_proj", "k_proj", "v_proj"}},
                               {"gate_up_proj", {"gate_proj", "up_proj", ""}}};

using LayersByName = std::unordered_map<std::string, const FormatLayer*>;

class GptqFormat final : public CheckpointFormat {
 public:
  GptqFormat(std::string_view name, bool v2) : name_(name), v2_(v2) {}

  std::string_view name() const override { return name_; }
  Packing packing() const override { return v2_ ? Packing::kGptqV2 : Packing::kGptqV1; }

  std::string note() const override {
    if (name_ != "gptq" || !v2_) return "";
    return "checkpoint_format gptq_v2, as some layers are asymmetric and GPTQModel refuses such v1 "
           "checkpoints";
  }

  std::string problems(const QuantScheme& scheme, int64_t out, int64_t in) const override {
    return joined(packing_problems(scheme, out, in));
  }

  std::vector<TensorInfo> tensors(const FormatLayer& layer) const override {
    return gptq_tensors(layer, layout());
  }

  int64_t prepare(QuantizedLinear& linear) const override {
    return v2_ ? 0 : flip_zero_points_of_zero(linear);
  }

  std::vector<PackedTensor> pack(const FormatLayer& layer,
                                 const QuantizedLinear& linear) const override {
    return gptq_pack("gptq", layer, linear, layout());
  }

  nlohmann::ordered_json quantization_config(const FormatModel& model) const override {
    bool lm_head = false, exclusions = false;
    std::vector<std::string> quantized;
    for (const FormatLayer& layer : model.layers) {
      const bool left = layer.scheme.bits >= 16;
      if (!left) quantized.push_back(layer.name);
      lm_head = lm_head || (!left && !layer.in_blocks);
      exclusions = exclusions || (left && layer.in_blocks);
    }
    nlohmann::ordered_json config;
    config["bits"] = model.scheme.bits;
    config["checkpoint_format"] = v2_ ? "gptq_v2" : "gptq";
    config["damp_percent"] = 0.01;
    config["desc_act"] = false;
    if (auto rules = dynamic_rules(model); !rules.empty()) config["dynamic"] = std::move(rules);
    config["group_size"] = model.scheme.group_size;
    config["lm_head"] = lm_head;
    // Full names: vLLM tests them as substrings, optimum as suffixes and AutoRound as regular
    // expressions, and a name relative to the block would match the layer of every block.
    if (exclusions)
      config["modules_in_block_to_quantize"] = nlohmann::ordered_json::array({quantized});
    config["provider"] = "signround";
    config["quant_method"] = "gptq";
    config["signround_version"] = kVersion;
    config["sym"] = is_symmetric(model.scheme);
    config["true_sequential"] = false;
    add_tuning(model.tuning, config);
    return config;
  }

  std::vector<ExtraFile> extra_files(const nlohmann::ordered_json& config) const override {
    return {{"quantize_config.json", {}, json_text(config)}};
  }

 private:
  GptqLayout layout() const { return {!v2_, true}; }

  // First match wins, so the order is that of the layers. A rule begins with ".*", as engines put
  // prefixes in front of the names, and covers the joined name where all the parts of a fused layer
  // agree.
  static nlohmann::ordered_json dynamic_rules(const FormatModel& model) {
    nlohmann::ordered_json rules = nlohmann::ordered_json::object();
    LayersByName by_name;
    for (const FormatLayer& layer : model.layers) by_name[layer.name] = &layer;
    for (const FormatLayer& layer : model.layers) {
      const QuantScheme& scheme = layer.scheme;
      const bool left = scheme.bits >= 16;
      if (left ? !layer.in_blocks : same_fields(scheme, model.scheme)) continue;
      const std::string key = (left ? "-:.*" : "+:.*") + rule_name(layer, by_name) + "$";
      if (rules.contains(key)) continue;
      rules[key] = nlohmann::ordered_json::object();
      if (!left) {
        rules[key] = {{"bits", scheme.bits},
                      {"group_size", scheme.group_size},
                      {"sym", is_symmetric(scheme)}};
      }
    }
    return rules;
  }

  static bool same_fields(const QuantScheme& a, const QuantScheme& b) {
    if (a.bits >= 16 || b.bits >= 16) return a.bits >= 16 && b.bits >= 16;
    return a.bits == b.bits && a.group_size == b.group_size && is_symmetric(a) == is_symmetric(b);
  }

  static std::string rule_name(const FormatLayer& layer, const LayersByName& by_name) {
    const size_t dot = layer.name.rfind('.');
    if (dot == std::string::npos) return regex_of(layer.name);
    const std::string parent = layer.name.substr(0, dot + 1);
    const std::string_view last = std::string_view(layer.name).substr(dot + 1);
    for (const Fusion& fusion : kFusions) {
      if (std::find(fusion.parts.begin(), fusion.parts.end(), last) == fusion.parts.end()) continue;
      std::string alternatives;
      for (std::string_view part : fusion.parts) {
        if (part.empty()) continue;
        const std::string name = parent + std::string(part);
        const auto sibling = by_name.find(name);
        if (sibling == by_name.end() || !same_fields(sibling->second->scheme, layer.scheme))
          return regex_of(layer.name);
        alternatives += std::string(part) + "|";
      }
      return regex_of(parent) + "(" + alternatives + std::string(fusion.joined) + ")";
    }
    return regex_of(layer.name);
  }

  std::string name_;
  bool v2_;
};

}  // namespace

std::unique_ptr<CheckpointFormat> make_gptq(std::string_view name, const FormatModel& model) {
  return std::make_unique<GptqFormat>(
      name, name == "gptq_v2" || (name == "gptq" && !all_symmetric(model)));
}

}  // namespace signround::formats
