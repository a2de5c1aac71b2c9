#include "signround/ops/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <numbers>

#include "signround/kernels/cpu/activation_ref.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;

constexpr Activation kAll[] = {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf,
                               Activation::kRelu, Activation::kReluSquared};

TEST(Activation, ReferenceBackwardMatchesComplexStep) {
  const int64_t d = 9;
  for (Activation kind : kAll) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto values = random_normal(3 * d, 21);
    std::vector<Complex> x(values.begin(), values.begin() + d),
        up(values.begin() + d, values.begin() + 2 * d), y(d);
    for (Complex& v : x) v = std::tanh(v) * 2.5;  // the series for erf wants |x| < 2 sqrt 2
    const std::vector<double> d_y(values.begin() + 2 * d, values.end());
    auto loss = [&] {
      kernels::act_fwd_row(kind, x.data(), up.data(), d, y.data());
      Complex sum = 0;
      for (size_t j = 0; j < y.size(); ++j) sum += d_y[j] * y[j];
      return sum;
    };
    const auto want_x = complex_step_grad({x.data(), 1, d}, loss);
    const auto want_up = complex_step_grad({up.data(), 1, d}, loss);
    std::vector<double> xr(d), ur(d), d_x(d), d_up(d);
    for (size_t j = 0; j < xr.size(); ++j) xr[j] = x[j].real(), ur[j] = up[j].real();
    kernels::act_bwd_row(kind, xr.data(), ur.data(), d_y.data(), d, false, d_x.data(), d_up.data());
    for (size_t j = 0; j < xr.size(); ++j) {
      EXPECT_NEAR(d_x[j], want_x[j], 1e-12) << j;
      EXPECT_NEAR(d_up[j], want_up[j], 1e-12) << j;
    }
  }
}

// By how much f(x) and f'(x) may be off in f32.
//
// All rest on e^-z, whose argument is off by 4 u relative at worst, that is 4 u |z| in the
// exponential, and on a dozen roundings (exponential 2, sum 1, quotient 1, polynomial of erfc 4,
// products 4). With f = x s(x), the derivative is s + x s': both terms are within |s| (1 + |x z'|),
// and |x z'| <= 3 |z|.
struct Bound {
  double value, slope;
};
Bound bound(Activation kind, double x) {
  const auto f = kernels::activate(kind, x);
  double z = std::abs(x);
  if (kind == Activation::kGeluTanh)
    z = 2 * kernels::kGeluScale * z * (1 + kernels::kGeluCube * z * z);
  if (kind == Activation::kGeluErf) z = x * x / 2;
  if (f.value == 0 || f.value == x) z = 0;  // saturated
  const double relative = kUlp * (12 + 4 * z), s = x == 0 ? 0.5 : f.value / x;
  // Exponentials below e^-87 are taken as 0.
  const double flushed = std::exp(-87) * (1 + 3 * z);
  return {relative * std::abs(f.value) + flushed * std::abs(x),
          relative * std::abs(s) * (1 + 3 * z) + flushed};
}

TEST(Activation, MatchesDouble) {
  for_each_kernel([&] {
    for (Activation kind : kAll) {
      SCOPED_TRACE(static_cast<int>(kind));
      for (int64_t d : row_lengths()) {
        const int64_t n = 3;
        auto x = GuardedRows<float>::random(n, d, 1, 3.0);
        auto d_y = GuardedRows<float>::random(n, d, 2);
        GuardedRows<float> y(n, d), d_x(n, d);
        GuardedRows<BF16> y16(n, d), d_x16(n, d);
        auto sum = GuardedRows<float>::random(n, d, 3);
        auto before = sum;
        activation_fwd(kind, n, d, x.in(), y.out());
        activation_fwd(kind, n, d, x.in(), y16.out());
        activation_bwd(kind, n, d, x.in(), d_y.in(), d_x.out(), false);
        activation_bwd(kind, n, d, x.in(), d_y.in(), d_x16.out(), false);
        activation_bwd(kind, n, d, x.in(), d_y.in(), sum.out(), true);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < d; ++j) {
            const double v = x.at(i, j), g = d_y.at(i, j);
            const auto want = kernels::activate(kind, v);
            const Bound b = bound(kind, v);
            ASSERT_NEAR(y.at(i, j), want.value, b.value) << v;
            ASSERT_NEAR(d_x.at(i, j), want.slope * g, b.slope * std::abs(g) + kTiny) << v;
            const double was = before.at(i, j);
            ASSERT_NEAR(sum.at(i, j), was + want.slope * g,
                        b.slope * std::abs(g) + 1.01 * kUlp * std::abs(was + want.slope * g));
          }
        expect_rounded(y16, y, n, d);
        expect_rounded(d_x16, d_x, n, d);
        ASSERT_TRUE(y.guards_intact() && y16.guards_intact() && d_x.guards_intact() &&
                    sum.guards_intact());
        ASSERT_TRUE(d_x16.guards_intact());
      }
    }
  });
}

