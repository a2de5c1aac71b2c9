// Learns the scales of a rounded layer whose integers stay as they are: each scale's logarithm
// moves by Adam (arXiv 1412.6980).
#pragma once

#include <cmath>
#include <span>
#include <vector>

#include "signround/kernels/cpu/scale_step.h"
#include "signround/quant/scheme.h"

namespace signround {

using kernels::ScaleMoments;

// lr with Adam's correction for means that began at 0; step counts from 1.
inline double corrected_scale_lr(double lr, int64_t step) {
  const double t = static_cast<double>(step);
  return lr * std::sqrt(1 - std::pow(kernels::kScaleBeta2, t)) /
         (1 - std::pow(kernels::kScaleBeta1, t));
}

// Factors of single numbers, such as a norm's weights: value = start * exp(t), each t moved by Adam
// as a scale's logarithm is.
class FactorTuner {
 public:
  explicit FactorTuner(size_t count) : log_factor_(count), moments_(count) {}
  // gradient[i]: of the loss by value i, which is now value[i].
  void step(std::span<const float> gradient, std::span<const float> value, double lr);
  std::vector<float> factors() const;  // exp(t)

 private:
  std::vector<float> log_factor_;
  std::vector<ScaleMoments> moments_;
  int64_t steps_ = 0;
};

class ScaleTuner {
 public:
  // Begins at the scales of `linear`.
  explicit ScaleTuner(const QuantizedLinear& linear);

  // One step along the gradient of the loss by the layer's weight, (out, in) f32 with `stride`
  // elements from row to row. linear: codes and zero points; its scales are not read.
  void step(const QuantizedLinear& linear, const float* d_weight, int64_t stride, double lr);

  // (out, groups), as scale_dtype holds them.
  const std::vector<float>& scales() const { return scales_; }

  static int64_t bytes(int64_t out, int64_t in, const QuantScheme& scheme);

 private:
  QuantScheme scheme_;
  std::vector<float> start_, scales_, log_factor_;
  std::vector<ScaleMoments> moments_;
  int64_t steps_ = 0;
};

}  // namespace signround
