// One layer under tuning on a GPU: what quant/signround_cuda.h is made of. Formulas and scalar
// definitions: kernels/cpu/fake_quant.h, scale_step.h, and quant/grid.h. Queued on the current
// device, where all pointers lie; the same bits at every run.
#pragma once

#include <cstdint>

#include "signround/kernels/cpu/range_step.h"
#include "signround/tensor/rows.h"

namespace signround::kernels::cuda {

// Weights (out, in), contiguous, f32 or bf16, in groups of `group` along each row; the last of a
// row may be shorter. Arrays of groups are (out, groups()).
struct SlotWeights {
  int64_t out = 0, in = 0, group = 0;
  DType dtype = DType::kBF16;
  const void* w = nullptr;
  int64_t groups() const { return (in + group - 1) / group; }
  int64_t all_groups() const { return out * groups(); }
};

// A grid for each group; max_code: the largest code.
struct SlotGrid {
  float *scale = nullptr, *zero = nullptr;
  int max_code = 0;
};

// min(0, smallest) and max(0, largest) of each group.
void slot_extent(const SlotWeights& weights, float* min, float* max);

// The grids that alpha and beta make of [min, max].
void slot_ranges(const RangeGridRule& rule, int64_t n, const float* min, const float* max,
                 const float* alpha, const float* beta, SlotGrid grid);
// scale = start where t is 0, else start * exp(t) within the limits.
void slot_scales(const ScaleLimits& limits, int64_t n, const float* start, const float* t,
                 float* scale);

// weight (out, in), f32 or bf16: scale * q. v (out, in) in units; null: all zero.
void slot_write(const SlotWeights& weights, const int16_t* v, float unit, SlotGrid grid,
                RowsOut weight);
// codes (out, in): q + zero.
void slot_codes(const SlotWeights& weights, const int16_t* v, float unit, SlotGrid grid,
                uint8_t* codes);

// One step along d_weight (out, in), f32 or bf16, and the weight that follows, in one pass: v moves
// to next (which may be v), the groups' parameters and grids move, the new weight is written.
struct SlotStep {
  const int16_t* v = nullptr;
  int16_t* next = nullptr;
  float unit = 0;
  int units = 0;            // that v moves by
  float momentum = 0;       // of v and of alpha and beta
  float* buffer = nullptr;  // (out, in), null without momentum
  enum class Scales : uint8_t { kHeld, kRange, kFree } scales = Scales::kHeld;
  // kRange:
  RangeGridRule rule{};
  const float *min = nullptr, *max = nullptr;
  const float *alpha = nullptr, *beta = nullptr;      // as they are
  float *alpha_next = nullptr, *beta_next = nullptr;  // where they move to
  float *alpha_buffer = nullptr, *beta_buffer = nullptr;
  float factor_lr = 0;
  // kFree:
  ScaleLimits limits{};
  const float* start = nullptr;
  const float* t = nullptr;
  float* t_next = nullptr;
  ScaleMoments* moments = nullptr;
  double scale_lr = 0;
};
void slot_step(const SlotWeights& weights, const SlotStep& step, SlotGrid grid, RowsAny d_weight,
               RowsOut weight);

}  // namespace signround::kernels::cuda
