#include "signround/quant/grid.h"

#include <gtest/gtest.h>

#include <vector>

#include "signround/base/random.h"
#include "signround/kernels/dispatch.h"
#include "signround/testing/complex_step.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

using Complex = std::complex<double>;

// Rounds, and keeps what rounding added.
struct Record {
  std::vector<double>* residuals;
  double add(double rounded, double v) const {
    residuals->push_back(rounded - v);
    return rounded;
  }
  double scale(double v, DType dtype) const {
    return add(round_scale(static_cast<float>(v), dtype), v);
  }
  double code(double v) const { return add(std::nearbyint(v), v); }
};

// Adds the same again: the smooth function with the same value, whose derivative is the
// straight-through one.
struct Replay {
  const std::vector<double>* residuals;
  size_t* next;
  Complex scale(Complex v, DType) const { return v + (*residuals)[(*next)++]; }
  Complex code(Complex v) const { return v + (*residuals)[(*next)++]; }
};

struct Group {
  QuantScheme scheme;
  std::vector<double> w, v, d_y;
  double alpha = 1, beta = 1;

  GroupRange<double> range() const {
    return {std::min(0.0, *std::min_element(w.begin(), w.end())),
            std::max(0.0, *std::max_element(w.begin(), w.end()))};
  }
};

struct Gradient {
  std::vector<double> v;
  double alpha, beta;
  int clamped;
  GroupGrid<double> grid;
};

Gradient backward(const Group& g, std::vector<double>* residuals) {
  const int max_code = g.scheme.max_code();
  const Record record{residuals};
  const auto grid = group_grid_fwd<double>(g.scheme, g.range(), g.alpha, g.beta, record);
  Gradient out{{}, 0, 0, 0, grid};
  double d_scale = 0, d_clamped = 0;
  for (size_t i = 0; i < g.w.size(); ++i) {
    fake_quant_fwd(g.w[i], g.v[i], grid, max_code, record);
    const auto d = fake_quant_bwd(g.w[i], g.v[i], grid, max_code, g.d_y[i]);
    out.v.push_back(d.v);
    d_scale += d.scale;
    d_clamped += d.clamped;
    const double code = std::nearbyint(g.w[i] / grid.scale + g.v[i]) + grid.zero;
    out.clamped += code < 0 || code > max_code;
  }
  const auto d =
      group_grid_bwd<double>(g.scheme, g.range(), g.alpha, g.beta, grid, d_scale, d_clamped);
  out.alpha = d.alpha;
  out.beta = d.beta;
  return out;
}

// Of (v..., alpha, beta).
std::vector<double> surrogate_gradient(const Group& g, const std::vector<double>& residuals) {
  std::vector<Complex> parameters(g.v.begin(), g.v.end());
  parameters.push_back(g.alpha);
  parameters.push_back(g.beta);
  const size_t n = g.w.size();
  return testing::complex_step_grad(
      Mat<Complex>{parameters.data(), 1, static_cast<int64_t>(parameters.size())}, [&] {
        size_t next = 0;
        const Replay replay{&residuals, &next};
        const GroupRange<Complex> range{g.range().min, g.range().max};
        const auto grid =
            group_grid_fwd<Complex>(g.scheme, range, parameters[n], parameters[n + 1], replay);
        Complex loss = 0;
        for (size_t i = 0; i < n; ++i) {
          loss += g.d_y[i] *
                  fake_quant_fwd<Complex>(g.w[i], parameters[i], grid, g.scheme.max_code(), replay);
        }
        return loss;
      });
}

