// What the scalar references share. They are templates on the type T that they calculate in: float
// in the table of an operation, double in tests, std::complex<double> for gradients by complex
// step. They must stay analytic: branch on real_part, no abs, max or norm of a T.
#pragma once

#include <complex>
#include <vector>

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

// A row of any type as floats; none where there are no rows.
class WidenedRow {
 public:
  WidenedRow(const RowsAny& rows, int64_t row, int64_t n) {
    if (rows.data == nullptr) return;
    const auto widen_from = [&]<class T>(const T* values) {
      for (int64_t j = 0; j < n; ++j) copy_.push_back(widen(values[row * rows.stride + j]));
      data_ = copy_.data();
    };
    if (rows.dtype == DType::kBF16)
      widen_from(static_cast<const BF16*>(rows.data));
    else if (rows.dtype == DType::kF16)
      widen_from(static_cast<const F16*>(rows.data));
    else
      data_ = static_cast<const float*>(rows.data) + row * rows.stride;
  }
  WidenedRow(const WidenedRow&) = delete;
  const float* data() const { return data_; }

 private:
  std::vector<float> copy_;
  const float* data_ = nullptr;
};

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
