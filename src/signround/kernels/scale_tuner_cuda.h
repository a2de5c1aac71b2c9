// The end-to-end pass on a GPU: a rounded layer whose integers stay while its scales learn, and
// vectors whose elements' factors learn; what quant/scale_tuner_cuda.h is made of. Scalar
// definitions: kernels/cpu/codes.h and scale_step.h. Queued on the current device, where all
// pointers lie; the same bits at every run.
#pragma once

#include <cstdint>

#include "signround/kernels/cpu/scale_step.h"
#include "signround/tensor/rows.h"

namespace signround::kernels::cuda {

// Codes (out, in) in groups of `group` along each row; the last of a row may be shorter. zeros:
// (out, groups()).
struct Codes {
  int64_t out = 0, in = 0, group = 0;
  const uint8_t *codes = nullptr, *zeros = nullptr;
  int64_t groups() const { return (in + group - 1) / group; }
  int64_t all_groups() const { return out * groups(); }
};

// weight (out, in), f32 or bf16: scale * (code - zero), with the host's bits.
void codes_write(const Codes& codes, const float* scale, RowsOut weight);

// One step of all scales, (out, groups()), along d_weight (out, in), f32 or bf16: t moves by Adam
// and the scale becomes start * exp(t) within the limits. The sum over a group has the host's
// order.
struct CodesStep {
  ScaleLimits limits{};
  double lr = 0;  // with Adam's correction
  const float* start = nullptr;
  float *t = nullptr, *scale = nullptr;
  ScaleMoments* moments = nullptr;
};
void codes_step(const Codes& codes, RowsAny d_weight, const CodesStep& step);

// The same for n numbers with a factor of their own, exp(t): gradient[i] is the loss's by value[i],
// and value[i] + offset is what the factor multiplies, times the factor.
void factors_step(int64_t n, const float* gradient, const float* value, float offset, double lr,
                  ScaleMoments* moments, float* t);
// value = (value + offset) * exp(t) - offset.
void factors_apply(int64_t n, const float* t, float offset, float* value);

}  // namespace signround::kernels::cuda