TEST(Activation, GatedMatchesDouble) {
  for_each_kernel([&] {
    for (Activation kind : kAll) {
      SCOPED_TRACE(static_cast<int>(kind));
      for (int64_t d : row_lengths()) {
        const int64_t n = 2;
        auto wide = GuardedRows<float>::random(n, 2 * d, 1, 3.0);  // gate and up in one matrix
        const RowsIn gate = wide.in(), up{wide.data() + d, wide.in().stride};
        auto d_y = GuardedRows<float>::random(n, d, 2);
        GuardedRows<float> y(n, d), d_wide(n, 2 * d);
        GuardedRows<BF16> y16(n, d), d_wide16(n, 2 * d);
        auto sum = GuardedRows<float>::random(n, 2 * d, 3);
        auto before = sum;
        auto bwd = [&](RowsOut to, bool accumulate) {
          RowsOut d_up = to;
          d_up.data = static_cast<char*>(to.data) + d * size_of(to.dtype);
          glu_bwd(kind, n, d, gate, up, d_y.in(), to, d_up, accumulate);
        };
        glu_fwd(kind, n, d, gate, up, y.out());
        glu_fwd(kind, n, d, gate, up, y16.out());
        bwd(d_wide.out(), false);
        bwd(d_wide16.out(), false);
        bwd(sum.out(), true);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < d; ++j) {
            const double v = wide.at(i, j), u = wide.at(i, d + j), g = d_y.at(i, j);
            const auto f = kernels::activate(kind, v);
            const Bound b = bound(kind, v);
            // One or two more products: 2 u.
            ASSERT_NEAR(y.at(i, j), f.value * u,
                        (b.value + kUlp * std::abs(f.value)) * std::abs(u) + kTiny);
            const double bound_gate =
                (b.slope + 2 * kUlp * std::abs(f.slope)) * std::abs(u * g) + kTiny;
            const double bound_up = (b.value + kUlp * std::abs(f.value)) * std::abs(g) + kTiny;
            ASSERT_NEAR(d_wide.at(i, j), f.slope * u * g, bound_gate);
            ASSERT_NEAR(d_wide.at(i, d + j), f.value * g, bound_up);
            const double want_gate = before.at(i, j) + f.slope * u * g,
                         want_up = before.at(i, d + j) + f.value * g;
            ASSERT_NEAR(sum.at(i, j), want_gate, bound_gate + 1.01 * kUlp * std::abs(want_gate));
            ASSERT_NEAR(sum.at(i, d + j), want_up, bound_up + 1.01 * kUlp * std::abs(want_up));
          }
        expect_rounded(y16, y, n, d);
        expect_rounded(d_wide16, d_wide, n, 2 * d);
        ASSERT_TRUE(y.guards_intact() && y16.guards_intact() && d_wide.guards_intact() &&
                    sum.guards_intact());
        // All in bf16: as if f32 rows held the same values.
        GuardedRows<BF16> wide_b(n, 2 * d), d_y_b(n, d), y_b(n, d), d_wide_b(n, 2 * d);
        const auto round_into = [](GuardedRows<float>& from, int64_t cols, GuardedRows<BF16>& to) {
          for (int64_t i = 0; i < n; ++i)
            for (int64_t j = 0; j < cols; ++j) {
              to.row(i)[j] = to_bf16(from.at(i, j));
              from.row(i)[j] = to_f32(to.row(i)[j]);
            }
        };
        auto wide_r = wide, d_y_r = d_y;
        round_into(wide_r, 2 * d, wide_b);
        round_into(d_y_r, d, d_y_b);
        const auto second = [&](auto rows) {
          rows.data =
              const_cast<char*>(static_cast<const char*>(rows.data)) + d * size_of(rows.dtype);
          return rows;
        };
        glu_fwd(kind, n, d, wide_b.any(), second(wide_b.any()), y_b.out());
        glu_bwd(kind, n, d, wide_b.any(), second(wide_b.any()), d_y_b.any(), d_wide_b.out(),
                second(d_wide_b.out()), false);
        glu_fwd(kind, n, d, wide_r.in(), second(RowsAny(wide_r.in())), y.out());
        glu_bwd(kind, n, d, wide_r.in(), second(RowsAny(wide_r.in())), d_y_r.in(), d_wide.out(),
                second(d_wide.out()), false);
        expect_rounded(y_b, y, n, d);
        expect_rounded(d_wide_b, d_wide, n, 2 * d);
        ASSERT_TRUE(y_b.guards_intact() && d_wide_b.guards_intact());
        glu_fwd(kind, n, d, gate, up, y.out());
        bwd(d_wide.out(), false);
        // In place: the gradient of the gate over the gate, of up over the incoming one; y over up.
        auto over_gate = wide;
        auto over_d_y = d_y;
        glu_bwd(kind, n, d, over_gate.in(), RowsIn{over_gate.data() + d, wide.in().stride},
                over_d_y.in(), over_gate.out(), over_d_y.out(), false);
        auto over_up = wide;
        glu_fwd(kind, n, d, over_up.in(), RowsIn{over_up.data() + d, wide.in().stride},
                {over_up.data() + d, DType::kF32, wide.in().stride});
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < d; ++j) {
            ASSERT_EQ(over_gate.at(i, j), d_wide.at(i, j));
            ASSERT_EQ(over_d_y.at(i, j), d_wide.at(i, d + j));
            ASSERT_EQ(over_up.at(i, d + j), y.at(i, j));
          }
      }
    }
  });
}

