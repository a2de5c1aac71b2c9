// z = x + y of rows.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround::kernels {

// z may lie on x or y (f32).
struct Add {
  int64_t cols;
  RowsIn x, y;
  RowsOut z;
};

// Rows [begin, end).
void add_hwy(const Add& a, int64_t begin, int64_t end) noexcept;
void add_ref(const Add& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
