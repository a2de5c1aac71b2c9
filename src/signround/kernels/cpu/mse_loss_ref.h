// Reference squared error of one row.
#pragma once

#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {

// Sums up in T.
template <class T, class P, class In>
T mse_loss_fwd_row(const P* pred, const In* ref, int64_t n) {
  T sum{};
  for (int64_t j = 0; j < n; ++j) {
    const T e = T(pred[j]) - T(widen(ref[j]));
    sum += e * e;
  }
  return sum;
}

template <class P, class In, class Out>
void mse_loss_bwd_row(const P* pred, const In* ref, P scale, int64_t n, Out* d_pred) {
  // fwd: sum of (pred_j - ref_j)^2
  for (int64_t j = 0; j < n; ++j) assign(d_pred[j], P(2) * (pred[j] - P(widen(ref[j]))) * scale);
}

}  // namespace signround::kernels
