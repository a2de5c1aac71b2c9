#include "signround/model/patched_checkpoint.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/ops/convert.h"

namespace signround {
namespace {

constexpr const char* kWhere = "patched checkpoint";

}  // namespace

void round_to_dtype(std::vector<float>& values, DType dtype) {
  for (float& v : values) v = rounded_to(dtype, v);
}

PatchedCheckpoint::PatchedCheckpoint(const Checkpoint& base, CheckpointVectors vectors)
    : ChangedCheckpoint(base), vectors_(std::move(vectors)) {
  for (auto& [name, values] : vectors_) {
    const TensorInfo& tensor = changeable(kWhere, name);
    require(tensor.shape == std::vector<int64_t>{static_cast<int64_t>(values.size())}, kWhere, name,
            " has shape ", shape_text(tensor.shape), ", its new values are ", values.size());
    round_to_dtype(values, tensor.dtype);
  }
}

const std::vector<float>* PatchedCheckpoint::values_of(std::string_view name) const {
  const auto found = vectors_.find(std::string(name));
  return found == vectors_.end() ? nullptr : &found->second;
}

std::span<const std::byte> PatchedCheckpoint::bytes(std::string_view name,
                                                    std::vector<std::byte>& scratch) const {
  const std::vector<float>* values = values_of(name);
  if (values == nullptr) return base_.bytes(name, scratch);
  const TensorInfo& tensor = at(name);
  const auto size = static_cast<int64_t>(values->size());
  scratch.resize(static_cast<size_t>(tensor.nbytes()));
  convert(1, size, {values->data(), DType::kF32, size}, {scratch.data(), tensor.dtype, size});
  return scratch;
}

void PatchedCheckpoint::read_f32(std::string_view name, int64_t row, int64_t rows,
                                 float* out) const {
  const std::vector<float>* values = values_of(name);
  if (values == nullptr) return base_.read_f32(name, row, rows, out);
  std::copy_n(values->begin() + row, rows, out);
}

}  // namespace signround
