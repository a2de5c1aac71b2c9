#include "signround/quant/scale_tuner.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/quant/grid.h"

namespace signround {

namespace {

// sum of d (code - zero), in lanes so that it becomes vectors.
double dot(const float* d, const uint8_t* codes, float zero, int64_t n) {
  constexpr int64_t kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j)
      lanes[j] += d[i + j] * (static_cast<float>(codes[i + j]) - zero);
  double sum = 0;
  for (float lane : lanes) sum += static_cast<double>(lane);
  for (; i < n; ++i) sum += static_cast<double>(d[i] * (static_cast<float>(codes[i]) - zero));
  return sum;
}

}  // namespace

void FactorTuner::step(std::span<const float> gradient, std::span<const float> value, double lr) {
  require(gradient.size() == log_factor_.size() && value.size() == log_factor_.size(),
          "factor_tuner", "gradients of ", gradient.size(), " and ", value.size(),
          " values, expected ", log_factor_.size());
  const double corrected = corrected_scale_lr(lr, ++steps_);
  for (size_t i = 0; i < log_factor_.size(); ++i)
    log_factor_[i] += adam_change(
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
      log_factor_(linear.scales.size()),
      moments_(linear.scales.size()) {}

int64_t ScaleTuner::bytes(int64_t out, int64_t in, const QuantScheme& scheme) {
  return out * scheme.groups(in) * static_cast<int64_t>(2 * sizeof(float) + sizeof(ScaleMoments));
}

float ScaleTuner::scale(size_t k) const {
  if (log_factor_[k] == 0) return start_[k];
  return floored_scale(start_[k] * std::exp(log_factor_[k]), scheme_.scale_dtype);
}

std::vector<float> ScaleTuner::scales() const {
  std::vector<float> result(start_.size());
  for (size_t k = 0; k < result.size(); ++k) result[k] = scale(k);
  return result;
}

void ScaleTuner::step(const QuantizedLinear& linear, const float* d_weight, int64_t stride,
                      double lr) {
  const int64_t in = linear.in, group = scheme_.group(in), groups = scheme_.groups(in);
  require(linear.scheme == scheme_ && linear.out * groups == static_cast<int64_t>(start_.size()) &&
              stride >= in,
          "scale_tuner", "a layer of another size or scheme");
  const double corrected = corrected_scale_lr(lr, ++steps_);
  parallel_for(linear.out, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* d_row = d_weight + r * stride;
      const uint8_t* codes = linear.codes.data() + r * in;
      for (int64_t g = 0; g < groups; ++g) {
        const auto k = static_cast<size_t>(r * groups + g);
        const float zero = linear.zeros[k];
        // weight = scale (code - zero), so d loss / d scale = sum of d_weight (code - zero).
        const int64_t first = g * group;
        const double sum = dot(d_row + first, codes + first, zero, std::min(in - first, group));
        log_factor_[k] += adam_change(moments_[k], sum * static_cast<double>(scale(k)), corrected);
      }
    }
  });
}

}  // namespace signround
