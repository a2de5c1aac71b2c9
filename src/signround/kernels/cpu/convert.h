// Rows of f32, bf16 or f16 to rows of f32, bf16 or f16, times a factor; and gathers of such rows.
// Rounding as to_bf16 and to_f16 do.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround::kernels {

// Row i of y is row ids[i] of x (row i where ids is null) times scale.
struct Convert {
  int64_t cols;
  RowsAny x;
  const int32_t* ids;
  float scale;
  RowsOut y;
};

// Rows [begin, end) of y.
void convert_hwy(const Convert& a, int64_t begin, int64_t end) noexcept;
void convert_ref(const Convert& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
