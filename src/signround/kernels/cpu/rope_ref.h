// Reference rotary embedding of one head; see rope.h.
#pragma once

#include "signround/kernels/cpu/ref.h"
#include "signround/kernels/cpu/rope.h"

namespace signround::kernels {

template <class T, class Out>
void rope_fwd_head(const T* x, const float* cos, const float* sin, RopeStyle style, int64_t rot_dim,
                   int64_t dim, Out* y) {
  const int64_t half = rot_dim / 2;
  for (int64_t p = 0; p < half; ++p) {
    const int64_t i = style == RopeStyle::kHalfSplit ? p : 2 * p;
    const int64_t j = style == RopeStyle::kHalfSplit ? p + half : 2 * p + 1;
    const T a = x[i], b = x[j];
    assign(y[i], a * T(cos[p]) - b * T(sin[p]));
    assign(y[j], b * T(cos[p]) + a * T(sin[p]));
  }
  for (int64_t i = rot_dim; i < dim; ++i) assign(y[i], x[i]);
}

template <class T, class Out>
void rope_bwd_head(const T* d_y, const float* cos, const float* sin, RopeStyle style,
                   int64_t rot_dim, int64_t dim, bool accumulate, Out* d_x) {
  const int64_t half = rot_dim / 2;
  for (int64_t p = 0; p < half; ++p) {
    const int64_t i = style == RopeStyle::kHalfSplit ? p : 2 * p;
    const int64_t j = style == RopeStyle::kHalfSplit ? p + half : 2 * p + 1;
    const T d_a = d_y[i], d_b = d_y[j];
    // fwd: y_i = a cos - b sin, y_j = b cos + a sin
    put(d_x[i], d_a * T(cos[p]) + d_b * T(sin[p]), accumulate);
    put(d_x[j], d_b * T(cos[p]) - d_a * T(sin[p]), accumulate);
  }
  for (int64_t i = rot_dim; i < dim; ++i) put(d_x[i], d_y[i], accumulate);
}

}  // namespace signround::kernels
