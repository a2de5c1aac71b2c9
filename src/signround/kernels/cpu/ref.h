// What the scalar references share. They are templates on the type T that they calculate in: float
// in the table of an operation, double in tests, std::complex<double> for gradients by complex
// step. They must stay analytic: branch on real_part, no abs, max or norm of a T.
#pragma once

#include <complex>

#include "signround/tensor/rows.h"

namespace signround::kernels {

inline double real_part(float v) { return static_cast<double>(v); }
inline double real_part(double v) { return v; }
inline double real_part(const std::complex<double>& v) { return v.real(); }

inline void assign(float& to, float value) { to = value; }
inline void assign(double& to, double value) { to = value; }
inline void assign(std::complex<double>& to, std::complex<double> value) { to = value; }
inline void assign(BF16& to, float value) { to = to_bf16(value); }
inline void assign(F16& to, float value) { to = to_f16(value); }

inline float widen(BF16 v) { return to_f32(v); }
inline float widen(F16 v) { return to_f32(v); }
template <class T>
T widen(T v) {
  return v;
}

// Gradients: overwrites, or adds where the type allows it.
template <class Out, class T>
void put(Out& to, T value, bool accumulate) {
  if constexpr (std::is_same_v<Out, T>) {
    if (accumulate) value += to;
  }
  assign(to, value);
}

// body(pointer to f32 or bf16 at element `offset` of rows).
template <class Body>
void with_out(const RowsOut& rows, int64_t offset, Body&& body) {
  if (rows.dtype == DType::kF32) return body(static_cast<float*>(rows.data) + offset);
  body(static_cast<BF16*>(rows.data) + offset);
}

}  // namespace signround::kernels
