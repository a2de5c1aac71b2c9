// Reference layer norm of one row of d values:
//   y_j = h_j w_j + b_j,   h_j = (x_j - mean) r,   r = (mean((x - mean)^2) + eps)^(-1/2)
#pragma once

#include <cmath>

#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {

template <class T>
struct MeanAndRstd {
  T mean, rstd;
};

template <class T, class Out>
MeanAndRstd<T> layer_norm_fwd_row(const T* x, const T* w, const T* b, double eps, int64_t d,
                                  Out* y) {
  const T count(static_cast<double>(d));
  T sum{}, squares{};
  for (int64_t j = 0; j < d; ++j) sum += x[j];
  const T mean = sum / count;
  for (int64_t j = 0; j < d; ++j) squares += (x[j] - mean) * (x[j] - mean);
  const T r = T(1) / std::sqrt(squares / count + T(eps));
  for (int64_t j = 0; j < d; ++j)
    assign(y[j], (x[j] - mean) * r * (w ? w[j] : T(1)) + (b ? b[j] : T(0)));
  return {mean, r};
}

template <class T, class Out>
void layer_norm_bwd_row(const T* x, const T* w, T mean, T r, const T* d_y, int64_t d,
                        bool accumulate, Out* d_x) {
  const T count(static_cast<double>(d));
  T sum_g{}, sum_gh{};  // g_j = d_y_j w_j: the paths through the mean and through r
  for (int64_t j = 0; j < d; ++j) {
    const T g = d_y[j] * (w ? w[j] : T(1));
    sum_g += g;
    sum_gh += g * (x[j] - mean) * r;
  }
  // fwd: y_j = (x_j - mean) * r * w_j + b_j
  for (int64_t j = 0; j < d; ++j) {
    const T g = d_y[j] * (w ? w[j] : T(1));
    put(d_x[j], r * (g - sum_g / count - (x[j] - mean) * r * sum_gh / count), accumulate);
  }
}

// The row's share of d_w and d_b, for columns [begin, end); either may be null.
template <class T>
void layer_norm_bwd_w_row(const T* x, T mean, T r, const T* d_y, int64_t begin, int64_t end, T* d_w,
                          T* d_b) {
  for (int64_t j = begin; j < end; ++j) {
    if (d_w) d_w[j] += d_y[j] * (x[j] - mean) * r;
    if (d_b) d_b[j] += d_y[j];
  }
}

}  // namespace signround::kernels
