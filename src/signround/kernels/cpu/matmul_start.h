// For products that add to C where it lies: what they are to be added to, put there first.
#pragma once

#include <cstring>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels {

// See MatmulPlan::run.
inline void start_from(const MatmulSpec& s, const float* from, void* c) {
  if (!s.accumulate || from == nullptr || from == c) return;
  auto* rows = static_cast<float*>(c);
  parallel_for(s.m, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      std::memcpy(rows + i * s.ldc, from + i * s.ldc, static_cast<size_t>(s.n) * sizeof(float));
  });
}

}  // namespace signround::kernels
