#include "signround/quant/signround.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"
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

std::vector<BF16> to_bf16(const std::vector<float>& f) {
  std::vector<BF16> w;
  for (float v : f) w.push_back(signround::to_bf16(v));
  return w;
}

std::vector<float> weight_of(const SignRoundSlot& slot, int64_t out, int64_t in) {
  std::vector<float> weight(static_cast<size_t>(out * in));
  slot.write_weight(weight.data(), DType::kF32, in);
  return weight;
}

std::vector<float> dequantized(const QuantizedLinear& q) {
  std::vector<float> weight(q.codes.size());
  dequantize(q, weight.data());
  return weight;
}

// Sign descent written down from grid.h in double; parameters are f32, as in the slot.
struct Simulation {
  QuantScheme scheme;
  SignRoundOptions options;
  int64_t out, in;
  std::vector<float> w, v, alpha, beta, v_buffer, alpha_buffer, beta_buffer;
  double travelled = 0;
  int clamped = 0;

  Simulation(std::vector<float> weights, int64_t rows, int64_t cols, QuantScheme s,
             SignRoundOptions o)
      : scheme(s), options(o), out(rows), in(cols), w(std::move(weights)), v(w.size()) {
    const size_t groups = static_cast<size_t>(out * scheme.groups(in));
    alpha.assign(groups, 1);
    beta.assign(groups, 1);
    v_buffer.assign(w.size(), 0);
    alpha_buffer.assign(groups, 0);
    beta_buffer.assign(groups, 0);
  }

  void move(double gradient, double lr, float& parameter, float& buffer) const {
    buffer = static_cast<float>(options.momentum) * buffer + static_cast<float>(gradient);
    const float step = static_cast<float>(lr);
    parameter -= buffer > 0 ? step : buffer < 0 ? -step : 0.0f;
  }

  // One where the last step of a linear schedule, lr / iters, is a whole number of them, and all
  // its steps together at most 32767.
  float unit() const {
    const int n = options.iters;
    return static_cast<float>(sign_round_lr(options, scheme.bits) / n /
                              (32767 / (n * (n + 1) / 2)));
  }

  void step(const std::vector<float>& d_w, double decay) {
    const double lr = decay * sign_round_lr(options, scheme.bits);
    const double before = std::nearbyint(travelled / unit());
    travelled += lr;
    const double units = std::nearbyint(travelled / unit()) - before;
    const double range_lr = options.minmax_lr != 0 ? decay * options.minmax_lr : lr;
    for (int64_t row = 0; row < out; ++row) {
      for (int64_t g = 0; g < scheme.groups(in); ++g) {
        const size_t k = static_cast<size_t>(row * scheme.groups(in) + g);
        const size_t begin = static_cast<size_t>(row * in + g * scheme.group(in));
        const size_t end = static_cast<size_t>(row * in + std::min(in, (g + 1) * scheme.group(in)));
        GroupRange<float> range;
        for (size_t i = begin; i < end; ++i) {
          range.min = std::min(range.min, w[i]);
          range.max = std::max(range.max, w[i]);
        }
        const auto f = group_grid_fwd<float>(scheme, range, alpha[k], beta[k]);
        const GroupGrid<double> grid{f.scale, f.zero, f.floored, f.zero_held};
        double d_scale = 0, d_clamped = 0;
        for (size_t i = begin; i < end; ++i) {
          // q as the f32 forward pass has it
          const double residual = w[i] / f.scale - static_cast<double>(w[i]) / grid.scale;
          const auto d =
              fake_quant_bwd<double>(w[i], v[i] + residual, grid, scheme.max_code(), d_w[i]);
          d_scale += d.scale;
          d_clamped += d.clamped;
          clamped += d.clamped != 0;
          // v stays the float nearest to a whole number of units.
          float moved = 0;
          move(d.v, 1, moved, v_buffer[i]);
          v[i] = unit() * static_cast<float>(std::nearbyint(v[i] / unit()) + moved * units);
        }
        if (!options.minmax_tuning) continue;
        const auto d = group_grid_bwd<double>(scheme, {range.min, range.max}, alpha[k], beta[k],
                                              grid, d_scale, d_clamped);
        move(d.alpha, range_lr, alpha[k], alpha_buffer[k]);
        move(d.beta, range_lr, beta[k], beta_buffer[k]);
        alpha[k] = std::clamp(alpha[k], 0.0f, 1.0f);
        beta[k] = std::clamp(beta[k], 0.0f, 1.0f);
      }
    }
  }

