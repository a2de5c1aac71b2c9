// bitsandbytes' NF4, as transformers saves it: docs/formats/bnb.md.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/formats/packed.h"
#include "signround/quant/nf4.h"

namespace signround::formats {
namespace {

template <class T>
PackedTensor tensor_of(TensorInfo info, std::span<const T> values) {
  const auto bytes = std::as_bytes(values);
  return {std::move(info), {bytes.begin(), bytes.end()}};
}

// What is no tensor, as Python's json.dumps writes it.
std::string quant_state(const FormatLayer& layer, float nested_offset) {
  std::string text = fmt::format(
      R"({{"quant_type": "nf4", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
      layer.scheme.group_size, torch_name_of(weight_dtype(layer.dtype)), layer.out, layer.in);
  if (layer.scheme.double_quant)
    text +=
        fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})",
                    kNf4NestedBlock, static_cast<double>(nested_offset));
  return text + "}";
}

constexpr uint8_t kZero = 7;  // the code of level 0
static_assert(kNf4Levels[kZero] == 0);

// The length must be known before the offset is: what it does not fill are blanks, which JSON
// allows. -1.2345678901234567e-38 is as long as an offset can be.
constexpr size_t kLongestOffset = 23;
size_t quant_state_size(const FormatLayer& layer) {
  return quant_state(layer, 0).size() + (layer.scheme.double_quant ? kLongestOffset : 0);
}

class BnbFormat final : public CheckpointFormat {
 public:
  std::string_view name() const override { return "bnb"; }
  Packing packing() const override { return Packing::kBnb; }

  std::string problems(const QuantScheme& scheme, int64_t, int64_t) const override {
    if (scheme.levels == Levels::kNf4) return signround::problems(scheme);
    return describe(scheme) + ": bnb holds NF4";
  }

  std::vector<TensorInfo> tensors(const FormatLayer& layer) const override {
    const std::string weight = layer.name + ".weight";
    const int64_t n = layer.out * layer.in, block = layer.scheme.group_size;
    const int64_t blocks = (n + block - 1) / block;
    const bool nested = layer.scheme.double_quant;
    std::vector<TensorInfo> tensors = {
        {weight, DType::kU8, {(n + 1) / 2, 1}},
        {weight + ".absmax", nested ? DType::kU8 : DType::kF32, {blocks}},
        {weight + ".quant_map", DType::kF32, {16}}};
    if (nested) {
      tensors.push_back({weight + ".nested_absmax",
                         DType::kF32,
                         {(blocks + kNf4NestedBlock - 1) / kNf4NestedBlock}});
      tensors.push_back({weight + ".nested_quant_map", DType::kF32, {256}});
    }
    tensors.push_back({weight + ".quant_state.bitsandbytes__nf4",
                       DType::kU8,
                       {static_cast<int64_t>(quant_state_size(layer))}});
    return tensors;
  }

  std::vector<PackedTensor> pack(const FormatLayer& layer, const QuantizedLinear&) const override {
    fail(ErrorKind::kInvalidArgument, "bnb", layer.name, " has integers, the format holds NF4");
  }

  std::vector<PackedTensor> pack_nf4(const FormatLayer& layer,
                                     const Nf4Linear& linear) const override {
    check_nf4("bnb", layer, linear);
    const std::vector<TensorInfo> infos = tensors(layer);
    std::vector<uint8_t> pairs(static_cast<size_t>(infos[0].nbytes()));
    const int64_t n = layer.out * layer.in;
    parallel_for(n / 2, 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k)
        pairs[k] = static_cast<uint8_t>(linear.codes[2 * k] << 4 | linear.codes[2 * k + 1]);
    });
    // Half a byte that is left over is 0.0.
    if (n % 2 != 0) pairs.back() = static_cast<uint8_t>(linear.codes.back() << 4 | kZero);
    std::vector<PackedTensor> packed = {tensor_of<uint8_t>(infos[0], pairs)};
    if (linear.nested)
      packed.push_back(tensor_of<uint8_t>(infos[1], linear.nested->codes));
    else
      packed.push_back(tensor_of<float>(infos[1], linear.magnitudes));
    packed.push_back(tensor_of<float>(infos[2], kNf4Levels));
    if (linear.nested) {
      packed.push_back(tensor_of<float>(infos[3], linear.nested->scales));
      packed.push_back(tensor_of<float>(infos[4], dynamic_map()));
    }
    std::string state = quant_state(layer, linear.nested ? linear.nested->offset : 0);
    require(state.size() <= quant_state_size(layer), "bnb", "internal: ", layer.name,
            "'s quant_state is longer than planned: ", state);
    state.resize(quant_state_size(layer), ' ');
    packed.push_back(tensor_of<char>(infos.back(), state));
    return packed;
  }

  // The fields of transformers' BitsAndBytesConfig that it saves itself.
  nlohmann::ordered_json quantization_config(const FormatModel& model) const override {
    nlohmann::ordered_json left = nlohmann::ordered_json::array();
    bool head = false;  // quantized
    for (const FormatLayer& layer : model.layers) {
      if (layer.scheme.bits >= 16) left.push_back(layer.name);
      head = head || (layer.scheme.bits < 16 && !layer.in_blocks);
    }
    // A list replaces transformers' rule, which leaves the head.
    if (!head) left.push_back("lm_head");
    const DType dtype =
        model.layers.empty() ? DType::kBF16 : weight_dtype(model.layers.front().dtype);
    return {{"_load_in_4bit", true},
            {"_load_in_8bit", false},
            {"bnb_4bit_compute_dtype", torch_name_of(dtype)},
            {"bnb_4bit_quant_storage", "uint8"},
            {"bnb_4bit_quant_type", "nf4"},
            {"bnb_4bit_use_double_quant", model.scheme.double_quant},
            {"llm_int8_enable_fp32_cpu_offload", false},
            {"llm_int8_has_fp16_weight", false},
            {"llm_int8_skip_modules", left},
            {"llm_int8_threshold", 6.0},
            {"load_in_4bit", true},
            {"load_in_8bit", false},
            {"quant_method", "bitsandbytes"}};
  }

  std::vector<ExtraFile> extra_files(const nlohmann::ordered_json&) const override { return {}; }
};

}  // namespace

std::unique_ptr<CheckpointFormat> make_bnb() { return std::make_unique<BnbFormat>(); }

}  // namespace signround::formats
