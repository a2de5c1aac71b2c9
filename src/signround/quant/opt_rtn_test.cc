#include "signround/quant/opt_rtn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/quant/rtn.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

QuantScheme scheme_of(int bits, int64_t group, DType scales = DType::kF32) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.scale_dtype = scales;
  return scheme;
}

double loss_of(const QuantizedLinear& q, const std::vector<float>& w,
               const std::vector<float>& importance) {
  std::vector<float> back(w.size());
  dequantize(q, back.data());
  double loss = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    const double e = static_cast<double>(back[i]) - static_cast<double>(w[i]);
    loss += (importance.empty() ? 1.0
                                : static_cast<double>(importance[i % static_cast<size_t>(q.in)])) *
            e * e;
  }
  return loss;
}

std::vector<float> second_moments(int64_t n, uint64_t seed) {
  std::vector<float> all;
  for (float v : testing::random_normal(n, seed)) all.push_back(v * v);
  return all;
}

TEST(OptRtn, LosesLessThanRoundToNearestWithAndWithoutImportance) {
  for (const int bits : {2, 3, 4}) {
    const auto w = testing::random_normal(8 * 200, 1, 0.05);
    const auto importance = second_moments(200, 2);
    const auto scheme = scheme_of(bits, 64);
    const auto plain = rtn(w.data(), 8, 200, scheme);
    const auto best = opt_rtn(w.data(), 8, 200, scheme, nullptr);
    const auto weighted = opt_rtn(w.data(), 8, 200, scheme, importance.data());
    EXPECT_LT(loss_of(best, w, {}), 0.95 * loss_of(plain, w, {})) << bits;
    EXPECT_LT(loss_of(weighted, w, importance), loss_of(best, w, importance)) << bits;
    EXPECT_LT(loss_of(best, w, {}), loss_of(weighted, w, {})) << bits;
  }
}

TEST(OptRtn, EqualImportanceIsNoImportance) {
  const auto w = testing::random_normal(4 * 256, 3, 0.05);
  const std::vector<float> ones(256, 1.0f);
  const auto a = opt_rtn(w.data(), 4, 256, scheme_of(4, 128), ones.data());
  const auto b = opt_rtn(w.data(), 4, 256, scheme_of(4, 128), nullptr);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.codes, b.codes);
}

TEST(OptRtn, Bf16RowsGiveWhatTheirValuesGiveOnAnyNumberOfThreads) {
  auto w = testing::random_normal(9 * 100, 4, 0.05);
  std::vector<BF16> half;
  for (float& v : w) {
    half.push_back(to_bf16(v));
    v = to_f32(half.back());
  }
  set_num_threads(1);
  const auto a = opt_rtn(w.data(), 9, 100, scheme_of(3, 32), nullptr);
  set_num_threads(3);
  const auto b = opt_rtn(half.data(), 9, 100, scheme_of(3, 32), nullptr);
  set_num_threads(0);
  EXPECT_EQ(a.scales, b.scales);
  EXPECT_EQ(a.codes, b.codes);
}

TEST(OptRtn, ScalesAreValuesOfTheirType) {
  const auto w = testing::random_normal(4 * 64, 5, 0.05);
  for (float s : opt_rtn(w.data(), 4, 64, scheme_of(4, 32, DType::kF16), nullptr).scales)
    EXPECT_EQ(s, round_to_f16(s));
  for (float s : opt_rtn(w.data(), 4, 64, scheme_of(4, 32, DType::kBF16), nullptr).scales)
    EXPECT_EQ(s, round_to_bf16(s));
}

TEST(OptRtn, AGroupOfZerosStaysZeroUnderTheFloor) {
  const std::vector<float> w(64, 0.0f);
  const auto q = opt_rtn(w.data(), 1, 64, scheme_of(4, 32, DType::kF16), nullptr);
  EXPECT_EQ(q.scales[0], 0x1.5p-17f);
  for (uint8_t code : q.codes) EXPECT_EQ(code, 8);
}

