// The scalar definition of kernels/cpu/scale_search.h.
#include <algorithm>
#include <cmath>

#include "signround/kernels/cpu/scale_search.h"

namespace signround::kernels {
namespace {

constexpr int64_t kSums = 16;

float loss_of(const float* x, const float* w, int64_t n, float t, float s, float half) {
  float sums[kSums] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float q = std::min(std::max(std::nearbyint(t * x[i]), -half), half - 1);
    const float e = s * q - x[i];
    sums[i % kSums] += w == nullptr ? e * e : e * e * w[i];
  }
  for (int64_t width = kSums / 2; width > 0; width /= 2)
    for (int64_t j = 0; j < width; ++j) sums[j] += sums[j + width];
  return sums[0];
}

}  // namespace

float scale_search_ref(const float* x, const float* w, int64_t n,
                       const ScaleCandidates& candidates) noexcept {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i)
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  if (std::fabs(largest) < kSmallestLargest) return 0;
  const float reciprocal = 1 / largest, half = static_cast<float>(candidates.half);
  float best = 0, best_loss = 0;
  const auto attempt = [&](int j, bool first) {
    const float t = -candidates.multiplier[static_cast<size_t>(j + candidates.steps)] * reciprocal;
    const float s = std::fabs(t) < kSmallestLargest ? 0.0f : 1 / t;
    const float loss = loss_of(x, w, n, t, s, half);
    if (!first && !(loss < best_loss)) return;
    best = s;
    best_loss = loss;
  };
  attempt(0, true);
  for (int j = -candidates.steps; j <= candidates.steps; ++j)
    if (j != 0) attempt(j, false);
  return best;
}

}  // namespace signround::kernels