  std::vector<float> weight() const {
    std::vector<float> all(w.size());
    for (size_t i = 0; i < w.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / in, column = static_cast<int64_t>(i) % in;
      const int64_t g = column / scheme.group(in);
      const size_t k = static_cast<size_t>(row * scheme.groups(in) + g);
      GroupRange<float> range;
      for (int64_t j = g * scheme.group(in); j < std::min(in, (g + 1) * scheme.group(in)); ++j) {
        range.min = std::min(range.min, w[static_cast<size_t>(row * in + j)]);
        range.max = std::max(range.max, w[static_cast<size_t>(row * in + j)]);
      }
      all[i] = fake_quant_fwd(w[i], v[i], group_grid_fwd<float>(scheme, range, alpha[k], beta[k]),
                              scheme.max_code());
    }
    return all;
  }
};

std::vector<float> parameters(const float* p, size_t n) { return {p, p + n}; }

// Returns how many weights were clamped on the way.
int expect_slot_follows_simulation(const QuantScheme& scheme, const SignRoundOptions& options,
                                   int64_t in) {
  SCOPED_TRACE(::testing::Message()
               << describe(scheme) << " in " << in << " momentum " << options.momentum);
  constexpr int64_t out = 3;
  const auto w = testing::random_normal(out * in, 11, 0.05);
  Simulation want(w, out, in, scheme, options);
  SignRoundSlot slot(w.data(), out, in, scheme, options);
  std::vector<float> weight(static_cast<size_t>(out * in));
  for (int i = 0; i < options.iters; ++i) {
    // A gradient that pulls the ranges together, so that weights get clamped, and noise.
    auto d_w = testing::random_normal(out * in, 100 + static_cast<uint64_t>(i), 0.3);
    for (size_t j = 0; j < w.size(); ++j) d_w[j] += w[j] > 0 ? 0.5f : -0.5f;
    const double decay = 1.0 - static_cast<double>(i) / options.iters;
    slot.step({d_w.data(), DType::kF32, in}, decay, weight.data(), DType::kF32, in);
    want.step(d_w, decay);
    EXPECT_EQ(slot.v(), want.v) << "iteration " << i;
    EXPECT_EQ(parameters(slot.alpha(), want.alpha.size()), want.alpha) << "iteration " << i;
    EXPECT_EQ(parameters(slot.beta(), want.beta.size()), want.beta) << "iteration " << i;
    EXPECT_EQ(weight, want.weight()) << "iteration " << i;
  }
  return want.clamped;
}

TEST(SignRound, FollowsTheDefinitionForEveryGridGroupAndRowLength) {
  int clamped = 0;
  for (const Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic})
    for (const int bits : {2, 4, 8})
      for (const int64_t group : {-1, 32})
        for (const int64_t in : {20, 64, 100})
          clamped +=
              expect_slot_follows_simulation(scheme_of(bits, group, symmetry), {.iters = 12}, in);
  EXPECT_GT(clamped, 1000);
}

TEST(SignRound, FollowsTheDefinitionWithMomentumAndOtherRates) {
  for (const Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym})
    expect_slot_follows_simulation(scheme_of(3, 32, symmetry),
                                   {.iters = 10, .lr = 0.03, .minmax_lr = 0.07, .momentum = 0.9},
                                   96);
}

TEST(SignRound, WithoutRangeTuningOnlyTheOffsetsMove) {
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kFullRange);
  expect_slot_follows_simulation(scheme, {.iters = 6, .minmax_tuning = false}, 64);
}

TEST(SignRound, StartsAtRoundToNearest) {
  for (const Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    const QuantScheme scheme = scheme_of(4, 32, symmetry);
    const auto w = testing::random_normal(6 * 80, 2, 0.05);
    const SignRoundSlot slot(w.data(), 6, 80, scheme, {});
    const QuantizedLinear want = rtn(w.data(), 6, 80, scheme), got = slot.finish();
    EXPECT_EQ(got.codes, want.codes);
    EXPECT_EQ(got.scales, want.scales);
    EXPECT_EQ(got.zeros, want.zeros);
    EXPECT_EQ(weight_of(slot, 6, 80), dequantized(want));
  }
}

