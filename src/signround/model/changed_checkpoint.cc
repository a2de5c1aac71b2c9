#include "signround/model/changed_checkpoint.h"

#include "signround/base/error.h"

namespace signround {

float rounded_to(DType dtype, float v) {
  return dtype == DType::kBF16 ? round_to_bf16(v) : dtype == DType::kF16 ? round_to_f16(v) : v;
}

ChangedCheckpoint::ChangedCheckpoint(const Checkpoint& base) : base_(base) {
  source_ = base.source();
  config_ = base.config();
  set_tensors({base.tensors().begin(), base.tensors().end()});
}

const TensorInfo& ChangedCheckpoint::changeable(const char* where, const std::string& name) const {
  const TensorInfo* tensor = find(name);
  require(tensor != nullptr, where, source_, " has no tensor ", name);
  require(
      tensor->dtype == DType::kF32 || tensor->dtype == DType::kF16 || tensor->dtype == DType::kBF16,
      where, name, " is of ", name_of(tensor->dtype), ", expected F32, F16 or BF16");
  return *tensor;
}

}  // namespace signround
