#include "signround/quant/gptq.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

using Numbers = std::vector<double>;

QuantScheme scheme_of(int bits, int64_t group, Symmetry symmetry) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.symmetry = symmetry;
  return scheme;
}

// X^T X of inputs that hang together, as those of real layers do.
std::vector<float> hessian_of(int64_t in, int64_t tokens, uint64_t seed) {
  const auto noise = testing::random_normal(tokens * in, seed);
  const auto common = testing::random_normal(tokens, seed + 1);
  const auto size = testing::random_normal(in, seed + 2);
  std::vector<float> x(noise.size()), h(static_cast<size_t>(in * in));
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < in; ++i) {
      const auto k = static_cast<size_t>(t * in + i);
      x[k] =
          std::exp(size[static_cast<size_t>(i)]) * (noise[k] + 2 * common[static_cast<size_t>(t)]);
    }
  for (int64_t i = 0; i < in; ++i)
    for (int64_t j = 0; j < in; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < tokens; ++t)
        sum += static_cast<double>(x[static_cast<size_t>(t * in + i)]) *
               static_cast<double>(x[static_cast<size_t>(t * in + j)]);
      h[static_cast<size_t>(i * in + j)] = static_cast<float>(sum);
    }
  return h;
}

// sum over rows of e H e^T: the squared error of the layer's output.
double output_error(const QuantizedLinear& q, const std::vector<float>& w,
                    const std::vector<float>& h) {
  std::vector<float> rounded(w.size());
  dequantize(q, rounded.data());
  const int64_t in = q.in;
  double sum = 0;
  for (int64_t r = 0; r < q.out; ++r)
    for (int64_t i = 0; i < in; ++i)
      for (int64_t j = 0; j < in; ++j)
        sum += (static_cast<double>(rounded[static_cast<size_t>(r * in + i)]) -
                static_cast<double>(w[static_cast<size_t>(r * in + i)])) *
               static_cast<double>(h[static_cast<size_t>(i * in + j)]) *
               (static_cast<double>(rounded[static_cast<size_t>(r * in + j)]) -
                static_cast<double>(w[static_cast<size_t>(r * in + j)]));
  return sum;
}

// Gauss-Jordan.
Numbers inverse(Numbers a, size_t n) {
  Numbers b(n * n);
  for (size_t i = 0; i < n; ++i) b[i * n + i] = 1;
  for (size_t i = 0; i < n; ++i) {
    const double pivot = a[i * n + i];
    for (size_t j = 0; j < n; ++j) a[i * n + j] /= pivot, b[i * n + j] /= pivot;
    for (size_t r = 0; r < n; ++r) {
      if (r == i) continue;
      const double f = a[r * n + i];
      for (size_t j = 0; j < n; ++j)
        a[r * n + j] -= f * a[i * n + j], b[r * n + j] -= f * b[i * n + j];
    }
  }
  return b;
}

// The method without its shortcuts (equation 2 of arXiv 2210.17323): before each column the inverse
// of what is left of the Hessian is computed anew. One row, in double; grids are those of the
// range.
std::vector<uint8_t> reference_codes(const float* w, const QuantizedLinear& grids, int64_t row,
                                     const std::vector<float>& hessian,
                                     const std::vector<int64_t>& order, double damp) {
  const auto n = static_cast<size_t>(grids.in);
  double mean = 0;
  for (size_t i = 0; i < n; ++i)
    mean += static_cast<double>(hessian[i * n + i]) / static_cast<double>(n);
  Numbers left(w, w + n);
  std::vector<uint8_t> codes(n);
  for (size_t step = 0; step < n; ++step) {
    const size_t m = n - step;
    Numbers h(m * m);
    for (size_t i = 0; i < m; ++i)
      for (size_t j = 0; j < m; ++j)
        h[i * m + j] = static_cast<double>(hessian[static_cast<size_t>(order[step + i]) * n +
                                                   static_cast<size_t>(order[step + j])]) +
                       (i == j ? damp * mean : 0);
    const Numbers inv = inverse(std::move(h), m);
    const auto column = static_cast<size_t>(order[step]);
    const size_t k = static_cast<size_t>(row * grids.groups()) +
                     column / static_cast<size_t>(grids.scheme.group(grids.in));
    const double scale = static_cast<double>(grids.scales[k]), zero = grids.zeros[k];
    const double code = std::clamp(std::nearbyint(left[column] / scale) + zero, 0.0,
                                   static_cast<double>(grids.scheme.max_code()));
    codes[column] = static_cast<uint8_t>(code);
    const double error = (left[column] - scale * (code - zero)) / inv[0];
    for (size_t i = 0; i < m; ++i) left[static_cast<size_t>(order[step + i])] -= error * inv[i];
  }
  return codes;
}

TEST(Gptq, IsTheMethodWithoutItsShortcuts) {
  const int64_t out = 5, in = 40;
  const auto w = testing::random_normal(out * in, 1, 0.05);
  const auto h = hessian_of(in, 100, 2);
  for (Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    const QuantScheme scheme = scheme_of(4, 16, symmetry);
    SCOPED_TRACE(describe(scheme));
    const GptqOptions options;
    const GptqFactor factor = gptq_factor(h, in, options);
    const auto got = gptq(w.data(), out, in, scheme, factor, options);
    const auto grids = rtn(w.data(), out, in, scheme);
    EXPECT_EQ(got.scales, grids.scales);
    EXPECT_NE(got.codes, grids.codes);
    int different = 0;
    for (int64_t r = 0; r < out; ++r) {
      const auto want = reference_codes(w.data() + r * in, grids, r, h, factor.order, options.damp);
      for (int64_t i = 0; i < in; ++i)
        different += got.codes[static_cast<size_t>(r * in + i)] != want[static_cast<size_t>(i)];
    }
    // f32 against double: a value that lies within 1e-5 of the middle of two codes may fall to
    // either side.
    EXPECT_LE(different, 1);
  }
}