// Every 2^-9 from -16 to 16: no argument is off by more than the bound, in particular at the joints
// of polynomials.
TEST(Activation, IsAccurateOverTheWholeRange) {
  const int64_t d = 32 * 512;
  GuardedRows<float> x(1, d), y(1, d), d_x(1, d), ones(1, d);
  for (int64_t j = 0; j < d; ++j) {
    x.at(0, j) = static_cast<float>(j - d / 2) / 512.0f;
    ones.at(0, j) = 1;
  }
  for_each_kernel([&] {
    for (Activation kind : kAll) {
      SCOPED_TRACE(static_cast<int>(kind));
      activation_fwd(kind, 1, d, x.in(), y.out());
      activation_bwd(kind, 1, d, x.in(), ones.in(), d_x.out(), false);
      for (int64_t j = 0; j < d; ++j) {
        const auto want = kernels::activate(kind, static_cast<double>(x.at(0, j)));
        const Bound b = bound(kind, x.at(0, j));
        ASSERT_NEAR(y.at(0, j), want.value, b.value) << x.at(0, j);
        ASSERT_NEAR(d_x.at(0, j), want.slope, b.slope) << x.at(0, j);
      }
    }
  });
}

TEST(Activation, HasNoNanForExtremeArguments) {
  const std::vector<float> extreme = {-3e38f, -1e20f, -1e4f, -104, -88.8f, -1e-38f, -0.0f, 0.0f,
                                      1e-45f, 1e-38f, 88.8f, 104,  1e4f,   1e20f,   3e38f};
  const int64_t d = static_cast<int64_t>(extreme.size());
  GuardedRows<float> x(1, d), y(1, d), d_x(1, d), ones(1, d);
  for (int64_t j = 0; j < d; ++j) {
    x.at(0, j) = extreme[static_cast<size_t>(j)];
    ones.at(0, j) = 1;
  }
  for_each_kernel([&] {
    for (Activation kind :
         {Activation::kSilu, Activation::kGeluTanh, Activation::kGeluErf, Activation::kRelu}) {
      SCOPED_TRACE(static_cast<int>(kind));
      activation_fwd(kind, 1, d, x.in(), y.out());
      activation_bwd(kind, 1, d, x.in(), ones.in(), d_x.out(), false);
      for (int64_t j = 0; j < d; ++j) {
        const double v = extreme[static_cast<size_t>(j)];
        if (std::abs(v) >= 1e4) {
          ASSERT_EQ(y.at(0, j), v > 0 ? extreme[static_cast<size_t>(j)] : 0.0f) << v;
          ASSERT_EQ(d_x.at(0, j), v > 0 ? 1.0f : 0.0f) << v;
        } else {
          ASSERT_TRUE(std::isfinite(y.at(0, j)) && std::isfinite(d_x.at(0, j))) << v;
        }
      }
    }
  });
}

TEST(Activation, RefusesWhatDoesNotFit) {
  std::vector<float> x(12);
  const RowsIn in{x.data(), 4};
  const RowsOut out{x.data(), DType::kF32, 4}, out16{x.data(), DType::kBF16, 4};
  for_each_kernel([&] {
    EXPECT_THROW(glu_fwd(Activation::kSilu, 3, 4, in, {}, out), Error);
    EXPECT_THROW(glu_fwd(Activation::kSilu, 3, 5, in, in, out), Error);
    EXPECT_THROW(glu_bwd(Activation::kSilu, 3, 4, in, in, in, out, out16, false), Error);
    EXPECT_THROW(glu_bwd(Activation::kSilu, 3, 4, in, in, in, out16, out16, true), Error);
    EXPECT_THROW(activation_fwd(Activation::kSilu, -1, 4, in, out), Error);
  });
}

}  // namespace
}  // namespace signround
