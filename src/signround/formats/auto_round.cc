// AutoRound's own format: the integers lie as in GPTQ or AWQ, and the config says per layer how.
// docs/formats/auto_round.md.
#include "signround/base/error.h"
#include "signround/base/version.h"
#include "signround/formats/packed.h"

namespace signround::formats {
namespace {

struct Variant {
  Packing packing;
  const char* packing_format;
};
constexpr Variant kSymmetric = {Packing::kGptqV1, "auto_round:auto_gptq"};
constexpr Variant kAwqVariant = {Packing::kAwq, "auto_round:auto_awq"};
constexpr Variant kPlain = {Packing::kGptqV2, "auto_round"};

// Readers know one packing per checkpoint, so all layers take part in the choice. AutoRound's
// readers of the v1 packing take symmetric layers only, which is why one asymmetric layer decides
// for all.
Variant choose_variant(const FormatModel& model) {
  if (all_symmetric(model)) return kSymmetric;
  bool awq = model.scheme.bits == 4 && !is_symmetric(model.scheme);
  for (const FormatLayer& layer : model.layers) {
    if (layer.scheme.bits >= 16 || !packing_problems(layer.scheme, layer.out, layer.in).empty())
      continue;
    awq = awq && layer.scheme.bits == 4 && !is_symmetric(layer.scheme) &&
          (layer.scheme.group_size <= 0 || layer.in % layer.scheme.group_size == 0);
  }
  return awq ? kAwqVariant : kPlain;
}

class AutoRoundFormat final : public CheckpointFormat {
 public:
  explicit AutoRoundFormat(Variant variant) : variant_(variant) {}

  std::string_view name() const override { return "auto_round"; }
  Packing packing() const override { return variant_.packing; }

  std::string note() const override {
    return "packing_format " + std::string(variant_.packing_format);
  }

  std::string problems(const QuantScheme& scheme, int64_t out, int64_t in) const override {
    return joined(packing_problems(scheme, out, in));
  }

  std::vector<TensorInfo> tensors(const FormatLayer& layer) const override {
    return variant_.packing == Packing::kAwq ? awq_tensors(layer) : gptq_tensors(layer, layout());
  }

  std::vector<PackedTensor> pack(const FormatLayer& layer,
                                 const QuantizedLinear& linear) const override {
    if (variant_.packing == Packing::kAwq) return awq_pack("auto_round", layer, linear);
    return gptq_pack("auto_round", layer, linear, layout());
  }

  nlohmann::ordered_json quantization_config(const FormatModel& model) const override {
    nlohmann::ordered_json config;
    config["bits"] = model.scheme.bits;
    std::string blocks;
    for (const std::string& prefix : model.block_prefixes)
      blocks += (blocks.empty() ? "" : ",") + prefix;
    if (!blocks.empty()) config["block_name_to_quantize"] = blocks;
    config["data_type"] = "int";
    if (auto extra = extra_config(model); !extra.empty()) config["extra_config"] = std::move(extra);
    config["group_size"] = model.scheme.group_size;
    config["packing_format"] = variant_.packing_format;
    config["provider"] = "signround";
    config["quant_method"] = "auto-round";
    config["signround_version"] = kVersion;
    config["sym"] = is_symmetric(model.scheme);
    add_tuning(model.tuning, config);
    return config;
  }

  std::vector<ExtraFile> extra_files(const nlohmann::ordered_json& config) const override {
    return {{"quantization_config.json", {}, json_text(config)}};
  }

 private:
  GptqLayout layout() const { return {variant_.packing == Packing::kGptqV1, false}; }

  // What differs from the global scheme; all of it for a layer outside the blocks, which has no
  // default.
  static nlohmann::ordered_json extra_config(const FormatModel& model) {
    nlohmann::ordered_json extra = nlohmann::ordered_json::object();
    for (const FormatLayer& layer : model.layers) {
      nlohmann::ordered_json fields;
      const QuantScheme& scheme = layer.scheme;
      if (scheme.bits >= 16) {
        if (!layer.in_blocks) continue;
        fields = {{"bits", 16}, {"data_type", "float"}};
      } else {
        const bool all = !layer.in_blocks;
        if (all || scheme.bits != model.scheme.bits) fields["bits"] = scheme.bits;
        if (all) fields["data_type"] = "int";
        if (all || scheme.group_size != model.scheme.group_size)
          fields["group_size"] = scheme.group_size;
        if (all || is_symmetric(scheme) != is_symmetric(model.scheme))
          fields["sym"] = is_symmetric(scheme);
      }
      if (!fields.empty()) extra[layer.name] = std::move(fields);
    }
    return extra;
  }

  Variant variant_;
};

}  // namespace

std::unique_ptr<CheckpointFormat> make_auto_round(const FormatModel& model) {
  return std::make_unique<AutoRoundFormat>(choose_variant(model));
}

}  // namespace signround::formats
