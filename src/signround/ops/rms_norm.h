// RMS norm of rows, or of the heads in them:
//   y = (w + weight_offset) * x * rstd,   rstd = (mean(x^2) + eps)^(-1/2)
#pragma once

#include <span>

#include "signround/tensor/rows.h"

namespace signround {

struct RmsNormOptions {
  float eps = 1e-6f;
  float weight_offset = 0;  // 1 where the checkpoint stores w - 1 (Gemma)
};

// x, y: shape; y f32 or bf16, may lie on x. w: (dim), empty = all ones. rstd: (rows), what the
// backward pass needs; empty = not wanted.
void rms_norm_fwd(HeadShape shape, RowsIn x, std::span<const float> w, RmsNormOptions options,
                  RowsOut y, std::span<float> rstd);

// z = x + y, h = rms_norm(z). x, y, z: (n, d) f32, z may lie on x or y. h: (n, d) f32 or bf16.
// Backward: rms_norm_bwd of z with accumulate, then d_x = d_y = d_z.
void add_rms_norm_fwd(int64_t n, int64_t d, RowsIn x, RowsIn y, std::span<const float> w,
                      RmsNormOptions options, RowsOut z, RowsOut h, std::span<float> rstd);

// d_x: overwritten, or added to (f32) if accumulate; may lie on d_y. d_w: (dim), added to in the
// order of the rows whatever the thread count; empty = not wanted.
void rms_norm_bwd(HeadShape shape, RowsIn x, std::span<const float> w, std::span<const float> rstd,
                  RowsIn d_y, RmsNormOptions options, RowsOut d_x, bool accumulate,
                  std::span<float> d_w = {});

}  // namespace signround