// Steered to the corners: ties of the range, factors 0 and 1, tiny weights, one-sided groups.
Group random_group(uint64_t seed, Symmetry symmetry) {
  PythonRandom random(seed);
  Group g;
  const int all_bits[] = {2, 3, 4, 8};
  const DType dtypes[] = {DType::kF16, DType::kBF16, DType::kF32};
  g.scheme.bits = all_bits[random.below(4)];
  g.scheme.symmetry = symmetry;
  g.scheme.scale_dtype = dtypes[random.below(3)];
  const double sigma = random.below(8) == 0 ? 1e-6 : 0.05;
  const int64_t n = 1 + static_cast<int64_t>(random.below(20));
  for (int64_t i = 0; i < n; ++i) {
    g.w.push_back(static_cast<float>(sigma * normal(random)));
    g.v.push_back(static_cast<float>(1.2 * random.uniform() - 0.6));
    g.d_y.push_back(normal(random));
  }
  if (random.below(6) == 0)
    for (double& w : g.w) w = std::fabs(w);
  if (random.below(4) == 0) {
    g.w.push_back(-*std::max_element(
        g.w.begin(), g.w.end(), [](double a, double b) { return std::fabs(a) < std::fabs(b); }));
    g.v.push_back(0.25);
    g.d_y.push_back(1);
  }
  const auto factor = [&] {
    const uint64_t kind = random.below(6);
    return kind == 0 ? 0.0 : kind < 3 ? 1.0 : static_cast<float>(random.uniform());
  };
  g.alpha = factor();
  g.beta = factor();
  return g;
}

class Grid : public ::testing::TestWithParam<Symmetry> {};

TEST_P(Grid, BackwardMatchesComplexStepOfTheStraightThroughSurrogate) {
  int clamped = 0, floored = 0, ties = 0, negative = 0, one_sided = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const Group g = random_group(seed, GetParam());
    std::vector<double> residuals;
    const Gradient got = backward(g, &residuals);
    const std::vector<double> want = surrogate_gradient(g, residuals);
    const size_t n = g.w.size();
    // The terms of d_scale are as large as w / scale, and a floored scale is tiny.
    double size = 1;
    for (size_t i = 0; i < n; ++i)
      size += std::fabs(g.d_y[i]) * (256 + std::fabs(g.w[i] / got.grid.scale));
    for (size_t i = 0; i < n; ++i)
      EXPECT_NEAR(got.v[i], want[i], 1e-12) << "d_v " << i << " seed " << seed;
    EXPECT_NEAR(got.alpha, want[n], 1e-12 * size) << "seed " << seed;
    EXPECT_NEAR(got.beta, want[n + 1], 1e-12 * size) << "seed " << seed;
    clamped += got.clamped;
    floored += got.grid.floored;
    const double lo = -g.range().min * g.alpha, hi = g.range().max * g.beta;
    ties += lo == hi && lo > 0;
    negative += got.grid.scale < 0;
    one_sided += lo == 0 || hi == 0;
  }
  EXPECT_GT(clamped, 100);
  EXPECT_GT(floored, 100);
  EXPECT_GT(one_sided, 100);
  EXPECT_GT(ties, 50);
  EXPECT_EQ(negative > 100, GetParam() == Symmetry::kFullRange);
}

std::string symmetry_name(const ::testing::TestParamInfo<Symmetry>& info) {
  constexpr const char* kNames[] = {"full_range", "asym", "classic"};
  return kNames[static_cast<int>(info.param)];
}
INSTANTIATE_TEST_SUITE_P(Symmetries, Grid,
                         ::testing::Values(Symmetry::kFullRange, Symmetry::kAsym,
                                           Symmetry::kClassic),
                         symmetry_name);

GroupGrid<float> grid_of(Symmetry symmetry, float min, float max, int bits = 4,
                         DType dtype = DType::kF32) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.symmetry = symmetry;
  scheme.scale_dtype = dtype;
  return group_grid_fwd<float>(scheme, {min, max}, 1.0f, 1.0f);
}

TEST(GroupGrid, FlooredScaleKeepsItsSignAndIsNeverZero) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const float floor = scale_floor_of(dtype);
    for (float size : {0.5f, 100.0f, 2 * floor, floor}) {
      EXPECT_EQ(floored_scale(size, dtype), size);
      EXPECT_EQ(floored_scale(-size, dtype), -size);
    }
    EXPECT_EQ(floored_scale(floor / 2, dtype), floor);
    EXPECT_EQ(floored_scale(-floor / 2, dtype), -floor);
    EXPECT_EQ(floored_scale(0.0f, dtype), floor);
    EXPECT_EQ(floored_scale(-0.0f, dtype), floor);
    EXPECT_EQ(floored_scale(-1e38f, DType::kF16), -65504.0f);
  }
  EXPECT_EQ(floored_scale(-1e-30f, DType::kF16), scale_floor_of(DType::kF16));  // is -0 in F16
}

