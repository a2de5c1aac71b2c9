// What checkpoints have in common that read another one and change some of its values on the way
// out.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "signround/io/checkpoint.h"

namespace signround {

// The value that a tensor of this dtype (F32, F16 or BF16) holds for v.
float rounded_to(DType dtype, float v);

// Names, shapes and dtypes are the original's.
class ChangedCheckpoint : public Checkpoint {
 public:
  void release(std::string_view name) const override { base_.release(name); }
  std::vector<ExtraFile> extra_files() const override { return base_.extra_files(); }
  int64_t bytes_on_disk() const override { return base_.bytes_on_disk(); }

 protected:
  // `base` must outlive it.
  explicit ChangedCheckpoint(const Checkpoint& base);
  // A tensor whose values can be changed. Error{kInvalidArgument} if it is not there or is no F32,
  // F16 or BF16; `where` begins its text.
  const TensorInfo& changeable(const char* where, const std::string& name) const;
  const Checkpoint& base_;
};

}  // namespace signround
