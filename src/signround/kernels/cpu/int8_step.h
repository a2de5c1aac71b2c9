// How rows of A and columns of B are rounded to 8 bits: q = round(x / step), step = max|x| / 127,
// where the maximum is of as many values along k as one step serves.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

namespace signround::kernels {

constexpr int64_t kInt8StepValues = 4096;

// absmax: the largest magnitude of the row; not finite where a value of it is not; then the
// step is a NaN and so is all that is multiplied with it. Rows below 1e-34 are taken for zero (step
// 0): a smaller step has no finite inverse.
inline float int8_step(float absmax) {
  if (!std::isfinite(absmax)) return std::numeric_limits<float>::quiet_NaN();
  return absmax < 1e-34f ? 0.0f : absmax / 127.0f;
}

// What values are multiplied with before they are rounded.
inline float int8_inverse(float step) { return step > 0 ? 1.0f / step : 0.0f; }

}  // namespace signround::kernels