TEST(SignRound, FinishStandsForTheBestParametersNotTheLast) {
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kAsym);
  const auto w = testing::random_normal(4 * 64, 3, 0.05);
  SignRoundSlot slot(w.data(), 4, 64, scheme, {.iters = 10});
  std::vector<float> weight(w.size()), best;
  for (int i = 0; i < 10; ++i) {
    if (i == 6) {
      slot.keep_best();
      best = weight_of(slot, 4, 64);
    }
    const auto d_w = testing::random_normal(4 * 64, 50 + static_cast<uint64_t>(i));
    slot.step({d_w.data(), DType::kF32, 64}, 1.0 - i / 10.0, weight.data(), DType::kF32, 64);
    EXPECT_EQ(weight, weight_of(slot, 4, 64));
  }
  EXPECT_NE(best, weight);
  EXPECT_EQ(dequantized(slot.finish()), best);
}

TEST(SignRound, TheLastStateThatWasKeptSurvivesStepsAndARestart) {
  const QuantScheme scheme = scheme_of(2, 32, Symmetry::kAsym);
  const auto w = testing::random_normal(4 * 64, 3, 0.05);
  for (const int last_kept : {0, 1, 4}) {
    SignRoundSlot slot(w.data(), 4, 64, scheme, {.iters = 6});
    std::vector<float> weight(w.size()), best;
    for (int i = 0; i < 5; ++i) {
      const auto d_w = testing::random_normal(4 * 64, 50 + static_cast<uint64_t>(i));
      slot.step({d_w.data(), DType::kF32, 64}, 1.0 - i / 6.0, weight.data(), DType::kF32, 64);
      if (i > last_kept) continue;
      slot.keep_best();
      best = weight;
    }
    slot.restart();
    EXPECT_NE(weight_of(slot, 4, 64), best);
    EXPECT_EQ(dequantized(slot.finish()), best) << last_kept;
  }
}

// More steps than 16 bits have units for: none is lost, though the last ones are shorter than half
// a unit.
TEST(SignRound, ManyStepsAddUpToWhatTheScheduleSays) {
  constexpr int kSteps = 1000;
  const std::vector<float> w(32, 0.01f), d_w(32, 1.0f);
  SignRoundSlot slot(w.data(), 1, 32, scheme_of(4, 32, Symmetry::kAsym),
                     {.iters = kSteps, .lr = 1e-3, .minmax_tuning = false});
  std::vector<float> weight(32);
  double travelled = 0;
  for (int i = 0; i < kSteps; ++i) {
    const double decay = 1 - static_cast<double>(i) / kSteps;
    travelled += 1e-3 * decay;
    slot.step({d_w.data(), DType::kF32, 32}, decay, weight.data(), DType::kF32, 32);
    ASSERT_NEAR(slot.v()[0], -travelled, 0.51 * static_cast<double>(slot.offset_unit())) << i;
  }
}

// Steps, a restart and the same steps again: as a slot that has only taken the latter.
TEST(SignRound, RestartForgetsAllSteps) {
  constexpr int64_t kOut = 6, kIn = 40;
  const auto w = testing::random_normal(kOut * kIn, 31),
             first = testing::random_normal(kOut * kIn, 32),
             second = testing::random_normal(kOut * kIn, 33);
  const QuantScheme scheme = scheme_of(3, 16, Symmetry::kFullRange);
  for (const ScaleTuning scales : {ScaleTuning::kRangeFactors, ScaleTuning::kFree})
    for (const double momentum : {0.0, 0.9}) {
      const SignRoundOptions options{.iters = 4, .scales = scales, .momentum = momentum};
      SignRoundSlot again(w.data(), kOut, kIn, scheme, options),
          fresh(w.data(), kOut, kIn, scheme, options);
      std::vector<float> weight(w.size()), want(w.size());
      for (int i = 0; i < 3; ++i)
        again.step({first.data(), DType::kF32, kIn}, 1, weight.data(), DType::kF32, kIn);
      ASSERT_NE(weight, weight_of(fresh, kOut, kIn));
      again.restart();
      EXPECT_EQ(weight_of(again, kOut, kIn), weight_of(fresh, kOut, kIn));
      for (int i = 0; i < 3; ++i) {
        again.step({second.data(), DType::kF32, kIn}, 0.5, weight.data(), DType::kF32, kIn);
        fresh.step({second.data(), DType::kF32, kIn}, 0.5, want.data(), DType::kF32, kIn);
        EXPECT_EQ(weight, want) << i;
      }
    }
}

