// Layer norm of rows:  y = (x - mean) rstd w + b,  rstd = (mean((x - mean)^2) + eps)^(-1/2). No w:
// ones; no b: zeros.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround::kernels {

// y may lie on x. mean, rstd (rows) may be null.
struct LayerNormFwd {
  HeadShape shape;
  RowsIn x;
  const float *w, *b;  // (dim) or null
  float eps;
  RowsOut y;
  float *mean, *rstd;
};

// d_x may lie on d_y. d_w, d_b (dim) are added to; either may be null.
struct LayerNormBwd {
  HeadShape shape;
  RowsIn x;
  const float *w, *mean, *rstd;
  RowsIn d_y;
  RowsOut d_x;
  bool accumulate;
  float *d_w, *d_b;
};

// Rows [begin, end).
void layer_norm_fwd_hwy(const LayerNormFwd& a, int64_t begin, int64_t end) noexcept;
void layer_norm_fwd_ref(const LayerNormFwd& a, int64_t begin, int64_t end) noexcept;
void layer_norm_bwd_hwy(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept;
void layer_norm_bwd_ref(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept;
// Columns [begin, end) of d_w and d_b, over all rows in their order.
void layer_norm_bwd_w_hwy(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept;
void layer_norm_bwd_w_ref(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
