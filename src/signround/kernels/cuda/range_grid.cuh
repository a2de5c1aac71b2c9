// The grid of a group's range with the host's bits: group_grid_fwd of quant/grid.h; and the step of a
// scale's logarithm. Included by .cu files only.
#pragma once

#include <cmath>

#include "signround/kernels/cpu/range_step.h"
#include "signround/kernels/cpu/scale_step.h"
#include "signround/kernels/cuda/launch.h"

namespace signround::kernels::cuda {

// rounded_scale and limited_scale of kernels/cpu/scale_step.h.
__device__ __forceinline__ float rounded(float scale, DType dtype) {
  using namespace signround::cuda;
  float largest = 0x1.fffffep127f;
  if (dtype == DType::kF16) {
    scale = f16_to_f32(f32_to_f16(scale));
    largest = 65504.0f;
  } else if (dtype == DType::kBF16) {
    scale = bf16_to_f32(f32_to_bf16(scale));
    largest = 0x1.fep127f;
  }
  return fminf(fmaxf(scale, -largest), largest);
}
__device__ __forceinline__ float limited(float scale, const ScaleLimits& limits) {
  const float value = rounded(scale, limits.dtype);
  return copysignf(fmaxf(fabsf(value), limits.smallest), __fadd_rn(value, 0.0f));
}

__device__ __forceinline__ float larger(float a, float b) {
  if (a == b) return (a + b) * 0.5f;
  return a < b ? b : a;
}

struct Grid {
  float scale, zero;
  bool floored, zero_held;
};
__device__ inline Grid range_grid(const RangeGridRule& r, float min, float max, float alpha,
                                  float beta) {
  const float max_code = static_cast<float>((1 << r.bits) - 1);
  const float lo = __fmul_rn(min, alpha), hi = __fmul_rn(max, beta);
  Grid grid{};
  if (r.rule == RangeRule::kFullRange) {
    grid.scale = __fmul_rn(larger(-lo, hi), 1.0f / static_cast<float>(1 << (r.bits - 1)));
    if (!(hi < -lo)) grid.scale = -grid.scale;
  } else if (r.rule == RangeRule::kAsym) {
    grid.scale = __fdiv_rn(__fadd_rn(hi, -lo), max_code);
  } else {
    const float big = larger(-lo, hi);
    grid.scale = __fdiv_rn(__fadd_rn(big, lo < 0 ? big : -lo), max_code);
  }
  grid.scale = rounded(grid.scale, r.limits.dtype);
  const bool negative = grid.scale < 0;
  grid.floored = negative ? grid.scale > -r.limits.smallest : grid.scale < r.limits.smallest;
  if (grid.floored) grid.scale = negative ? -r.limits.smallest : r.limits.smallest;
  grid.zero = static_cast<float>(1 << (r.bits - 1));
  grid.zero_held = true;
  if (r.rule == RangeRule::kAsym) {
    grid.zero = rintf(__fdiv_rn(-lo, grid.scale));
    grid.zero_held = grid.zero > max_code;
    if (grid.zero_held) grid.zero = max_code;
  }
  return grid;
}

// adam_change of kernels/cpu/scale_step.h.
__device__ __forceinline__ float adam_change_of(ScaleMoments& m, double gradient, double lr) {
  if (!isfinite(gradient)) return 0.0f;
  const double mean = kScaleBeta1 * static_cast<double>(m.mean) + (1 - kScaleBeta1) * gradient;
  const double root = static_cast<double>(m.size);
  const double size = sqrt(kScaleBeta2 * root * root + (1 - kScaleBeta2) * gradient * gradient);
  m.mean = static_cast<float>(mean), m.size = static_cast<float>(size);
  return size == 0 ? 0.0f : static_cast<float>(-lr * mean / size);
}

}  // namespace signround::kernels::cuda