TEST(SignRound, Bf16WeightsGiveWhatTheirValuesGiveAndBf16OutputIsRounded) {
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kFullRange);
  const auto half = to_bf16(testing::random_normal(5 * 96, 4, 0.05));
  std::vector<float> w;
  for (BF16 v : half) w.push_back(to_f32(v));
  SignRoundSlot a(w.data(), 5, 96, scheme, {.iters = 5}),
      b(half.data(), 5, 96, scheme, {.iters = 5});
  std::vector<float> f32(w.size());
  std::vector<BF16> bf16(w.size());
  for (int i = 0; i < 5; ++i) {
    const auto d_w = testing::random_normal(5 * 96, 20 + static_cast<uint64_t>(i));
    a.step({d_w.data(), DType::kF32, 96}, 1, f32.data(), DType::kF32, 96);
    b.step({d_w.data(), DType::kF32, 96}, 1, bf16.data(), DType::kBF16, 96);
    for (size_t j = 0; j < w.size(); ++j)
      ASSERT_EQ(to_f32(bf16[j]), round_to_bf16(f32[j])) << "iteration " << i << " weight " << j;
  }
}

TEST(SignRound, ReadsAndWritesRowsThatAreApart) {
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kFullRange);
  constexpr int64_t out = 3, in = 50, stride = 57, d_stride = 61;
  const auto w = testing::random_normal(out * in, 4, 0.05);
  const auto wide = testing::random_normal(out * d_stride, 5);
  std::vector<float> d_w;
  for (int64_t i = 0; i < out * in; ++i)
    d_w.push_back(wide[static_cast<size_t>(i / in * d_stride + i % in)]);
  SignRoundSlot a(w.data(), out, in, scheme, {.iters = 5}),
      b(w.data(), out, in, scheme, {.iters = 5});
  std::vector<float> weight(out * in), apart(out * stride, -7);
  a.step({d_w.data(), DType::kF32, in}, 1, weight.data(), DType::kF32, in);
  b.step({wide.data(), DType::kF32, d_stride}, 1, apart.data(), DType::kF32, stride);
  for (int64_t r = 0; r < out; ++r)
    for (int64_t c = 0; c < stride; ++c)
      EXPECT_EQ(apart[static_cast<size_t>(r * stride + c)],
                c < in ? weight[static_cast<size_t>(r * in + c)] : -7);
}

TEST(SignRound, DoesNotDependOnThreadsOrKernel) {
  const auto w = testing::random_normal(64 * 1000, 6, 0.05);
  const auto d_w = testing::random_normal(64 * 1000, 7);
  const char* value = std::getenv("SIGNROUND_FORCE_KERNEL");
  const std::string old = value == nullptr ? "" : value;
  std::vector<std::vector<float>> all;
  for (const int threads : {1, 3}) {
    for (const char* kernel : {"hwy", "ref"}) {
      set_num_threads(threads);
      setenv("SIGNROUND_FORCE_KERNEL", kernel, 1);
      SignRoundSlot slot(w.data(), 64, 1000, scheme_of(3, 128, Symmetry::kAsym), {.iters = 5});
      std::vector<float> weight(w.size());
      for (int i = 0; i < 3; ++i)
        slot.step({d_w.data(), DType::kF32, 1000}, 1, weight.data(), DType::kF32, 1000);
      all.push_back(weight);
    }
  }
  setenv("SIGNROUND_FORCE_KERNEL", old.c_str(), 1);
  set_num_threads(0);
  for (const auto& weight : all) EXPECT_EQ(weight, all[0]);
}

