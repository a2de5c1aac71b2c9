// AutoAWQ's "gemm" layout: 4 bits, zero points as they are. docs/formats/awq.md.
#include "signround/base/error.h"
#include "signround/formats/packed.h"

namespace signround::formats {
namespace {

class AwqFormat final : public CheckpointFormat {
 public:
  explicit AwqFormat(const QuantScheme& scheme) : scheme_(scheme) {}

  std::string_view name() const override { return "awq"; }
  Packing packing() const override { return Packing::kAwq; }

  std::string problems(const QuantScheme& scheme, int64_t out, int64_t in) const override {
    std::vector<std::string> problems = packing_problems(scheme, out, in);
    if (scheme.bits != 4) problems.push_back(std::to_string(scheme.bits) + " bits: AWQ has 4");
    if (scheme.group_size > 0 && in % scheme.group_size != 0) {
      problems.push_back("in " + std::to_string(in) + " is not a multiple of the group size " +
                         std::to_string(scheme.group_size));
    }
    if (scheme.group_size != scheme_.group_size) {
      problems.push_back("group size " + std::to_string(scheme.group_size) +
                         ": an AWQ checkpoint has one, here " + std::to_string(scheme_.group_size));
    }
    return joined(problems);
  }

  std::vector<TensorInfo> tensors(const FormatLayer& layer) const override {
    return awq_tensors(layer);
  }

  std::vector<PackedTensor> pack(const FormatLayer& layer,
                                 const QuantizedLinear& linear) const override {
    return awq_pack("awq", layer, linear);
  }

  nlohmann::ordered_json quantization_config(const FormatModel& model) const override {
    nlohmann::ordered_json left = nlohmann::ordered_json::array();
    for (const FormatLayer& layer : model.layers) {
      if (layer.scheme.bits >= 16) left.push_back(layer.name);
      require(layer.scheme.bits >= 16 || layer.in_blocks, "awq", layer.name,
              " is outside the blocks: AWQ's config cannot say that such a layer is quantized");
    }
    nlohmann::ordered_json config;
    config["bits"] = model.scheme.bits;
    config["group_size"] = model.scheme.group_size;
    config["modules_to_not_convert"] = left.empty() ? nlohmann::ordered_json() : left;
    config["provider"] = "signround";
    config["quant_method"] = "awq";
    config["version"] = "gemm";
    // Zero points are stored for symmetric layers too (as 8), so every reader may be told to use
    // them.
    config["zero_point"] = true;
    add_tuning(model.tuning, config);
    return config;
  }

  std::vector<ExtraFile> extra_files(const nlohmann::ordered_json&) const override { return {}; }

 private:
  QuantScheme scheme_;
};

}  // namespace

std::unique_ptr<CheckpointFormat> make_awq(const QuantScheme& scheme) {
  return std::make_unique<AwqFormat>(scheme);
}

}  // namespace signround::formats
