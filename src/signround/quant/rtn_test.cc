#include "signround/quant/rtn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/quant/grid.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

std::vector<BF16> to_bf16(const std::vector<float>& f) {
  std::vector<BF16> w;
  for (float v : f) w.push_back(signround::to_bf16(v));
  return w;
}

QuantScheme scheme_of(int bits, int64_t group, Symmetry symmetry = Symmetry::kFullRange) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.symmetry = symmetry;
  return scheme;
}

// The definition of grid.h, one weight at a time.
void expect_is_definition(const QuantizedLinear& q, const std::vector<float>& w) {
  const int64_t group = q.scheme.group(q.in), groups = q.groups();
  for (int64_t row = 0; row < q.out; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * group, end = std::min(q.in, begin + group);
      GroupRange<float> range;
      for (int64_t i = begin; i < end; ++i) {
        range.min = std::min(range.min, w[static_cast<size_t>(row * q.in + i)]);
        range.max = std::max(range.max, w[static_cast<size_t>(row * q.in + i)]);
      }
      const auto grid = group_grid_fwd<float>(q.scheme, range, 1.0f, 1.0f);
      const size_t k = static_cast<size_t>(row * groups + g);
      ASSERT_EQ(q.scales[k], grid.scale) << "row " << row << " group " << g;
      ASSERT_EQ(q.zeros[k], grid.zero) << "row " << row << " group " << g;
      for (int64_t i = begin; i < end; ++i) {
        const size_t at = static_cast<size_t>(row * q.in + i);
        const float want = fake_quant_fwd(w[at], 0.0f, grid, q.scheme.max_code());
        ASSERT_EQ(q.scales[k] * static_cast<float>(q.codes[at] - q.zeros[k]), want)
            << "row " << row << " column " << i;
      }
    }
  }
}

TEST(Rtn, IsTheDefinitionForEveryGridGroupAndRowLength) {
  for (const Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic})
    for (const int bits : {2, 3, 4, 8})
      for (const int64_t group : {int64_t{-1}, int64_t{32}, int64_t{128}})
        for (const int64_t in : {1, 31, 32, 100, 129, 256}) {
          SCOPED_TRACE(::testing::Message()
                       << describe(scheme_of(bits, group, symmetry)) << " in " << in);
          const auto w = testing::random_normal(5 * in, 7, 0.05);
          expect_is_definition(rtn(w.data(), 5, in, scheme_of(bits, group, symmetry)), w);
        }
}

TEST(Rtn, Bf16RowsGiveWhatTheirValuesGive) {
  auto w = testing::random_normal(7 * 160, 3, 0.05);
  const auto half = to_bf16(w);
  for (size_t i = 0; i < w.size(); ++i) w[i] = to_f32(half[i]);
  const auto scheme = scheme_of(4, 64);
  const auto a = rtn(w.data(), 7, 160, scheme), b = rtn(half.data(), 7, 160, scheme);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
}

TEST(Rtn, DoesNotDependOnTheNumberOfThreads) {
  const auto w = testing::random_normal(65 * 1024, 4, 0.05);
  set_num_threads(1);
  const auto a = rtn(w.data(), 65, 1024, scheme_of(3, 128));
  set_num_threads(3);
  const auto b = rtn(w.data(), 65, 1024, scheme_of(3, 128));
  set_num_threads(0);
  EXPECT_EQ(a.codes, b.codes);
  EXPECT_EQ(a.scales, b.scales);
}

TEST(Rtn, AGroupOfZerosStaysZero) {
  const std::vector<float> w(64, 0.0f);
  for (const Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    const auto q = rtn(w.data(), 1, 64, scheme_of(4, 32, symmetry));
    for (uint8_t code : q.codes) EXPECT_EQ(code, q.zeros[0]);
  }
}

TEST(Rtn, CountsWeightsThatAreNotFiniteAndRoundsTheOthersAsIfTheyWereNotThere) {
  const float inf = std::numeric_limits<float>::infinity();
  auto w = testing::random_normal(3 * 64, 5, 0.05);
  auto clean = w;
  w[70] = std::numeric_limits<float>::quiet_NaN();
  w[71] = -inf;
  w[150] = inf;
  const auto largest = [&](size_t begin) {
    float m = 0;
    for (size_t i = begin; i < begin + 32; ++i)
      if (std::isfinite(w[i])) m = std::max(m, std::fabs(w[i]));
    return m;
  };
  clean[70] = 0;
  clean[71] = -largest(64);
  clean[150] = largest(128);
  NonFinite found;
  const auto q = rtn(w.data(), 3, 64, scheme_of(4, 32), &found);
  EXPECT_EQ(found.count, 3);
  EXPECT_EQ(found.first, 70);
  expect_is_definition(q, clean);
}

TEST(Rtn, AGroupWithNothingFiniteIsZero) {
  const std::vector<float> w(32, std::numeric_limits<float>::infinity());
  NonFinite found;
  const auto q = rtn(w.data(), 1, 32, scheme_of(4, 32), &found);
  EXPECT_EQ(found.count, 32);
  for (uint8_t code : q.codes) EXPECT_EQ(code, 8);
}

TEST(Rtn, HugeWeightsGiveFiniteScalesAndCodesInRange) {
  const float huge = std::numeric_limits<float>::max();
  const std::vector<float> w = {huge, -huge, huge / 2, 1.0f, 0.0f, -1e30f, 1e-40f, -1e-40f};
  for (const Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic})
    for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
      auto scheme = scheme_of(3, -1, symmetry);
      scheme.scale_dtype = dtype;
      const auto q = rtn(w.data(), 1, 8, scheme);
      EXPECT_TRUE(std::isfinite(q.scales[0])) << describe(scheme);
      for (uint8_t code : q.codes) EXPECT_LE(code, 7) << describe(scheme);
    }
}

TEST(Rtn, RefusesSizesAndSchemesThatCannotBeRounded) {
  const float w = 1;
  EXPECT_THROW(rtn(&w, 0, 1, scheme_of(4, 32)), Error);
  EXPECT_THROW(rtn(&w, 1, -1, scheme_of(4, 32)), Error);
  EXPECT_THROW(rtn(&w, int64_t{1} << 62, 4, scheme_of(4, 32)), Error);
  EXPECT_THROW(rtn(&w, 1, 1, scheme_of(5, 32)), Error);
  EXPECT_THROW(rtn(&w, 1, 1, scheme_of(16, 32)), Error);
}

TEST(Rtn, DequantizeInvertsTheCodes) {
  const auto w = testing::random_normal(4 * 96, 6, 0.05);
  const auto q = rtn(w.data(), 4, 96, scheme_of(8, 32));
  std::vector<float> back(w.size());
  dequantize(q, back.data());
  // Half a step of 8 bits, and the largest magnitude of the wrong sign loses up to a whole one; the
  // F16 scale adds 2^-11 of the magnitude.
  for (size_t i = 0; i < w.size(); ++i)
    EXPECT_NEAR(back[i], w[i], std::fabs(q.scales[i / 32]) * (1 + 128 * 0x1p-11)) << i;
}

}  // namespace
}  // namespace signround
