#include "signround/model/scaled_checkpoint.h"

#include "signround/base/error.h"
#include "signround/ops/convert.h"

namespace signround {
namespace {

constexpr const char* kWhere = "scaled checkpoint";

int64_t columns_of(const TensorInfo& tensor) {
  return tensor.shape.empty() || tensor.shape[0] == 0 ? 0 : tensor.numel() / tensor.shape[0];
}

}  // namespace

float scaled(float w, const TensorFactors& factors, int64_t row, int64_t column) {
  float v = w + factors.offset;
  if (!factors.rows.empty()) v *= factors.rows[static_cast<size_t>(row)];
  if (!factors.columns.empty()) v *= factors.columns[static_cast<size_t>(column)];
  return v - factors.offset;
}

ScaledCheckpoint::ScaledCheckpoint(const Checkpoint& base, CheckpointFactors factors)
    : ChangedCheckpoint(base), factors_(std::move(factors)) {
  for (const auto& [name, f] : factors_) {
    const TensorInfo& tensor = changeable(kWhere, name);
    const auto fits = [](const std::vector<float>& values, int64_t n) {
      return values.empty() || static_cast<int64_t>(values.size()) == n;
    };
    require(!tensor.shape.empty() && fits(f.rows, tensor.shape[0]) &&
                fits(f.columns, columns_of(tensor)),
            kWhere, name, " has shape ", shape_text(tensor.shape), ", its factors are for ",
            f.rows.size(), " rows and ", f.columns.size(), " columns");
  }
}

const TensorFactors* ScaledCheckpoint::factors_of(std::string_view name) const {
  const auto found = factors_.find(std::string(name));
  return found == factors_.end() ? nullptr : &found->second;
}

std::span<const std::byte> ScaledCheckpoint::bytes(std::string_view name,
                                                   std::vector<std::byte>& scratch) const {
  if (factors_of(name) == nullptr) return base_.bytes(name, scratch);
  const TensorInfo& tensor = at(name);
  const int64_t rows = tensor.shape[0], columns = columns_of(tensor);
  scratch.resize(static_cast<size_t>(tensor.nbytes()));
  std::vector<float> values(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; ++r) {
    read_f32(name, r, 1, values.data());
    convert(1, columns, {values.data(), DType::kF32, columns},
            {scratch.data() + r * columns * size_of(tensor.dtype), tensor.dtype, columns});
  }
  return scratch;
}

void ScaledCheckpoint::read_f32(std::string_view name, int64_t row, int64_t rows,
                                float* out) const {
  base_.read_f32(name, row, rows, out);
  const TensorFactors* factors = factors_of(name);
  if (factors == nullptr) return;
  const TensorInfo& tensor = at(name);
  const int64_t columns = columns_of(tensor);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) {
      float& v = out[r * columns + c];
      v = rounded_to(tensor.dtype, scaled(v, *factors, row + r, c));
    }
}

}  // namespace signround