TEST(Gptq, LosesLessOfTheOutputThanRoundToNearest) {
  const int64_t out = 16, in = 300;  // three blocks of columns, a short last group
  const auto w = testing::random_normal(out * in, 3, 0.05);
  const auto h = hessian_of(in, 900, 4);
  for (bool act_order : {false, true}) {
    for (int bits : {2, 4}) {
      const QuantScheme scheme = scheme_of(bits, 64, Symmetry::kAsym);
      const GptqOptions options{.act_order = act_order};
      SCOPED_TRACE(describe(scheme) + (act_order ? " act-order" : ""));
      const auto got = gptq(w.data(), out, in, scheme, gptq_factor(h, in, options), options);
      EXPECT_LT(output_error(got, w, h), 0.6 * output_error(rtn(w.data(), out, in, scheme), w, h));
    }
  }
}

TEST(Gptq, IndependentInputsMeanRoundToNearest) {
  const int64_t out = 3, in = 150;
  std::vector<float> h(static_cast<size_t>(in * in));
  for (int64_t i = 0; i < in; ++i)
    h[static_cast<size_t>(i * in + i)] = 1.0f + static_cast<float>(i % 7);
  const auto w = testing::random_normal(out * in, 5, 0.05);
  const QuantScheme scheme = scheme_of(3, 32, Symmetry::kFullRange);
  for (bool act_order : {false, true}) {
    const GptqOptions options{.act_order = act_order};
    const auto got = gptq(w.data(), out, in, scheme, gptq_factor(h, in, options), options);
    const auto want = rtn(w.data(), out, in, scheme);
    EXPECT_EQ(got.codes, want.codes);
    EXPECT_EQ(got.scales, want.scales);
  }
}

TEST(Gptq, ActOrderTakesLargeInputsFirst) {
  std::vector<float> h = {1, 0, 0, 0, 9, 0, 0, 0, 4};
  EXPECT_EQ(gptq_factor(h, 3, {}).order, (std::vector<int64_t>{1, 2, 0}));
  EXPECT_EQ(gptq_factor(h, 3, {.act_order = false}).order, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Gptq, InputsThatWereNeverSeenAreCountedAndTheirWeightsBecomeZero) {
  const int64_t in = 32;
  auto h = hessian_of(in, 80, 6);
  for (int64_t i = 0; i < in; ++i)
    h[static_cast<size_t>(i * in + 5)] = h[static_cast<size_t>(5 * in + i)] = 0;
  const auto w = testing::random_normal(2 * in, 7, 0.05);
  const GptqFactor factor = gptq_factor(h, in, {});
  EXPECT_EQ(factor.dead, 1);
  const auto q = gptq(w.data(), 2, in, scheme_of(4, 32, Symmetry::kAsym), factor, {});
  std::vector<float> rounded(w.size());
  dequantize(q, rounded.data());
  EXPECT_EQ(rounded[5], 0);
  EXPECT_EQ(rounded[static_cast<size_t>(in + 5)], 0);
}

// Fewer tokens than inputs, all alike: singular without damping. One that no damping helps is
// rounded to nearest.
TEST(Gptq, DampingEscalatesAndThenGivesUp) {
  const int64_t in = 24;
  EXPECT_FALSE(gptq_factor(hessian_of(in, 3, 8), in, {.damp = 1e-2}).upper.empty());
  auto h = hessian_of(in, 100, 9);
  EXPECT_EQ(gptq_factor(h, in, {.damp = 0.01}).damp, 0.01);
  // Not a matrix of second moments: the first two inputs hang together more than they can.
  h.assign(h.size(), 0);
  for (int64_t i = 0; i < in; ++i) h[static_cast<size_t>(i * in + i)] = 1;
  h[1] = h[static_cast<size_t>(in)] = 1.3f;  // the smallest eigenvalue is -0.3
  const GptqFactor escalated = gptq_factor(h, in, {.damp = 0.001});
  EXPECT_FALSE(escalated.upper.empty());
  EXPECT_NEAR(escalated.damp, 1.0, 1e-9);
  h[1] *= 1e6f;
  const GptqFactor failed = gptq_factor(h, in, {});
  EXPECT_TRUE(failed.upper.empty());
  const auto w = testing::random_normal(2 * in, 10, 0.05);
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kAsym);
  GptqNotes notes;
  EXPECT_EQ(gptq(w.data(), 2, in, scheme, failed, {}, &notes).codes,
            rtn(w.data(), 2, in, scheme).codes);
  EXPECT_TRUE(notes.plain_rtn);
}

TEST(Gptq, RefusesWhatIsNoHessian) {
  testing::expect_error(ErrorKind::kInvalidArgument, "second moment of input 1", [] {
    gptq_factor({1, 0, 0, -1}, 2, {});
  });
  testing::expect_error(ErrorKind::kInvalidArgument, "second moment of input 0", [] {
    gptq_factor({std::numeric_limits<float>::quiet_NaN(), 0, 0, 1}, 2, {});
  });
  testing::expect_error(ErrorKind::kInvalidArgument, "3 numbers for 2", [] {
    gptq_factor({1, 0, 1}, 2, {});
  });
}

}  // namespace
}  // namespace signround
