#include "signround/quant/scale_tuner.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "signround/base/error.h"
#include "signround/quant/rtn.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

QuantScheme scheme_of(int bits, int64_t group, Symmetry symmetry) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.symmetry = symmetry;
  return scheme;
}

double squared_error(const QuantizedLinear& q, const std::vector<float>& target,
                     std::vector<float>* gradient) {
  std::vector<float> weight(target.size());
  dequantize(q, weight.data());
  double sum = 0;
  if (gradient != nullptr) gradient->resize(target.size());
  for (size_t i = 0; i < target.size(); ++i) {
    const double e = static_cast<double>(weight[i]) - static_cast<double>(target[i]);
    sum += e * e;
    if (gradient != nullptr) (*gradient)[i] = static_cast<float>(2 * e);
  }
  return sum;
}

// The scales that least squares would choose for these codes are found by descent.
TEST(ScaleTuner, FindsTheScalesOfLeastSquares) {
  const int64_t out = 3, in = 80;  // the last group is short
  const auto w = testing::random_normal(out * in, 1, 0.05);
  for (Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym}) {
    QuantScheme scheme = scheme_of(2, 32, symmetry);
    scheme.scale_dtype = DType::kF32;
    SCOPED_TRACE(describe(scheme));
    QuantizedLinear q = rtn(w.data(), out, in, scheme);
    QuantizedLinear best = q;
    for (size_t k = 0; k < q.scales.size(); ++k) {
      double wq = 0, qq = 0;
      const size_t row = k / 3, first = k % 3 * 32, last = std::min<size_t>(80, first + 32);
      for (size_t i = row * 80 + first; i < row * 80 + last; ++i) {
        const double code = static_cast<double>(q.codes[i]) - static_cast<double>(q.zeros[k]);
        wq += code * static_cast<double>(w[i]);
        qq += code * code;
      }
      best.scales[k] = static_cast<float>(wq / qq);
    }
    for (float& scale : q.scales) scale *= 0.5f;
    ScaleTuner tuner(q);
    std::vector<float> gradient;
    const double before = squared_error(q, w, nullptr);
    for (int i = 0; i < 400; ++i) {
      q.scales = tuner.scales();
      squared_error(q, w, &gradient);
      tuner.step(q, gradient.data(), in, 0.02 * (1 - i / 400.0));
    }
    q.scales = tuner.scales();
    EXPECT_GT(before, 1.05 * squared_error(best, w, nullptr));
    // The last steps are 5e-5 of a scale's logarithm; the error is flat there.
    EXPECT_NEAR(squared_error(q, w, nullptr), squared_error(best, w, nullptr), 1e-4 * before);
  }
}

TEST(ScaleTuner, BeginsAtTheGivenScalesAndIgnoresGradientsThatAreNotFinite) {
  const auto w = testing::random_normal(2 * 64, 2, 0.05);
  const QuantizedLinear q = rtn(w.data(), 2, 64, scheme_of(4, 32, Symmetry::kFullRange));
  ScaleTuner tuner(q);
  EXPECT_EQ(tuner.scales(), q.scales);
  const std::vector<float> bad(w.size(), std::numeric_limits<float>::quiet_NaN());
  tuner.step(q, bad.data(), 64, 0.1);
  EXPECT_EQ(tuner.scales(), q.scales);
}

TEST(ScaleTuner, RefusesALayerOfAnotherScheme) {
  const auto w = testing::random_normal(2 * 64, 3, 0.05);
  ScaleTuner tuner(rtn(w.data(), 2, 64, scheme_of(4, 32, Symmetry::kFullRange)));
  const QuantizedLinear other = rtn(w.data(), 2, 64, scheme_of(4, 64, Symmetry::kFullRange));
  EXPECT_THROW(tuner.step(other, w.data(), 64, 0.1), Error);
}

}  // namespace
}  // namespace signround
