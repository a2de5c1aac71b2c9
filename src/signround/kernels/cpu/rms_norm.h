// RMS norm of rows:  y = (w + w_offset) * x * rstd,  rstd = (mean(x^2) + eps)^(-1/2).  w_offset is
// 1 where a family stores w - 1 (Gemma). No w: all weights are 1.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround::kernels {

// y may lie on x. rstd (rows) may be null.
struct RmsNormFwd {
  HeadShape shape;
  RowsIn x;
  const float* w;  // (dim) or null
  float w_offset, eps;
  RowsOut y;
  float* rstd;
};

// Additionally z = x + add (f32, tokens rows, heads == 1), and the norm is of z. z may lie on x or
// add.
struct AddRmsNormFwd {
  RmsNormFwd norm;
  RowsIn add;
  float* z;
  int64_t z_stride;
};

// d_x may lie on d_y. d_w (dim): added to.
struct RmsNormBwd {
  HeadShape shape;
  RowsIn x;
  const float* w;
  float w_offset;
  const float* rstd;
  RowsIn d_y;
  RowsOut d_x;
  bool accumulate;
  float* d_w;
};

// Rows [begin, end).
void rms_norm_fwd_hwy(const RmsNormFwd& a, int64_t begin, int64_t end) noexcept;
void rms_norm_fwd_ref(const RmsNormFwd& a, int64_t begin, int64_t end) noexcept;
void add_rms_norm_fwd_hwy(const AddRmsNormFwd& a, int64_t begin, int64_t end) noexcept;
void add_rms_norm_fwd_ref(const AddRmsNormFwd& a, int64_t begin, int64_t end) noexcept;
void rms_norm_bwd_hwy(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept;
void rms_norm_bwd_ref(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept;
// Columns [begin, end) of d_w, over all rows in their order.
void rms_norm_bwd_w_hwy(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept;
void rms_norm_bwd_w_ref(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
