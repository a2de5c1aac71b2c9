#include "signround/kernels/cpu/grid_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

struct Inputs {
  std::vector<float> x, w;
};

// Some weights of importance 0, as padding has; some that lie on a boundary between two codes.
Inputs inputs_of(int64_t n, uint64_t seed) {
  Inputs in{testing::random_normal(n, seed, 0.05), testing::random_normal(n, seed + 1)};
  for (size_t i = 0; i < in.x.size(); ++i) {
    in.w[i] *= in.w[i];
    if (i % 7 == 3) in.w[i] = 0;
    if (i % 5 == 2) in.x[i] = 0.0625f * (static_cast<float>(i % 9) - 3.5f);
  }
  return in;
}

std::vector<TrialGrid> grids_of(int count) {
  std::vector<TrialGrid> grids{{0.0625f, -2, 1}, {1e-8f, -8, 7}};
  for (int i = 2; i < count; ++i)
    grids.push_back({(i % 2 == 0 ? 0.02f : -0.02f) * static_cast<float>(i), -4, 3});
  return grids;
}

// Against double: codes only differ where x / scale is within a rounding of a boundary, where both
// lose the same; the rest is n + 4 additions and 4 other roundings of positive terms.
TEST(GridLoss, ReferenceIsTheWeightedErrorOfRoundingAndItsFitTheSumsOfTheCodes) {
  const Inputs in = inputs_of(64, 3);
  const std::vector<TrialGrid> grids = grids_of(9);
  std::vector<float> loss(grids.size());
  grid_losses_ref(in.x.data(), in.w.data(), 64, grids, loss.data());
  for (size_t t = 0; t < grids.size(); ++t) {
    const TrialGrid& g = grids[t];
    const double scale = static_cast<double>(g.scale);
    double want = 0, w = 0, q1 = 0, qq = 0, x1 = 0, xq = 0;
    for (size_t i = 0; i < in.x.size(); ++i) {
      const double x = static_cast<double>(in.x[i]), importance = static_cast<double>(in.w[i]);
      const double q = std::clamp(std::nearbyint(x / scale), static_cast<double>(g.lo),
                                  static_cast<double>(g.hi));
      want += importance * (scale * q - x) * (scale * q - x);
      w += importance, q1 += importance * q, qq += importance * q * q;
      x1 += importance * x, xq += importance * x * q;
    }
    // A term (s q - x)^2 carries two roundings of |x|, up to 2^5 times what is left of it here.
    EXPECT_NEAR(static_cast<double>(loss[t]), want, want * (68 + 128) * 0x1p-24) << t;
    const FitSums fit = grid_fit_ref(in.x.data(), in.w.data(), 64, g);
    const double most_q = static_cast<double>(std::max(-g.lo, g.hi));
    const double bound = 68 * 0x1p-24 * w;
    EXPECT_NEAR(static_cast<double>(fit.w), w, bound);
    EXPECT_NEAR(static_cast<double>(fit.q), q1, bound * most_q) << t;
    EXPECT_NEAR(static_cast<double>(fit.qq), qq, bound * most_q * most_q) << t;
    EXPECT_NEAR(static_cast<double>(fit.x), x1, bound) << t;
    EXPECT_NEAR(static_cast<double>(fit.xq), xq, bound * most_q) << t;
  }
}

TEST(GridLoss, AllKernelsGiveTheReferencesBits) {
  int compared = 0;
  for (const GridLossKernel& kernel : grid_loss_kernels()) {
    if (kernel.why_not() != nullptr) continue;
    for (int64_t n : {16, 32, 64, 128, 1040})
      for (int count : {2, 3, 9}) {
        const Inputs in = inputs_of(n, static_cast<uint64_t>(n));
        const std::vector<TrialGrid> grids = grids_of(count);
        std::vector<float> want(grids.size()), got(grids.size());
        grid_losses_ref(in.x.data(), in.w.data(), n, grids, want.data());
        for_each_hwy_target([&](const char* target) {
          kernel.losses(in.x.data(), in.w.data(), n, grids, got.data());
          for (size_t t = 0; t < grids.size(); ++t) {
            EXPECT_EQ(std::bit_cast<uint32_t>(got[t]), std::bit_cast<uint32_t>(want[t]))
                << kernel.name << " on " << target << ", " << n << ", " << t;
            const FitSums a = kernel.fit(in.x.data(), in.w.data(), n, grids[t]),
                          b = grid_fit_ref(in.x.data(), in.w.data(), n, grids[t]);
            EXPECT_TRUE(a.w == b.w && a.q == b.q && a.qq == b.qq && a.x == b.x && a.xq == b.xq)
                << kernel.name << " on " << target << ", " << n << ", " << t;
            ++compared;
          }
        });
      }
  }
  EXPECT_GE(compared, 5 * 14);
}

}  // namespace
}  // namespace signround::kernels
