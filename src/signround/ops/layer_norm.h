// Layer norm of rows, or of the heads in them:
//   y = (x - mean) * rstd * w + b,   rstd = (mean((x - mean)^2) + eps)^(-1/2)
#pragma once

#include <span>

#include "signround/tensor/rows.h"

namespace signround {

// x, y: shape; y f32 or bf16, may lie on x. w, b: (dim), empty = ones and zeros. mean, rstd:
// (rows), what the backward pass needs; empty = not wanted.
void layer_norm_fwd(HeadShape shape, RowsIn x, std::span<const float> w, std::span<const float> b,
                    float eps, RowsOut y, std::span<float> mean, std::span<float> rstd);

// d_x: overwritten, or added to (f32) if accumulate; may lie on d_y. d_w, d_b: (dim), added to in
// the order of the rows whatever the thread count; empty = not wanted.
void layer_norm_bwd(HeadShape shape, RowsIn x, std::span<const float> w,
                    std::span<const float> mean, std::span<const float> rstd, RowsIn d_y,
                    RowsOut d_x, bool accumulate, std::span<float> d_w = {},
                    std::span<float> d_b = {});

}  // namespace signround
