// The scalar definition of kernels/cpu/grid_loss.h.
#include <algorithm>
#include <cmath>

#include "signround/kernels/cpu/grid_loss.h"

namespace signround::kernels {
namespace {

constexpr int64_t kSums = 16;

class OrderedSum {
 public:
  void add(int64_t i, float term) { sums_[i % kSums] += term; }
  float total() {
    for (int64_t width = kSums / 2; width > 0; width /= 2)
      for (int64_t j = 0; j < width; ++j) sums_[j] += sums_[j + width];
    return sums_[0];
  }

 private:
  float sums_[kSums] = {};
};

float code(float x, const TrialGrid& grid) {
  return std::min(std::max(std::nearbyint(x * (1 / grid.scale)), grid.lo), grid.hi);
}

}  // namespace

void grid_losses_ref(const float* x, const float* w, int64_t n, std::span<const TrialGrid> grids,
                     float* loss) noexcept {
  for (const TrialGrid& grid : grids) {
    OrderedSum sum;
    for (int64_t i = 0; i < n; ++i) {
      const float e = grid.scale * code(x[i], grid) - x[i];
      sum.add(i, w[i] * e * e);
    }
    *loss++ = sum.total();
  }
}

FitSums grid_fit_ref(const float* x, const float* w, int64_t n, const TrialGrid& grid) noexcept {
  OrderedSum sum_w, sum_q, sum_qq, sum_x, sum_xq;
  for (int64_t i = 0; i < n; ++i) {
    const float q = code(x[i], grid), wq = w[i] * q, wx = w[i] * x[i];
    sum_w.add(i, w[i]);
    sum_q.add(i, wq);
    sum_qq.add(i, wq * q);
    sum_x.add(i, wx);
    sum_xq.add(i, wx * q);
  }
  return {sum_w.total(), sum_q.total(), sum_qq.total(), sum_x.total(), sum_xq.total()};
}

}  // namespace signround::kernels
