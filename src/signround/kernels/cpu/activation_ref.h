// Reference activations: value and derivative of one element, then rows.
#pragma once

#include <cmath>
#include <complex>
#include <numbers>

#include "signround/kernels/cpu/activation.h"
#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {

inline float erfc_of(float x) { return std::erfc(x); }
inline double erfc_of(double x) { return std::erfc(x); }
// For gradient checks, |z| < 2: 1 - 2/sqrt(pi) sum (-1)^n z^(2n+1) / (n! (2n+1)).
inline std::complex<double> erfc_of(std::complex<double> z) {
  std::complex<double> power = z, sum = z;
  for (int n = 1; n < 60; ++n) {
    power *= -z * z / static_cast<double>(n);
    sum += power / static_cast<double>(2 * n + 1);
  }
  return 1.0 - sum * 2.0 * std::numbers::inv_sqrtpi;
}

constexpr double kGeluScale = 0.79788456080286535588;  // sqrt(2 / pi)
constexpr double kGeluCube = 0.044715;

template <class T>
struct ValueAndSlope {
  T value, slope;
};

// 1 / (1 + e^-z) and 1 minus that, both without cancellation; e = exp(-|z|) cannot overflow.
template <class T>
struct SigmoidPair {
  T s, rest;
};
template <class T>
SigmoidPair<T> sigmoid_pair(T z) {
  const bool positive = real_part(z) >= 0;
  const T one(1), e = std::exp(positive ? -z : z);
  return {(positive ? one : e) / (one + e), (positive ? e : one) / (one + e)};
}

template <class T>
ValueAndSlope<T> activate(Activation kind, T x) {
  const T one(1), half(0.5);
  switch (kind) {
    case Activation::kSilu: {
      const auto [s, rest] = sigmoid_pair(x);
      return {x * s, s * (one + x * rest)};
    }
    case Activation::kGeluTanh: {
      // Far out the result is x or 0 in every precision, and x^3 might overflow.
      if (real_part(x) > 30) return {x, one};
      if (real_part(x) < -30) return {T(0), T(0)};
      // (1 + tanh z) / 2 = sigmoid(2z)
      const auto [s, rest] = sigmoid_pair(T(2 * kGeluScale) * x * (one + T(kGeluCube) * x * x));
      const T d_inner = T(2 * kGeluScale) * (one + T(3 * kGeluCube) * x * x);
      return {x * s, s * (one + x * rest * d_inner)};
    }
    case Activation::kGeluErf: {
      const T phi = half * erfc_of(-x * T(1 / std::numbers::sqrt2));
      const T density = std::exp(-half * x * x) * T(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
      return {x * phi, phi + x * density};
    }
    case Activation::kRelu:
      return real_part(x) > 0 ? ValueAndSlope<T>{x, one} : ValueAndSlope<T>{T(0), T(0)};
    case Activation::kReluSquared:
      return real_part(x) > 0 ? ValueAndSlope<T>{x * x, x + x} : ValueAndSlope<T>{T(0), T(0)};
  }
  return {};
}

// up null: no gate.
template <class T, class Out>
void act_fwd_row(Activation kind, const T* x, const T* up, int64_t n, Out* y) {
  for (int64_t j = 0; j < n; ++j) {
    const T f = activate(kind, x[j]).value;
    assign(y[j], up ? f * up[j] : f);
  }
}

template <class T, class Out>
void act_bwd_row(Activation kind, const T* x, const T* up, const T* d_y, int64_t n, bool accumulate,
                 Out* d_x, Out* d_up) {
  for (int64_t j = 0; j < n; ++j) {
    const ValueAndSlope<T> f = activate(kind, x[j]);
    const T d = d_y[j], u = up ? up[j] : T(1);
    // fwd: y_j = f(x_j) * up_j
    put(d_x[j], d * u * f.slope, accumulate);
    if (up) put(d_up[j], d * f.value, accumulate);
  }
}

}  // namespace signround::kernels
