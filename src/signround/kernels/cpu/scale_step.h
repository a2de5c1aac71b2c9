// One step of Adam (arXiv 1412.6980) for the logarithms of many scales: scale = start * exp(t),
// rounded to the type that holds scales and kept from the floor of that type.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "signround/tensor/dtype.h"

namespace signround::kernels {

// Of the gradient by the logarithm of one scale: its running mean, and the root of the running mean
// of its square (f32 would lose the squares of small gradients).
struct ScaleMoments {
  float mean = 0, size = 0;
};

constexpr double kScaleBeta1 = 0.9, kScaleBeta2 = 0.95;

// What a scale can be: rounded to `dtype` (kF16, kBF16 or kF32) and within its largest number, its
// magnitude at least `smallest`, which dtype holds.
struct ScaleLimits {
  DType dtype;
  float smallest;
};

// The scale as dtype holds it, infinity as its largest number.
float rounded_scale(float scale, DType dtype) noexcept;
// That, its magnitude raised to the smallest; 0 and -0 give the positive smallest.
float limited_scale(float scale, const ScaleLimits& limits) noexcept;

struct ScaleStepKernel {
  std::string_view name;
  const char* (*why_not)();
  // n values of t move by Adam, computed in double; lr holds Adam's correction for means that began
  // at 0. gradient: of the loss by t; one that is not finite changes nothing.
  void (*move)(int64_t n, const double* gradient, double lr, ScaleMoments* moments,
               float* t) noexcept;
  // scale = start where t is 0, else start * exp(t) within the limits. Rows of the table agree but
  // for the last bits of exp.
  void (*scales)(int64_t n, const float* t, const float* start, const ScaleLimits& limits,
                 float* scale) noexcept;
};

std::span<const ScaleStepKernel> scale_step_kernels();
const ScaleStepKernel& scale_step_kernel();  // the one to use; see kernels/dispatch.h

// The change of one t; moves its moments. The definition.
float adam_change(ScaleMoments& moments, double gradient, double lr) noexcept;

void move_ref(int64_t n, const double* gradient, double lr, ScaleMoments* moments,
              float* t) noexcept;
void scales_ref(int64_t n, const float* t, const float* start, const ScaleLimits& limits,
                float* scale) noexcept;
void move_hwy(int64_t n, const double* gradient, double lr, ScaleMoments* moments,
              float* t) noexcept;
void scales_hwy(int64_t n, const float* t, const float* start, const ScaleLimits& limits,
                float* scale) noexcept;

}  // namespace signround::kernels
