#include "signround/kernels/cpu/scale_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>
#include <vector>

#include "signround/kernels/dispatch.h"
#include "signround/tensor/dtype.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

ScaleCandidates candidates_of(int bits) {
  return bits == 2 ? scale_candidates(2, 0.01, 90)
                   : scale_candidates(1 << (bits - 1), (1 << (bits - 1)) * 0.75 / 100, 100);
}

double loss_of(const std::vector<float>& x, const std::vector<float>& w, double s, int half) {
  double loss = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double q = std::clamp(std::nearbyint(x[i] / s), -1.0 * half, half - 1.0);
    loss += (w.empty() ? 1.0 : w[i]) * (s * q - x[i]) * (s * q - x[i]);
  }
  return loss;
}

TEST(ScaleSearch, CandidatesSpanHalfToSevenQuartersOfTheRange) {
  const ScaleCandidates c = candidates_of(4);
  ASSERT_EQ(c.multiplier.size(), 201u);
  EXPECT_FLOAT_EQ(c.multiplier[0], 14.0f);
  EXPECT_FLOAT_EQ(c.multiplier[100], 8.0f);
  EXPECT_FLOAT_EQ(c.multiplier[200], 2.0f);
}

TEST(ScaleSearch, ReferenceFindsTheLeastLossOfAllCandidates) {
  for (const int bits : {2, 3, 4, 8}) {
    const ScaleCandidates c = candidates_of(bits);
    for (uint64_t seed = 0; seed < 20; ++seed) {
      const auto x = testing::random_normal(64, seed, 0.05);
      std::vector<float> w;
      if (seed % 2 == 1)
        for (float v : testing::random_normal(64, seed + 100)) w.push_back(v * v);
      const float s = scale_search_ref(x.data(), w.empty() ? nullptr : w.data(), 64, c);
      const float g = *std::max_element(
          x.begin(), x.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
      double best = 1e30;
      for (float m : c.multiplier) best = std::min(best, loss_of(x, w, -g / m, c.half));
      // f32 against double: n terms, each with a rounding of s q relative to |x|, at most 2^8 times
      // the error.
      EXPECT_LE(loss_of(x, w, s, c.half), best * (1 + 512 * 0x1p-23)) << bits << " " << seed;
    }
  }
}

struct Inputs {
  std::vector<float> x, w;
};

// Normal weights, and shapes that make candidates tie or that reach the ends of f32.
Inputs inputs_of(int kind, int64_t n, uint64_t seed) {
  Inputs in{testing::random_normal(n, seed, 0.05), {}};
  const auto each = [&](auto f) {
    for (size_t i = 0; i < in.x.size(); ++i) in.x[i] = f(in.x[i], i);
  };
  const auto weigh = [&](float power) {
    for (float v : testing::random_normal(n, seed + 1))
      in.w.push_back(std::pow(std::fabs(v), power));
  };
  switch (kind) {
    case 0:
      break;
    case 1:
      weigh(2);
      break;
    case 2:
      weigh(20);
      break;  // a few weights decide
    case 3:
      each([](float v, size_t) { return round_to_bf16(v); });
      break;
    case 4:
      each([](float v, size_t) { return v > 0 ? 0.5f : -0.5f; });
      break;
    case 5:
      each([](float v, size_t i) { return i % 7 == 0 ? v : 0.0f; });
      break;
    case 6:
      each([](float v, size_t) { return std::nearbyint(v * 60) / 16; });
      weigh(1);
      break;
    case 7:
      each([](float v, size_t) { return v * 1e-19f; });
      weigh(2);
      break;
    case 8:
      each([](float v, size_t) { return v * 1e-33f; });
      break;
    case 9:
      each([](float v, size_t) { return v * 1e20f; });
      break;
    case 10:
      each([](float v, size_t) { return v * 1e38f; });
      break;
    case 11:
      each([](float v, size_t i) { return i % 3 == 0 ? v * 1e-30f : v; });
      break;
    case 12:
      each([](float v, size_t) { return v * v * v * 1000; });
      break;  // heavy tails
    case 13:
      each([](float, size_t) { return 0.0f; });
      break;
    case 14:
      weigh(1);
      for (float& w : in.w) w = 0;
      break;
    default:
      weigh(1);
      for (float& w : in.w) w *= 1e-30f;
      break;
  }
  return in;
}
constexpr int kKinds = 16;

TEST(ScaleSearch, AllKernelsGiveTheBitsOfTheReference) {
  for (const ScaleSearchKernel& kernel : scale_search_kernels()) {
    ASSERT_EQ(kernel.why_not(), nullptr) << kernel.name;
    if (kernel.name == "ref") continue;
    for (const int bits : {2, 3, 4, 8}) {
      const ScaleCandidates c = candidates_of(bits);
      for (const int64_t n : {1, 2, 5, 16, 31, 32, 64, 100, 128, 129, 300}) {
        for (int kind = 0; kind < kKinds; ++kind) {
          const Inputs in = inputs_of(kind, n, static_cast<uint64_t>(kind * 1000 + n));
          const float* w = in.w.empty() ? nullptr : in.w.data();
          const float want = scale_search_ref(in.x.data(), w, n, c);
          for_each_hwy_target([&](const char* target) {
            const float got = kernel.search(in.x.data(), w, n, c);
            EXPECT_EQ(std::bit_cast<uint32_t>(got), std::bit_cast<uint32_t>(want))
                << kernel.name << " on " << target << " bits " << bits << " n " << n << " kind "
                << kind << ": " << got << " and " << want;
          });
        }
      }
    }
  }
}

TEST(ScaleSearch, KernelsAgreeOnManyGroupsOfRealSizes) {
  const auto pool = testing::random_normal(40000, 77, 0.04);
  std::vector<float> w;
  for (size_t i = 0; i < pool.size(); ++i) w.push_back(pool[i] * pool[i] * 600);
  for (const int bits : {2, 3, 4}) {
    const ScaleCandidates c = candidates_of(bits);
    for (int64_t i = 0; i + 128 <= 40000; i += 119) {
      for (const float* weights :
           {static_cast<const float*>(nullptr), std::as_const(w).data() + (i * 7) % 39000}) {
        const float want = scale_search_ref(pool.data() + i, weights, 128, c);
        EXPECT_EQ(scale_search_hwy(pool.data() + i, weights, 128, c), want) << bits << " at " << i;
      }
    }
  }
  const ScaleCandidates c = candidates_of(4);
  EXPECT_EQ(scale_search_hwy(pool.data(), w.data(), 14336, c),
            scale_search_ref(pool.data(), w.data(), 14336, c));
}

TEST(ScaleSearch, TheFirstOfEqualMagnitudesGivesTheSign) {
  const ScaleCandidates c = candidates_of(4);
  for (const ScaleSearchKernel& kernel : scale_search_kernels()) {
    const std::vector<float> up = {0.1f, 0.5f, -0.5f}, down = {0.1f, -0.5f, 0.5f};
    EXPECT_LT(kernel.search(up.data(), nullptr, 3, c), 0) << kernel.name;
    EXPECT_GT(kernel.search(down.data(), nullptr, 3, c), 0) << kernel.name;
  }
}

}  // namespace
}  // namespace signround::kernels
