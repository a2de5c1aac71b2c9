#include "signround/io/checkpoint.h"

#include "signround/base/error.h"

namespace signround {

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const TensorInfo& Checkpoint::at(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (!info)
    fail(ErrorKind::kCorruptFile, "checkpoint", source_, " has no tensor ", name,
         ", which its config.json calls for");
  return *info;
}

std::vector<float> Checkpoint::read_all_f32(std::string_view name) const {
  const TensorInfo& info = at(name);
  std::vector<float> values(static_cast<size_t>(info.numel()));
  if (!values.empty()) read_f32(name, 0, info.shape.empty() ? 1 : info.shape[0], values.data());
  return values;
}

void Checkpoint::set_tensors(std::vector<TensorInfo> tensors) {
  tensors_ = std::move(tensors);
  index_.clear();
  for (size_t i = 0; i < tensors_.size(); ++i)
    if (!index_.emplace(tensors_[i].name, i).second)
      fail(ErrorKind::kCorruptFile, "checkpoint", "tensor ", tensors_[i].name, " comes twice in ",
           source_);
}

}  // namespace signround