TEST(SignRound, ReplacesAndCountsWeightsThatAreNotFinite) {
  auto w = testing::random_normal(2 * 64, 8, 0.05);
  w[3] = std::numeric_limits<float>::quiet_NaN();
  w[100] = std::numeric_limits<float>::infinity();
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kFullRange);
  const SignRoundSlot slot(w.data(), 2, 64, scheme, {});
  EXPECT_EQ(slot.non_finite().count, 2);
  EXPECT_EQ(slot.non_finite().first, 3);
  EXPECT_EQ(slot.finish().codes, rtn(w.data(), 2, 64, scheme).codes);
  const auto bf16 = to_bf16(w);
  EXPECT_EQ(SignRoundSlot(bf16.data(), 2, 64, scheme, {}).non_finite().count, 2);
}

TEST(SignRound, AGradientThatIsNotANumberMovesNothing) {
  const auto w = testing::random_normal(2 * 64, 9, 0.05);
  SignRoundSlot slot(w.data(), 2, 64, scheme_of(4, 32, Symmetry::kAsym), {});
  const std::vector<float> before = weight_of(slot, 2, 64);
  const std::vector<float> d_w(w.size(), std::numeric_limits<float>::quiet_NaN());
  std::vector<float> weight(w.size());
  slot.step({d_w.data(), DType::kF32, 64}, 1, weight.data(), DType::kF32, 64);
  EXPECT_EQ(weight, before);
}

TEST(SignRound, TheStepIsOneOverTheIterationsAndTwiceThatForLongRunsOfFewBits) {
  EXPECT_EQ(sign_round_lr({.iters = 200}, 4), 1.0 / 200);
  EXPECT_EQ(sign_round_lr({.iters = 999}, 2), 1.0 / 999);
  EXPECT_EQ(sign_round_lr({.iters = 1000}, 3), 2.0 / 1000);
  EXPECT_EQ(sign_round_lr({.iters = 1000}, 4), 1.0 / 1000);
  EXPECT_EQ(sign_round_lr({.iters = 1000, .lr = 5e-3}, 2), 5e-3);
}

TEST(SignRound, FreeScalesBeginAtTheStart) {
  for (Symmetry symmetry : {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic}) {
    const QuantScheme scheme = scheme_of(3, 32, symmetry);
    SCOPED_TRACE(describe(scheme));
    const auto w = testing::random_normal(6 * 80, 21, 0.05);
    const QuantizedLinear start = search_start(w.data(), 6, 80, scheme, nullptr);
    const SignRoundSlot slot(w.data(), 6, 80, scheme, {.scales = ScaleTuning::kFree}, &start);
    EXPECT_EQ(weight_of(slot, 6, 80), dequantized(start));
    const QuantizedLinear kept = slot.finish();
    EXPECT_EQ(kept.codes, start.codes);
    EXPECT_EQ(kept.scales, start.scales);
    EXPECT_EQ(kept.zeros, start.zeros);
  }
}