// Groups whose scale is floored, without weights below or above zero, with ends that tie, at the
// ends of their factors; the rest at random.
struct Ranges {
  std::vector<float> min, max, d_scale, d_clamped, alpha, beta, alpha_buffer, beta_buffer, scale,
      zero;

  explicit Ranges(int64_t n) {
    min = max = testing::random_normal(n, 1, 0.1);
    for (float& v : min) v = -std::abs(v);
    max = testing::random_normal(n, 2, 0.1);
    for (float& v : max) v = std::abs(v);
    d_scale = testing::random_normal(n, 3);
    d_clamped = testing::random_normal(n, 4);
    for (auto* factor : {&alpha, &beta}) {
      *factor = testing::random_normal(n, factor == &alpha ? 5 : 6, 0.05);
      for (float& v : *factor) v = std::clamp(0.97f + v, 0.0f, 1.0f);
    }
    alpha_buffer = testing::random_normal(n, 7);
    beta_buffer = testing::random_normal(n, 8);
    scale = zero = std::vector<float>(min.size(), 77.0f);
    for (size_t k = 0; k < min.size(); ++k) {
      if (k % 9 == 1) min[k] = max[k] = 0;
      if (k % 9 == 2) min[k] = 0;
      if (k % 9 == 3) max[k] = 0;
      if (k % 9 == 4) min[k] = -max[k], alpha[k] = beta[k];
      if (k % 9 == 5) min[k] *= 1e-6f, max[k] *= 1e-6f;
      if (k % 9 == 6) d_scale[k] = d_clamped[k] = 0;
      if (k % 9 == 7) min[k] = -0.0026f - 1e-6f * static_cast<float>(k), max[k] = 0;
      if (k % 11 == 1) alpha[k] = 0, beta[k] = 1;
    }
  }

  void step(const QuantScheme& scheme, bool momentum) {
    kernels::range_step_hwy(range_rule(scheme), static_cast<int64_t>(min.size()), 0.01f, 0.9f,
                            {.min = min.data(),
                             .max = max.data(),
                             .d_scale = d_scale.data(),
                             .d_clamped = d_clamped.data(),
                             .alpha = alpha.data(),
                             .beta = beta.data(),
                             .alpha_buffer = momentum ? alpha_buffer.data() : nullptr,
                             .beta_buffer = momentum ? beta_buffer.data() : nullptr,
                             .scale = scale.data(),
                             .zero = zero.data()});
  }
  void step_by_definition(const QuantScheme& scheme, bool momentum) {
    const auto move = [&](float gradient, float& factor, float& buffer) {
      if (momentum) gradient = buffer = 0.9f * buffer + gradient;
      factor -= gradient > 0 ? 0.01f : gradient < 0 ? -0.01f : 0.0f;
      factor = std::clamp(factor, 0.0f, 1.0f);
    };
    for (size_t k = 0; k < min.size(); ++k) {
      const GroupRange<float> range{min[k], max[k]};
      const auto d = group_grid_bwd<float>(scheme, range, alpha[k], beta[k],
                                           group_grid_fwd<float>(scheme, range, alpha[k], beta[k]),
                                           d_scale[k], d_clamped[k]);
      move(d.alpha, alpha[k], alpha_buffer[k]);
      move(d.beta, beta[k], beta_buffer[k]);
      const auto grid = group_grid_fwd<float>(scheme, range, alpha[k], beta[k]);
      scale[k] = grid.scale;
      zero[k] = grid.zero;
    }
  }
};

TEST_P(Grid, StepsOfManyRangesHaveTheBitsOfTheDefinition) {
  for_each_hwy_target([&](const char* target) {
    for (int bits : {2, 3, 4, 8})
      for (DType dtype : {DType::kF16, DType::kBF16, DType::kF32})
        for (int64_t n : {1, 9, 16, 200})
          for (bool momentum : {false, true}) {
            SCOPED_TRACE(::testing::Message() << target << " bits " << bits << " " << name_of(dtype)
                                              << " n " << n << " momentum " << momentum);
            QuantScheme scheme;
            scheme.bits = bits;
            scheme.symmetry = GetParam();
            scheme.scale_dtype = dtype;
            Ranges got(n), want(n);
            for (int i = 0; i < 4; ++i) {
              got.step(scheme, momentum);
              want.step_by_definition(scheme, momentum);
            }
            EXPECT_EQ(got.alpha, want.alpha);
            EXPECT_EQ(got.beta, want.beta);
            EXPECT_EQ(got.scale, want.scale);
            EXPECT_EQ(got.zero, want.zero);
            EXPECT_EQ(got.alpha_buffer, want.alpha_buffer);
          }
  });
}

