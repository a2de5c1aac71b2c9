#include "signround/quant/scale_start.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "signround/quant/rtn.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

using signround::testing::expect_error;

QuantScheme scheme_of(int bits, int64_t group, Symmetry symmetry) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.symmetry = symmetry;
  return scheme;
}

double weighted_error(const QuantizedLinear& q, const std::vector<float>& w,
                      const std::vector<float>& importance) {
  std::vector<float> rounded(w.size());
  dequantize(q, rounded.data());
  double sum = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double e = static_cast<double>(rounded[i]) - static_cast<double>(w[i]);
    sum += static_cast<double>(importance[i % importance.size()]) * e * e;
  }
  return sum;
}

TEST(ScaleStart, LosesLessThanRoundToNearest) {
  const int64_t out = 24, in = 200;  // the last group of 64 is short
  const auto w = testing::random_normal(out * in, 1, 0.05);
  auto importance = testing::random_normal(in, 2);
  for (float& v : importance) v = v * v + 0.01f;
  for (Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    for (int bits : {2, 3, 4, 8}) {
      for (int64_t group : {int64_t{32}, int64_t{64}, int64_t{-1}}) {
        const QuantScheme scheme = scheme_of(bits, group, symmetry);
        SCOPED_TRACE(describe(scheme));
        const double plain = weighted_error(rtn(w.data(), out, in, scheme), w, importance);
        const double found = weighted_error(
            search_start(w.data(), out, in, scheme, importance.data()), w, importance);
        EXPECT_LE(found, plain);
        // The mean-squared error of 2 bits under the range of the weights is far from the best.
        if (bits == 2) {
          EXPECT_LT(found, 0.8 * plain);
        }
      }
    }
  }
}

// No factor that is tried is the right one: the least-squares fit finds the grid that the weights
// lie on.
TEST(ScaleStart, FindsTheGridThatWeightsLieOn) {
  const int64_t out = 4, in = 64;
  const float step = 0.1240234375f;  // held by F16
  std::vector<float> w = testing::random_normal(out * in, 3, 3.0);
  double signal = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = step * (i % in == 0   ? -7.0f
                   : i % in == 1 ? 6.0f
                                 : std::clamp(std::nearbyint(w[i]), -7.0f, 6.0f));
    signal += static_cast<double>(w[i]) * static_cast<double>(w[i]);
  }
  for (Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    const QuantScheme scheme = scheme_of(4, 64, symmetry);
    SCOPED_TRACE(describe(scheme));
    EXPECT_GT(weighted_error(rtn(w.data(), out, in, scheme), w, {1.0f}), 1e-4 * signal);
    EXPECT_EQ(weighted_error(search_start(w.data(), out, in, scheme, nullptr), w, {1.0f}), 0.0);
  }
}

TEST(ScaleStart, UnimportantWeightsAreClamped) {
  const QuantScheme scheme = scheme_of(2, 16, Symmetry::kFullRange);
  std::vector<float> w(16, 0.1f), importance(16, 1.0f);
  for (size_t i = 0; i < 8; ++i) w[i] = -0.1f;
  w[3] = 0.65f, importance[3] = 0;
  const auto found = search_start(w.data(), 1, 16, scheme, importance.data());
  std::vector<float> rounded(16);
  dequantize(found, rounded.data());
  EXPECT_LT(std::fabs(rounded[3]), 0.3f);
  const auto even = search_start(w.data(), 1, 16, scheme, nullptr);
  dequantize(even, rounded.data());
  EXPECT_GT(std::fabs(rounded[3]), 0.6f);
}

TEST(ScaleStart, WeightsThatAreNotFiniteAreCounted) {
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kAsym);
  auto w = testing::random_normal(64, 4);
  w[40] = std::numeric_limits<float>::quiet_NaN();
  NonFinite found;
  const auto q = search_start(w.data(), 1, 64, scheme, nullptr, &found);
  EXPECT_EQ(found.count, 1);
  EXPECT_EQ(q.codes.size(), 64u);
  EXPECT_TRUE(std::isfinite(q.scales[0]) && std::isfinite(q.scales[1]));
}

TEST(ScaleStart, RefusesImportanceBelowZero) {
  const auto w = testing::random_normal(32, 5);
  std::vector<float> importance(32, 1.0f);
  importance[7] = -1;
  expect_error(ErrorKind::kInvalidArgument, "channel 7", [&] {
    search_start(w.data(), 1, 32, scheme_of(4, 32, Symmetry::kFullRange), importance.data());
  });
}

}  // namespace
}  // namespace signround
