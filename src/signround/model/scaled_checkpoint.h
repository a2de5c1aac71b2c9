// A checkpoint whose weights are multiplied on the way out: what a preparation folds into a model
// (quant/awq.h) without writing it down.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "signround/model/changed_checkpoint.h"

namespace signround {

// Element (r, c) of the tensor, seen as (shape[0], product of the rest), becomes
// (w + offset) * rows[r] * columns[c] - offset. Empty: all 1.
struct TensorFactors {
  std::vector<float> rows, columns;
  float offset = 0;  // what the model adds to a norm's weight
  bool operator==(const TensorFactors&) const = default;
};
using CheckpointFactors = std::map<std::string, TensorFactors>;  // by the tensor's name

// Of w, in f32, not rounded to the tensor's type.
float scaled(float w, const TensorFactors& factors, int64_t row, int64_t column);

// Names, shapes and dtypes are the original's: a value that was multiplied is rounded to the
// tensor's dtype, in bytes() and in read_f32() alike.
class ScaledCheckpoint final : public ChangedCheckpoint {
 public:
  // `base` must outlive it. Error{kInvalidArgument} for factors of a tensor that is not there, is
  // no F32, F16 or BF16, or has other sides.
  ScaledCheckpoint(const Checkpoint& base, CheckpointFactors factors);

  std::span<const std::byte> bytes(std::string_view name,
                                   std::vector<std::byte>& scratch) const override;
  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override;

 private:
  const TensorFactors* factors_of(std::string_view name) const;
  CheckpointFactors factors_;
};

}  // namespace signround
