// The rounded weights in the dtype of the source: a normal checkpoint that every engine loads, as
// large as the original. What all other formats must compute equally.
#include <algorithm>
#include <cstring>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/formats/packed.h"

namespace signround::formats {
namespace {

// Sources of other dtypes (f8 with scales of their own) become BF16.
DType weight_dtype(DType source) {
  return source == DType::kF32 || source == DType::kF16 ? source : DType::kBF16;
}

void store(float v, DType dtype, std::byte* to) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(to, &v, 4);
      return;
    case DType::kF16: {
      const F16 h = to_f16(v);
      std::memcpy(to, &h, 2);
      return;
    }
    default: {
      const BF16 h = to_bf16(v);
      std::memcpy(to, &h, 2);
      return;
    }
  }
}

class FakeFormat final : public CheckpointFormat {
 public:
  std::string_view name() const override { return "fake"; }
  Packing packing() const override { return Packing::kNone; }

  std::string problems(const QuantScheme& scheme, int64_t, int64_t) const override {
    if (scheme.bits >= 1 && scheme.bits <= 8) return "";
    return std::to_string(scheme.bits) + " bits: codes have 1 to 8";
  }

  std::vector<TensorInfo> tensors(const FormatLayer& layer) const override {
    return {{layer.name + ".weight", weight_dtype(layer.dtype), {layer.out, layer.in}}};
  }

  std::vector<PackedTensor> pack(const FormatLayer& layer,
                                 const QuantizedLinear& linear) const override {
    check_linear("fake", layer, linear);
    PackedTensor tensor{tensors(layer)[0], {}};
    tensor.bytes.resize(static_cast<size_t>(tensor.info.nbytes()));
    const DType dtype = tensor.info.dtype;
    const int64_t groups = linear.groups(), group = linear.scheme.group(linear.in),
                  size = size_of(dtype);
    parallel_for(linear.out, (1 << 16) / std::max<int64_t>(linear.in, 1) + 1,
                 [&](int64_t begin, int64_t end) {
                   for (int64_t o = begin; o < end; ++o) {
                     for (int64_t i = 0; i < linear.in; ++i) {
                       const int64_t k = o * groups + i / group;
                       const int step = linear.codes[o * linear.in + i] - linear.zeros[k];
                       store(linear.scales[k] * static_cast<float>(step), dtype,
                             tensor.bytes.data() + (o * linear.in + i) * size);
                     }
                   }
                 });
    std::vector<PackedTensor> result;
    result.push_back(std::move(tensor));
    return result;
  }

  nlohmann::ordered_json quantization_config(const FormatModel&) const override { return nullptr; }
  std::vector<ExtraFile> extra_files(const nlohmann::ordered_json&) const override { return {}; }
};

}  // namespace

std::unique_ptr<CheckpointFormat> make_fake() { return std::make_unique<FakeFormat>(); }

}  // namespace signround::formats