TEST(GridFullRange, TheLargestMagnitudeSitsOnTheLowestCodeWhateverItsSign) {
  EXPECT_EQ(grid_of(Symmetry::kFullRange, -0.5f, 0.25f).scale, 0.0625f);
  EXPECT_EQ(grid_of(Symmetry::kFullRange, -0.25f, 0.5f).scale, -0.0625f);
  EXPECT_EQ(fake_quant_fwd(0.5f, 0.0f, grid_of(Symmetry::kFullRange, -0.25f, 0.5f), 15), 0.5f);
}

TEST(GridFullRange, ATieGivesANegativeScale) {
  EXPECT_EQ(grid_of(Symmetry::kFullRange, -0.5f, 0.5f).scale, -0.0625f);
}

TEST(GridFullRange, AGroupOfZerosGetsTheFloorAsAPositiveScale) {
  for (Symmetry s : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    EXPECT_EQ(grid_of(s, 0, 0, 4, DType::kF32).scale, 1e-8f);
    EXPECT_EQ(grid_of(s, 0, 0, 4, DType::kF16).scale, 0x1.5p-17f);  // torch.clamp of a float16
    EXPECT_EQ(grid_of(s, 0, 0, 4, DType::kBF16).scale, 0x1.5p-17f);
  }
}

TEST(GridFullRange, TheFloorKeepsTheSign) {
  EXPECT_EQ(grid_of(Symmetry::kFullRange, 0, 1e-6f, 4, DType::kF16).scale, -0x1.5p-17f);
}

TEST(GridScale, IsRoundedBeforeItIsUsed) {
  EXPECT_EQ(grid_of(Symmetry::kFullRange, -0.8f, 0, 4, DType::kF16).scale, round_to_f16(0.1f));
  EXPECT_EQ(grid_of(Symmetry::kFullRange, -0.8f, 0, 4, DType::kBF16).scale, round_to_bf16(0.1f));
}

TEST(GridScale, StaysFiniteWhereTheTypeOverflows) {
  EXPECT_EQ(grid_of(Symmetry::kFullRange, -3e38f, 0, 4, DType::kF16).scale, 65504.0f);
  EXPECT_EQ(grid_of(Symmetry::kAsym, -3e38f, 3e38f, 4, DType::kF32).scale, 0x1.fffffep127f);
}

TEST(GridAsym, HoldsZeroExactlyAndCoversTheRange) {
  const auto grid = grid_of(Symmetry::kAsym, -0.3f, 0.6f);
  EXPECT_EQ(grid.zero, 5);
  EXPECT_FLOAT_EQ(grid.scale, 0.06f);
  EXPECT_EQ(fake_quant_fwd(0.0f, 0.0f, grid, 15), 0.0f);
  EXPECT_FLOAT_EQ(fake_quant_fwd(-0.3f, 0.0f, grid, 15), -0.3f);
  EXPECT_FLOAT_EQ(fake_quant_fwd(0.6f, 0.0f, grid, 15), 0.6f);
}

TEST(GridAsym, TheZeroPointFitsItsBitsWhereTheScaleLosesDigits) {
  // 8 bits, all weights negative, a subnormal F16 scale that rounds down by up to 0.3%: -lo / scale
  // can pass 255.5.
  int held = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto grid =
        grid_of(Symmetry::kAsym, -0.0026f - 1e-6f * static_cast<float>(i), 0, 8, DType::kF16);
    ASSERT_LE(grid.zero, 255) << i;
    held += grid.zero_held;
  }
  EXPECT_GT(held, 0);
}

TEST(GridClassic, IsSymmetricAroundTheMiddleCode) {
  const auto grid = grid_of(Symmetry::kClassic, -0.75f, 0.5f);
  EXPECT_FLOAT_EQ(grid.scale, 0.1f);
  EXPECT_EQ(grid.zero, 8);
}

}  // namespace
}  // namespace signround
