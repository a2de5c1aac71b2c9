// The search of quant/scale_start.h on a GPU: what quant/scale_start_cuda.h is made of. Queued on
// the current device, where all pointers lie. Scales and zero points have the host's bits: the sums
// of kernels/cpu/grid_loss.h keep their order.
#pragma once

#include <cstdint>

#include "signround/kernels/cpu/range_step.h"
#include "signround/tensor/rows.h"

namespace signround::kernels::cuda {

// Weights (out, in), f32 or bf16, all finite, in groups of `group` along each row; the last of a
// row may be shorter.
struct SearchWeights {
  RowsAny w;
  int64_t out = 0, in = 0, group = 0;
  int64_t groups() const { return (in + group - 1) / group; }
};

// Trials: the grid of the range, then its scale times `factors` factors from smallest to largest,
// with both signs where the rule is kFullRange. The best, the first of equals, is refitted by least
// squares up to `refits` times.
struct SearchRule {
  RangeGridRule grid;
  int factors = 0, refits = 0;
  float smallest_factor = 0, largest_factor = 0;
};

// importance: (in), null: all 1. scale, zero: (out, groups()).
void search_scales(const SearchWeights& weights, const SearchRule& rule, const float* importance,
                   float* scale, float* zero);

}  // namespace signround::kernels::cuda