TEST(OptRtn, GridsWithoutASearchAreRoundedToNearestAndSaySo) {
  const auto w = testing::random_normal(4 * 64, 6, 0.05);
  for (const Symmetry symmetry : {Symmetry::kAsym, Symmetry::kClassic}) {
    auto scheme = scheme_of(4, 32);
    scheme.symmetry = symmetry;
    OptRtnNotes notes;
    EXPECT_EQ(opt_rtn(w.data(), 4, 64, scheme, nullptr, &notes).codes,
              rtn(w.data(), 4, 64, scheme).codes);
    EXPECT_TRUE(notes.plain_rtn);
  }
}

TEST(OptRtn, FillsZerosOfTheImportanceWithTheMeanAndReplacesItWhereMostIsZero) {
  const auto w = testing::random_normal(2 * 96, 7, 0.05);
  auto importance = second_moments(96, 8);
  auto filled = importance;
  // Group 0: four zeros. Group 1: untouched. Group 2: twenty zeros.
  double sum = 0;
  for (size_t i = 4; i < 32; ++i) sum += static_cast<double>(importance[i]);
  for (size_t i = 0; i < 4; ++i) importance[i] = 0, filled[i] = static_cast<float>(sum / 28);
  for (size_t i = 64; i < 84; ++i) importance[i] = 0;
  OptRtnNotes notes;
  const auto scheme = scheme_of(3, 32);
  const auto got = opt_rtn(w.data(), 2, 96, scheme, importance.data(), &notes);
  EXPECT_EQ(notes.filled_groups, 2);
  EXPECT_EQ(notes.unimportant_groups, 2);
  const auto want = opt_rtn(w.data(), 2, 96, scheme, filled.data());
  for (const size_t k : {0, 1, 3, 4}) EXPECT_EQ(got.scales[k], want.scales[k]) << k;
  for (const size_t row : {0, 1}) {  // 3 bits: |w| stands in
    std::vector<float> x(w.begin() + static_cast<int64_t>(row * 96 + 64),
                         w.begin() + static_cast<int64_t>(row * 96 + 96));
    std::vector<float> size;
    for (float v : x) size.push_back(std::fabs(v));
    EXPECT_EQ(got.scales[row * 3 + 2], opt_rtn(x.data(), 1, 32, scheme, size.data()).scales[0])
        << row;
  }
}

TEST(OptRtn, ThePaddingOfAShortGroupCountsInTheMeanThatFillsZeros) {
  // 8 weights in a group of 32: 24 paddings of 1e-5, and small importances, so that they matter.
  const auto w = testing::random_normal(20 * 40, 11, 0.05);
  std::vector<float> importance(40, 1e-6f);
  importance[32] = 0;
  auto padded = importance, unpadded = importance;
  padded[32] = static_cast<float>((7e-6 + 24e-5) / 31);
  unpadded[32] = static_cast<float>(7e-6 / 31);
  const auto scheme = scheme_of(2, 32);
  const auto got = opt_rtn(w.data(), 20, 40, scheme, importance.data());
  EXPECT_EQ(got.scales, opt_rtn(w.data(), 20, 40, scheme, padded.data()).scales);
  EXPECT_NE(got.scales, opt_rtn(w.data(), 20, 40, scheme, unpadded.data()).scales);
}

TEST(OptRtn, CountsWeightsThatAreNotFinite) {
  auto w = testing::random_normal(2 * 64, 9, 0.05);
  auto clean = w;
  w[70] = std::numeric_limits<float>::quiet_NaN();
  clean[70] = 0;
  OptRtnNotes notes;
  EXPECT_EQ(opt_rtn(w.data(), 2, 64, scheme_of(4, 32), nullptr, &notes).codes,
            opt_rtn(clean.data(), 2, 64, scheme_of(4, 32), nullptr).codes);
  EXPECT_EQ(notes.non_finite.count, 1);
  EXPECT_EQ(notes.non_finite.first, 70);
}

TEST(OptRtn, RefusesAnImportanceThatIsNotANumberOrNegative) {
  const auto w = testing::random_normal(64, 10, 0.05);
  std::vector<float> importance(64, 1.0f);
  importance[5] = -1;
  EXPECT_THROW(opt_rtn(w.data(), 1, 64, scheme_of(4, 32), importance.data()), Error);
  importance[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(opt_rtn(w.data(), 1, 64, scheme_of(4, 32), importance.data()), Error);
}

}  // namespace
}  // namespace signround
