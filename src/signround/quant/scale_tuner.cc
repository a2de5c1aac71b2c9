#include "signround/quant/scale_tuner.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/codes.h"
#include "signround/quant/grid.h"

namespace signround {

void FactorTuner::step(std::span<const float> gradient, std::span<const float> value, double lr) {
  require(gradient.size() == log_factor_.size() && value.size() == log_factor_.size(),
          "factor_tuner", "gradients of ", gradient.size(), " and ", value.size(),
          " values, expected ", log_factor_.size());
  const double corrected = corrected_scale_lr(lr, ++steps_);
  for (size_t i = 0; i < log_factor_.size(); ++i)
    log_factor_[i] += kernels::adam_change(
        moments_[i], static_cast<double>(gradient[i]) * static_cast<double>(value[i]), corrected);
}

std::vector<float> FactorTuner::factors() const {
  std::vector<float> result(log_factor_.size());
  std::transform(log_factor_.begin(), log_factor_.end(), result.begin(),
                 [](float t) { return std::exp(t); });
  return result;
}

ScaleTuner::ScaleTuner(const QuantizedLinear& linear)
    : scheme_(linear.scheme),
      start_(linear.scales),
      scales_(linear.scales),
      log_factor_(linear.scales.size()),
      moments_(linear.scales.size()) {}

int64_t ScaleTuner::bytes(int64_t out, int64_t in, const QuantScheme& scheme) {
  return out * scheme.groups(in) * static_cast<int64_t>(3 * sizeof(float) + sizeof(ScaleMoments));
}

void ScaleTuner::step(const QuantizedLinear& linear, const float* d_weight, int64_t stride,
                      double lr) {
  const int64_t in = linear.in, group = scheme_.group(in), groups = scheme_.groups(in);
  require(linear.scheme == scheme_ && linear.out * groups == static_cast<int64_t>(start_.size()) &&
              stride >= in,
          "scale_tuner", "a layer of another size or scheme");
  const double corrected = corrected_scale_lr(lr, ++steps_);
  const kernels::ScaleLimits limits = scale_limits(scheme_.scale_dtype);
  const auto& kernel = kernels::codes_kernel();
  const auto& scales_kernel = kernels::scale_step_kernel();
  parallel_for(linear.out, 16, [&](int64_t begin, int64_t end) {
    std::vector<double> gradient(static_cast<size_t>(groups));
    for (int64_t r = begin; r < end; ++r) {
      const float* d_row = d_weight + r * stride;
      const uint8_t* codes = linear.codes.data() + r * in;
      for (int64_t g = 0; g < groups; ++g) {
        const auto k = static_cast<size_t>(r * groups + g);
        const float zero = linear.zeros[k];
        // weight = scale (code - zero), so d loss / d scale = sum of d_weight (code - zero).
        const int64_t first = g * group;
        const double sum =
            kernel.dot(d_row + first, codes + first, std::min(in - first, group), zero);
        gradient[static_cast<size_t>(g)] = sum * static_cast<double>(scales_[k]);
      }
      const int64_t k = r * groups;
      scales_kernel.move(groups, gradient.data(), corrected, moments_.data() + k,
                         log_factor_.data() + k);
      scales_kernel.scales(groups, log_factor_.data() + k, start_.data() + k, limits,
                           scales_.data() + k);
    }
  });
}

}  // namespace signround
