// Reference RMS norm of one row of d values:
//   y_j = w_j * x_j * r,   r = (mean(x^2) + eps)^(-1/2),   w_j = w[j] + w_offset (1 where w is
//   null)
#pragma once

#include <cmath>

#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {

template <class T>
T norm_weight(const T* w, double w_offset, int64_t j) {
  return w ? w[j] + T(w_offset) : T(1);
}

// Returns r.
template <class T, class Out>
T rms_norm_fwd_row(const T* x, const T* w, double w_offset, double eps, int64_t d, Out* y) {
  T sum{};
  for (int64_t j = 0; j < d; ++j) sum += x[j] * x[j];
  const T r = T(1) / std::sqrt(sum / T(static_cast<double>(d)) + T(eps));
  for (int64_t j = 0; j < d; ++j) assign(y[j], norm_weight(w, w_offset, j) * x[j] * r);
  return r;
}

template <class T, class Out>
void rms_norm_bwd_row(const T* x, const T* w, double w_offset, T r, const T* d_y, int64_t d,
                      bool accumulate, Out* d_x) {
  T dot{};  // sum of d_y_j w_j x_j: the path through r
  for (int64_t j = 0; j < d; ++j) dot += d_y[j] * norm_weight(w, w_offset, j) * x[j];
  const T k = dot * r * r * r / T(static_cast<double>(d));
  // fwd: y_j = w_j * x_j * r
  for (int64_t j = 0; j < d; ++j)
    put(d_x[j], d_y[j] * norm_weight(w, w_offset, j) * r - x[j] * k, accumulate);
}

// The row's share of d_w, for columns [begin, end).
template <class T>
void rms_norm_bwd_w_row(const T* x, T r, const T* d_y, int64_t begin, int64_t end, T* d_w) {
  for (int64_t j = begin; j < end; ++j) d_w[j] += d_y[j] * x[j] * r;
}

}  // namespace signround::kernels
