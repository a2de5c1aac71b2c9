#include "signround/kernels/cpu/scale_step.h"

#include <algorithm>
#include <cmath>

#include "signround/kernels/dispatch.h"

namespace signround::kernels {
namespace {

constexpr ScaleStepKernel kKernels[] = {
    {"hwy", runs_always, move_hwy, scales_hwy},
    {"ref", runs_always, move_ref, scales_ref},
};

}  // namespace

std::span<const ScaleStepKernel> scale_step_kernels() { return kKernels; }

const ScaleStepKernel& scale_step_kernel() { return pick_kernel("scale_step", kKernels); }

float rounded_scale(float scale, DType dtype) noexcept {
  if (dtype == DType::kF16) return std::clamp(round_to_f16(scale), -65504.0f, 65504.0f);
  if (dtype == DType::kBF16) return std::clamp(round_to_bf16(scale), -0x1.fep127f, 0x1.fep127f);
  return std::clamp(scale, -0x1.fffffep127f, 0x1.fffffep127f);
}

float limited_scale(float scale, const ScaleLimits& limits) noexcept {
  const float value = rounded_scale(scale, limits.dtype);
  // Signs are as good as random: no branch. Adding 0 makes -0 positive.
  return std::copysign(std::max(std::abs(value), limits.smallest), value + 0.0f);
}

float adam_change(ScaleMoments& moments, double gradient, double lr) noexcept {
  if (!std::isfinite(gradient)) return 0;
  const double mean =
      kScaleBeta1 * static_cast<double>(moments.mean) + (1 - kScaleBeta1) * gradient;
  const double root = static_cast<double>(moments.size);
  const double size =
      std::sqrt(kScaleBeta2 * root * root + (1 - kScaleBeta2) * gradient * gradient);
  moments = {static_cast<float>(mean), static_cast<float>(size)};
  return size == 0 ? 0.0f : static_cast<float>(-lr * mean / size);
}

void move_ref(int64_t n, const double* gradient, double lr, ScaleMoments* moments,
              float* t) noexcept {
  for (int64_t i = 0; i < n; ++i) t[i] += adam_change(moments[i], gradient[i], lr);
}

void scales_ref(int64_t n, const float* t, const float* start, const ScaleLimits& limits,
                float* scale) noexcept {
  for (int64_t i = 0; i < n; ++i) {
    scale[i] = t[i] == 0 ? start[i] : limited_scale(start[i] * std::exp(t[i]), limits);
  }
}

}  // namespace signround::kernels
