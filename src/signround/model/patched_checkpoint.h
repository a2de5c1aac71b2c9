// A checkpoint with other values in some of its vectors: norms and biases that were tuned.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "signround/model/changed_checkpoint.h"

namespace signround {

using CheckpointVectors = std::map<std::string, std::vector<float>>;  // by the tensor's name

// The value that a tensor of this dtype (F32, F16 or BF16) holds for each of `values`.
void round_to_dtype(std::vector<float>& values, DType dtype);

// Names, shapes and dtypes are the original's; a value is rounded to the tensor's dtype, in bytes()
// and in read_f32() alike.
class PatchedCheckpoint final : public ChangedCheckpoint {
 public:
  // `base` must outlive it. Error{kInvalidArgument} for values of a tensor that is not there, is no
  // F32, F16 or BF16, has more than one dimension, or has another size.
  PatchedCheckpoint(const Checkpoint& base, CheckpointVectors vectors);

  std::span<const std::byte> bytes(std::string_view name,
                                   std::vector<std::byte>& scratch) const override;
  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override;

 private:
  const std::vector<float>* values_of(std::string_view name) const;
  CheckpointVectors vectors_;
};

}  // namespace signround
