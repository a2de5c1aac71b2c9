// The rounded weights in the dtype of the source: a normal checkpoint that every engine loads, as
// large as the original. What all other formats must compute equally.
#include <algorithm>

#include "signround/base/parallel.h"
#include "signround/formats/packed.h"
#include "signround/io/convert.h"
#include "signround/quant/rtn.h"

namespace signround::formats {
namespace {

// `to` is aligned for the dtype: rows of a vector of bytes, whose start is aligned for every scalar
// type.
void store(const float* row, int64_t n, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) std::copy_n(row, n, reinterpret_cast<float*>(to));
  if (dtype == DType::kF16) convert_to_f16(row, n, reinterpret_cast<F16*>(to));
  if (dtype == DType::kBF16) convert_to_bf16(row, n, reinterpret_cast<BF16*>(to));
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
    return dequantized(layer, linear);
  }

  std::vector<PackedTensor> pack_nf4(const FormatLayer& layer,
                                     const Nf4Linear& linear) const override {
    check_nf4("fake", layer, linear);
    return dequantized(layer, linear);
  }

  nlohmann::ordered_json quantization_config(const FormatModel&) const override { return nullptr; }
  std::vector<ExtraFile> extra_files(const nlohmann::ordered_json&) const override { return {}; }

 private:
  template <class Linear>
  std::vector<PackedTensor> dequantized(const FormatLayer& layer, const Linear& linear) const {
    PackedTensor tensor{tensors(layer)[0], {}};
    tensor.bytes.resize(static_cast<size_t>(tensor.info.nbytes()));
    const int64_t in = linear.in, row_bytes = in * size_of(tensor.info.dtype);
    parallel_for(linear.out, (1 << 16) / std::max<int64_t>(in, 1) + 1,
                 [&](int64_t begin, int64_t end) {
                   std::vector<float> row(static_cast<size_t>(in));
                   for (int64_t o = begin; o < end; ++o) {
                     dequantize_row(linear, o, row.data());
                     store(row.data(), in, tensor.info.dtype, tensor.bytes.data() + o * row_bytes);
                   }
                 });
    std::vector<PackedTensor> result;
    result.push_back(std::move(tensor));
    return result;
  }
};

}  // namespace

std::unique_ptr<CheckpointFormat> make_fake() { return std::make_unique<FakeFormat>(); }

}  // namespace signround::formats
