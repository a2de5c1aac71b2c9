// Reference of one row of n logits. T calculates, In is the type of the logits.
#pragma once

#include <cmath>

#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {

// First place of the largest logit; the place of the first NaN or +infinity if there is one.
template <class In>
int64_t argmax_row(const In* x, int64_t n) {
  int64_t best = 0;
  for (int64_t j = 0; j < n; ++j) {
    if (!(real_part(x[j]) < HUGE_VAL)) return j;
    if (real_part(x[j]) > real_part(x[best])) best = j;
  }
  return best;
}

// log(sum of e^x), shifted by the largest logit so that nothing overflows.
template <class T, class In>
T log_sum_exp_row(const In* x, int64_t n) {
  const T shift(real_part(x[argmax_row(x, n)]));
  T sum{};
  for (int64_t j = 0; j < n; ++j) sum += std::exp(T(x[j]) - shift);
  return shift + std::log(sum);
}

// sum of p_ref (log p_ref - log p),  log p_j = x_j - log_sum_exp
template <class T, class In>
T kl_fwd_row(const In* x, T lse, const In* ref, T ref_lse, int64_t n) {
  T sum{};
  for (int64_t j = 0; j < n; ++j) {
    const T log_ref = T(ref[j]) - ref_lse, p_ref = std::exp(log_ref);
    if (real_part(p_ref) > 0) sum += p_ref * (log_ref - (T(x[j]) - lse));
  }
  return sum;
}

template <class T, class In, class Out>
void kl_bwd_row(const In* x, T lse, const In* ref, T ref_lse, T scale, int64_t n, Out* d_x) {
  // fwd: only -sum p_ref (x_j - lse) depends on x, and the derivative of lse is p
  for (int64_t j = 0; j < n; ++j) {
    const T p = std::exp(T(x[j]) - lse), p_ref = std::exp(T(ref[j]) - ref_lse);
    if constexpr (std::is_same_v<Out, T>)
      d_x[j] = (p - p_ref) * scale;
    else
      assign(d_x[j], static_cast<float>((p - p_ref) * scale));
  }
}

}  // namespace signround::kernels
