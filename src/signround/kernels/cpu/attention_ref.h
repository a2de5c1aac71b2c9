// Reference attention with grouped heads (Vaswani et al., arXiv 1706.03762; grouped: 2305.13245).
//   s_ij = scale * q_i . k_j, then softcap * tanh(s_ij / softcap) if asked for
//   P_ij = exp(s_ij - lse_i), lse_i = log sum_j exp(s_ij), over the keys j that query i may see
//   y_i  = sum_j P_ij v_j
// T is float, double, or std::complex<double> (for gradient checks): every step is analytic.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

#include "signround/kernels/attention_shape.h"

namespace signround::kernels {

// Rows of heads: head h of row t starts at data + t * stride + h * dim.
template <class T>
struct HeadRows {
  T* data = nullptr;
  int64_t stride = 0, dim = 0;
  T* operator()(int64_t t, int64_t h) const { return data + t * stride + h * dim; }
  operator HeadRows<const T>() const { return {data, stride, dim}; }
};

// The scores of query i of sequence b under head h, and their derivative by scale * q.k, for the
// keys from shape.first_key(i) on.
template <class T>
void attention_scores_ref(const AttentionShape& shape, int64_t b, int64_t h, int64_t i,
                          HeadRows<const T> q, HeadRows<const T> k, std::vector<T>& s,
                          std::vector<T>& slope) {
  s.clear();
  slope.clear();
  const T* q_i = q(b * shape.q_len + i, h);
  for (int64_t j = shape.first_key(i); j < shape.end_key(i); ++j) {
    const T* k_j = k(b * shape.kv_len + j, h / shape.group());
    T dot{};
    for (int64_t d = 0; d < shape.head_dim; ++d) dot += q_i[d] * k_j[d];
    dot *= T(shape.scale);
    if (shape.softcap > 0) {
      const T bent = std::tanh(dot / T(shape.softcap));
      s.push_back(T(shape.softcap) * bent);
      slope.push_back(T(1) - bent * bent);
    } else {
      s.push_back(dot);
      slope.push_back(T(1));
    }
  }
}

// y: like q.  lse: (batch, heads, q_len), kept for the backward pass.
template <class T>
void attention_fwd_ref(const AttentionShape& shape, HeadRows<const T> q, HeadRows<const T> k,
                       HeadRows<const T> v, HeadRows<T> y, T* lse) {
  std::vector<T> s, slope;
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t h = 0; h < shape.heads; ++h) {
      for (int64_t i = 0; i < shape.q_len; ++i) {
        attention_scores_ref<T>(shape, b, h, i, q, k, s, slope);
        double top = std::real(s[0]);
        for (const T& value : s) top = std::max(top, double(std::real(value)));
        T sum{};
        for (T& value : s) sum += value = std::exp(value - T(top));
        T* y_i = y(b * shape.q_len + i, h);
        std::fill_n(y_i, shape.head_dim, T{});
        for (size_t n = 0; n < s.size(); ++n) {
          const T* v_j = v(b * shape.kv_len + shape.first_key(i) + int64_t(n), h / shape.group());
          for (int64_t d = 0; d < shape.head_dim; ++d) y_i[d] += s[n] / sum * v_j[d];
        }
        lse[(b * shape.heads + h) * shape.q_len + i] = T(top) + std::log(sum);
      }
    }
  }
}

// The gradients are overwritten.
template <class T>
void attention_bwd_ref(const AttentionShape& shape, HeadRows<const T> q, HeadRows<const T> k,
                       HeadRows<const T> v, const T* lse, HeadRows<const T> d_y, HeadRows<T> d_q,
                       HeadRows<T> d_k, HeadRows<T> d_v) {
  const int64_t dim = shape.head_dim;
  for (int64_t t = 0; t < shape.batch * shape.q_len; ++t)
    std::fill_n(d_q(t, 0), shape.heads * dim, T{});
  for (int64_t t = 0; t < shape.batch * shape.kv_len; ++t) {
    std::fill_n(d_k(t, 0), shape.kv_heads * dim, T{});
    std::fill_n(d_v(t, 0), shape.kv_heads * dim, T{});
  }
  std::vector<T> p, slope, d_p;
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int64_t h = 0; h < shape.heads; ++h) {
      for (int64_t i = 0; i < shape.q_len; ++i) {
        attention_scores_ref<T>(shape, b, h, i, q, k, p, slope);
        const int64_t q_row = b * shape.q_len + i, kv_head = h / shape.group();
        const int64_t kv_row = b * shape.kv_len + shape.first_key(i);
        const T *q_i = q(q_row, h), *d_y_i = d_y(q_row, h);
        T* d_q_i = d_q(q_row, h);
        d_p.assign(p.size(), T{});
        T mean{};  // sum_j P_ij dP_ij: the path through the sum of the softmax
        for (size_t n = 0; n < p.size(); ++n) {
          // fwd: P_ij = exp(s_ij - lse_i), which is at most 1; an lse kept in f32 can miss a huge
          // s_ij by much.
          const T log_p = p[n] - lse[(b * shape.heads + h) * shape.q_len + i];
          p[n] = std::real(log_p) > 0 ? T(1) : std::exp(log_p);
          const T* v_j = v(kv_row + int64_t(n), kv_head);
          T* d_v_j = d_v(kv_row + int64_t(n), kv_head);
          for (int64_t d = 0; d < dim; ++d) {
            // fwd: y_i += P_ij v_j
            d_p[n] += d_y_i[d] * v_j[d];
            d_v_j[d] += p[n] * d_y_i[d];
          }
          mean += p[n] * d_p[n];
        }
        for (size_t n = 0; n < p.size(); ++n) {
          const T* k_j = k(kv_row + int64_t(n), kv_head);
          T* d_k_j = d_k(kv_row + int64_t(n), kv_head);
          const T d_dot = p[n] * (d_p[n] - mean) * slope[n] * T(shape.scale);
          for (int64_t d = 0; d < dim; ++d) {
            // fwd: dot = scale * q_i . k_j
            d_q_i[d] += d_dot * k_j[d];
            d_k_j[d] += d_dot * q_i[d];
          }
        }
      }
    }
  }
}

}  // namespace signround::kernels
