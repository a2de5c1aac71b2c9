#include "signround/quant/vector_tuner.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/tensor/dtype.h"

namespace signround {
namespace {

constexpr float kSmallestStep = 1e-5f;

float sign(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : 0.0f; }  // 0 of what is no number

}  // namespace

VectorGrid vector_grid(std::span<const float> w) {
  float lo = 0, hi = 0;
  for (float v : w) lo = std::min(lo, v), hi = std::max(hi, v);
  return {lo, std::max(round_to_f16((hi - lo) / 15), kSmallestStep)};
}

VectorTuner::VectorTuner(std::span<const float> w, double lr, double momentum)
    : w_(w.begin(), w.end()),
      v_(w.size()),
      best_(w.size()),
      buffer_(momentum != 0 ? w.size() : 0),
      grid_(vector_grid(w)),
      lr_(lr),
      momentum_(momentum) {
  require(lr >= 0 && momentum >= 0, "vector_tuner", "lr ", lr, ", momentum ", momentum,
          ", expected none below 0");
}

void VectorTuner::write(std::span<float> value) const {
  require(value.size() == w_.size(), "vector_tuner", "place for ", value.size(),
          " values, expected ", w_.size());
  for (size_t i = 0; i < w_.size(); ++i) value[i] = vector_value(w_[i], v_[i], grid_);
}

void VectorTuner::step(std::span<const float> gradient, double decay) {
  require(gradient.size() == w_.size(), "vector_tuner", "gradients of ", gradient.size(),
          " values, expected ", w_.size());
  const auto lr = static_cast<float>(decay * lr_);
  for (size_t i = 0; i < w_.size(); ++i) {
    float d = vector_value_bwd(w_[i], v_[i], grid_, gradient[i]);
    if (!buffer_.empty()) d = buffer_[i] = static_cast<float>(momentum_) * buffer_[i] + d;
    v_[i] -= lr * sign(d);
  }
}

void VectorTuner::restart() {
  std::fill(v_.begin(), v_.end(), 0.0f);
  std::fill(buffer_.begin(), buffer_.end(), 0.0f);
}

void VectorTuner::keep_best() { best_ = v_; }

std::vector<float> VectorTuner::finish() const {
  std::vector<float> value(w_.size());
  for (size_t i = 0; i < w_.size(); ++i) value[i] = vector_value(w_[i], best_[i], grid_);
  return value;
}

int64_t VectorTuner::bytes(int64_t size, double momentum) {
  return size * static_cast<int64_t>(sizeof(float)) * (momentum != 0 ? 4 : 3);
}

}  // namespace signround
