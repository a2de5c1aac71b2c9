#include "signround/quant/awq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "signround/quant/rtn.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

constexpr int64_t kIn = 64, kOut = 24, kTokens = 96;

QuantScheme three_bits() {
  QuantScheme scheme;
  scheme.bits = 3;
  scheme.group_size = 32;
  return scheme;
}

struct Problem {
  std::vector<float> x, w;
  std::vector<double> sum_abs;
  std::vector<int64_t> channel;
  int64_t channels = kIn;

  // loud: every 16th input is this many times as large as the others.
  explicit Problem(float loud) : sum_abs(kIn), channel(kIn) {
    std::iota(channel.begin(), channel.end(), int64_t{0});
    w = testing::random_normal(kOut * kIn, 3);
    x = testing::random_normal(kTokens * kIn, 4);
    for (size_t i = 0; i < x.size(); ++i) {
      if (i % 16 == 5) x[i] *= loud;
      sum_abs[i % kIn] += std::fabs(x[i]);
    }
  }
  AwqInput input() const {
    return {.in = kIn,
            .rows = kTokens,
            .x = x.data(),
            .sum_abs = sum_abs,
            .channel = channel,
            .channels = channels};
  }
  AwqScales search(const QuantScheme& scheme) const {
    const std::vector<AwqLayer> layers = {{w.data(), kOut, scheme}};
    return awq_search(input(), layers);
  }
  // In double, from the definition: rounding of W diag(s), divided by s again.
  double error(const std::vector<float>& s, const QuantScheme& scheme) const {
    std::vector<float> scaled(w);
    const auto factor = [&](size_t i) { return s[static_cast<size_t>(channel[i % kIn])]; };
    for (size_t i = 0; i < w.size(); ++i) scaled[i] *= factor(i);
    dequantize(rtn(scaled.data(), kOut, kIn, scheme), scaled.data());
    double sum = 0;
    for (int64_t t = 0; t < kTokens; ++t)
      for (int64_t o = 0; o < kOut; ++o) {
        double y = 0;
        for (int64_t c = 0; c < kIn; ++c) {
          const auto k = static_cast<size_t>(o * kIn + c);
          y += double(x[static_cast<size_t>(t * kIn + c)]) *
               (double(scaled[k]) / double(factor(k)) - double(w[k]));
        }
        sum += y * y;
      }
    return sum;
  }
};

TEST(Awq, LoudChannelsAreRoundedMoreFinely) {
  const Problem problem(30);
  const AwqScales found = problem.search(three_bits());
  EXPECT_GT(found.ratio, 0);
  EXPECT_GT(found.scales[5], 2 * found.scales[6]);
  EXPECT_LT(found.error, 0.7 * found.plain_error);
}

TEST(Awq, ErrorsAreThoseOfTheLayersOutputs) {
  const Problem problem(30);
  const AwqScales found = problem.search(three_bits());
  const std::vector<float> ones(kIn, 1.0f);
  // f32 sums of 64 products: relative 64 * 2^-24 of the terms' magnitudes, far below 1e-4 of sums.
  const double plain = problem.error(ones, three_bits());
  EXPECT_NEAR(found.plain_error, plain, 1e-4 * plain);
  const double error = problem.error(found.scales, three_bits());
  EXPECT_NEAR(found.error, error, 1e-4 * error);
}

TEST(Awq, NoOtherRatioIsBetter) {
  const Problem problem(8);
  const AwqScales found = problem.search(three_bits());
  double mean = 0;
  for (const double sum : problem.sum_abs) mean += sum / kIn;
  for (int i = 0; i < 20; ++i) {
    std::vector<float> s;
    for (const double sum : problem.sum_abs)
      s.push_back(static_cast<float>(std::pow(sum / mean, i / 20.0)));
    const float middle = std::sqrt(*std::min_element(s.begin(), s.end()) *
                                   *std::max_element(s.begin(), s.end()));
    for (float& v : s) v /= middle;
    EXPECT_LE(found.error, problem.error(s, three_bits()) * (1 + 1e-4)) << i;
  }
}

TEST(Awq, InputsOfOneChannelShareItsFactor) {
  Problem problem(30);
  for (int64_t c = 0; c < kIn; ++c) problem.channel[static_cast<size_t>(c)] = c % (kIn / 2);
  problem.channels = kIn / 2;
  const AwqScales found = problem.search(three_bits());
  ASSERT_EQ(found.scales.size(), static_cast<size_t>(kIn / 2));
  const double error = problem.error(found.scales, three_bits());
  EXPECT_NEAR(found.error, error, 1e-4 * error);
}

TEST(Awq, KeepsOnesWhereNothingHelps) {
  Problem problem(1);
  std::fill(problem.x.begin(), problem.x.end(), 0.0f);
  const AwqScales found = problem.search(three_bits());
  EXPECT_EQ(found.ratio, 0);
  EXPECT_EQ(found.scales, std::vector<float>(kIn, 1.0f));
}

TEST(Awq, AWeightThatIsNotFiniteCountsAsZero) {
  Problem problem(30);
  problem.w[7] = 0;
  const AwqScales zero = problem.search(three_bits());
  problem.w[7] = std::nanf("");
  const AwqScales nan = problem.search(three_bits());
  EXPECT_EQ(nan.scales, zero.scales);
  EXPECT_EQ(nan.error, zero.error);
}

}  // namespace
}  // namespace signround
