// A tensor as a checkpoint names it: erased type, bytes that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "signround/tensor/dtype.h"

namespace signround {

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    return n;
  }
  int64_t nbytes() const { return numel() * size_of(dtype); }
  bool operator==(const TensorInfo&) const = default;
};

std::string shape_text(std::span<const int64_t> shape);  // "[576, 1536]"

}  // namespace signround