// Adam written down from arXiv 1412.6980, algorithm 1, on the gradient of grid.h.
TEST(SignRound, FreeScalesFollowAdam) {
  QuantScheme scheme = scheme_of(3, 32, Symmetry::kAsym);
  scheme.scale_dtype = DType::kF32;
  const int64_t out = 3, in = 64, groups = 2;
  const SignRoundOptions options{.iters = 20, .scales = ScaleTuning::kFree, .scale_lr = 0.01};
  const auto w = testing::random_normal(out * in, 22, 0.05);
  const QuantizedLinear start = search_start(w.data(), out, in, scheme, nullptr);
  SignRoundSlot slot(w.data(), out, in, scheme, options, &start);
  std::vector<double> t(static_cast<size_t>(out * groups)), first(t.size()), second(t.size());
  std::vector<float> v(w.size()), weight(w.size());
  for (int step = 1; step <= 8; ++step) {
    const auto d_w = testing::random_normal(out * in, 100 + static_cast<uint64_t>(step), 1e-7);
    const double decay = 1 - (step - 1) / 20.0;
    for (size_t k = 0; k < t.size(); ++k) {
      const float scale = start.scales[k] * static_cast<float>(std::exp(slot.log_factor()[k]));
      double d_scale = 0;
      for (size_t i = k * 32; i < k * 32 + 32; ++i) {
        const GroupGrid<double> grid{.scale = static_cast<double>(scale),
                                     .zero = static_cast<double>(start.zeros[k])};
        d_scale += fake_quant_bwd<double>(static_cast<double>(w[i]), static_cast<double>(v[i]),
                                          grid, scheme.max_code(), static_cast<double>(d_w[i]))
                       .scale;
      }
      const double gradient = d_scale * static_cast<double>(scale);
      first[k] = 0.9 * first[k] + 0.1 * gradient;
      second[k] = 0.95 * second[k] + 0.05 * gradient * gradient;
      t[k] -= 0.01 * decay * first[k] / (1 - std::pow(0.9, step)) /
              std::sqrt(second[k] / (1 - std::pow(0.95, step)));
    }
    slot.step({d_w.data(), DType::kF32, in}, decay, weight.data(), DType::kF32, in);
    v = slot.v();
    // Sums of 32 products in f32: relative errors of 1e-6, more where they cancel.
    for (size_t k = 0; k < t.size(); ++k)
      EXPECT_NEAR(static_cast<double>(slot.log_factor()[k]), t[k], 1e-5)
          << "step " << step << " group " << k;
    EXPECT_EQ(weight, weight_of(slot, out, in));
  }
}

// Gradients against the rounding errors make every scale larger than the range of the weights asks
// for: no factor in [0, 1] could.
TEST(SignRound, FreeScalesLeaveTheRangeOfTheWeights) {
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kAsym);
  const auto w = testing::random_normal(4 * 64, 23, 0.05);
  SignRoundSlot slot(w.data(), 4, 64, scheme, {.scales = ScaleTuning::kFree, .scale_lr = 0.05});
  const auto before = slot.finish();
  std::vector<float> weight = weight_of(slot, 4, 64), d_w(w.size());
  for (int i = 0; i < 10; ++i) {
    for (size_t j = 0; j < w.size(); ++j) d_w[j] = w[j] - weight[j];
    slot.step({d_w.data(), DType::kF32, 64}, 1, weight.data(), DType::kF32, 64);
  }
  slot.keep_best();
  const auto after = slot.finish();
  for (size_t k = 0; k < before.scales.size(); ++k)
    EXPECT_GT(after.scales[k], 1.2f * before.scales[k]);
  EXPECT_EQ(after.zeros, before.zeros);
  EXPECT_EQ(dequantized(after), weight);
}

TEST(SignRound, AStartNeedsFreeScalesAndTheSameScheme) {
  const auto w = testing::random_normal(2 * 64, 24, 0.05);
  const QuantScheme scheme = scheme_of(4, 32, Symmetry::kFullRange);
  const QuantizedLinear start = rtn(w.data(), 2, 64, scheme);
  EXPECT_THROW(SignRoundSlot(w.data(), 2, 64, scheme, {}, &start), Error);
  EXPECT_THROW(SignRoundSlot(w.data(), 2, 64, scheme_of(3, 32, Symmetry::kFullRange),
                             {.scales = ScaleTuning::kFree}, &start),
               Error);
}

TEST(SignRound, RefusesRowsThatOverlapAndTypesThatItCannotWrite) {
  const auto w = testing::random_normal(2 * 64, 9, 0.05);
  SignRoundSlot slot(w.data(), 2, 64, scheme_of(4, 32, Symmetry::kAsym), {});
  std::vector<float> weight(w.size());
  EXPECT_THROW(slot.write_weight(weight.data(), DType::kF16, 64), Error);
  EXPECT_THROW(slot.write_weight(weight.data(), DType::kF32, 63), Error);
  EXPECT_THROW(slot.step({w.data(), DType::kF32, 63}, 1, weight.data(), DType::kF32, 64), Error);
  EXPECT_THROW(SignRoundSlot(w.data(), 2, 64, scheme_of(7, 32, Symmetry::kAsym), {}), Error);
  EXPECT_THROW(SignRoundSlot(w.data(), 2, 64, scheme_of(4, 32, Symmetry::kAsym), {.lr = -1}),
               Error);
}

}  // namespace
}  // namespace signround
