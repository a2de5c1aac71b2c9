// One step of the factors alpha and beta of many groups, and the grids that follow from them. The
// formulas, and the scalar code that has the same bits, are in quant/grid.h.
#pragma once

#include <cstdint>

#include "signround/kernels/cpu/scale_step.h"

namespace signround::kernels {

enum class RangeRule : uint8_t { kFullRange, kAsym, kClassic };  // of a grid, from [lo, hi]

struct RangeGridRule {
  RangeRule rule;
  int bits;
  ScaleLimits limits;
};

// Of n groups, each array (n). min <= 0 and max >= 0: the smallest and the largest weight, and
// zero. d_scale, d_clamped: the sums of GroupGrad. Overwritten: scale and zero; moved: alpha and
// beta, and the momentum of their gradients, null without.
struct RangeArrays {
  const float *min, *max;
  const float *d_scale, *d_clamped;
  float *alpha, *beta;
  float *alpha_buffer, *beta_buffer;
  float *scale, *zero;
};

// Each factor moves by lr against the sign of its gradient, or of its momentum, and stays within
// [0, 1].
void range_step_hwy(const RangeGridRule& rule, int64_t n, float lr, float momentum,
                    const RangeArrays& arrays) noexcept;

}  // namespace signround::kernels
