#include "signround/ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "signround/kernels/cpu/rope_ref.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;

constexpr RopeStyle kStyles[] = {RopeStyle::kHalfSplit, RopeStyle::kInterleaved};

std::vector<float> frequencies(int64_t half) {
  std::vector<float> f(static_cast<size_t>(half));
  for (size_t p = 0; p < f.size(); ++p)
    f[p] =
        static_cast<float>(std::pow(10000.0, -static_cast<double>(p) / static_cast<double>(half)));
  return f;
}

// In the memory that a test reads, whatever computes.
RopeTable host_table(std::span<const float> inv_freq, double attention_factor, int64_t positions) {
  const DeviceScope host({});
  return rope_table(inv_freq, attention_factor, positions);
}

TEST(Rope, ReferenceBackwardMatchesComplexStep) {
  const int64_t dim = 10, rot = 6;
  const auto table = host_table(frequencies(rot / 2), 1.25, 9);
  const float *cos = table.cos.view().row(7).data(), *sin = table.sin.view().row(7).data();
  for (RopeStyle style : kStyles) {
    const auto values = random_normal(2 * dim, 3);
    std::vector<Complex> x(values.begin(), values.begin() + dim), y(dim);
    const std::vector<double> d_y(values.begin() + dim, values.end());
    const auto want = complex_step_grad({x.data(), 1, dim}, [&] {
      kernels::rope_fwd_head(x.data(), cos, sin, style, rot, dim, y.data());
      Complex sum = 0;
      for (size_t j = 0; j < y.size(); ++j) sum += d_y[j] * y[j];
      return sum;
    });
    std::vector<double> d_x(dim);
    kernels::rope_bwd_head(d_y.data(), cos, sin, style, rot, dim, false, d_x.data());
    for (size_t j = 0; j < d_x.size(); ++j) EXPECT_NEAR(d_x[j], want[j], 1e-12) << j;
  }
}

// The rule of transformers' apply_rotary_pos_emb, written out: x * cos + rotate_half(x) * sin with
// cos and sin repeated for both halves.
TEST(Rope, HalfSplitIsRotateHalf) {
  const int64_t dim = 8;
  const auto table = host_table(frequencies(4), 1.0, 6);
  auto x = GuardedRows<float>::random(6, dim, 1);
  GuardedRows<float> y(6, dim);
  rope_fwd({6, 1, dim}, x.in(), table, {RopeStyle::kHalfSplit, 0, 6}, y.out());
  for (int64_t t = 0; t < 6; ++t)
    for (int64_t j = 0; j < dim; ++j) {
      const double angle =
          static_cast<double>(static_cast<float>(t) * frequencies(4)[static_cast<size_t>(j % 4)]);
      const double rotated = j < 4 ? -x.at(t, j + 4) : x.at(t, j - 4);
      const double want = x.at(t, j) * std::cos(angle) + rotated * std::sin(angle);
      EXPECT_NEAR(y.at(t, j), want, 4 * kUlp * (std::abs(x.at(t, j)) + std::abs(rotated)));
    }
}

struct Case {
  int64_t tokens, heads, dim, rot;
};

std::vector<Case> cases() {
  std::vector<Case> all = {
      {0, 2, 8, 8}, {7, 3, 64, 64}, {7, 3, 80, 32}, {6, 2, 128, 96}, {4, 1, 5, 0}};
  for (int64_t rot = 2; rot <= 70; rot += 2) all.push_back({5, 2, rot + rot % 3, rot});
  return all;
}

// Two products and a sum: 3 roundings of |a cos| + |b sin|; another to add.
TEST(Rope, MatchesDoubleForwardAndBackward) {
  for_each_kernel([&] {
    for (RopeStyle style : kStyles) {
      for (const Case& c : cases()) {
        SCOPED_TRACE(::testing::Message()
                     << c.tokens << " x " << c.heads << " x " << c.dim << " of which " << c.rot);
        const HeadShape s{c.tokens, c.heads, c.dim};
        const RopeOptions options{style, 2, 4};
        const auto table = host_table(frequencies(c.rot / 2), 1.5, 6);
        auto x = GuardedRows<float>::random(c.tokens, s.cols(), 1);
        auto in_place = x;
        GuardedRows<float> y(c.tokens, s.cols()), d_x(c.tokens, s.cols());
        GuardedRows<BF16> y16(c.tokens, s.cols()), d_x16(c.tokens, s.cols());
        auto sum = GuardedRows<float>::random(c.tokens, s.cols(), 2);
        auto before = sum;
        rope_fwd(s, x.in(), table, options, y.out());
        rope_fwd(s, x.in(), table, options, y16.out());
        rope_fwd(s, in_place.in(), table, options, in_place.out());
        rope_bwd(s, x.in(), table, options, d_x.out(), false);
        rope_bwd(s, x.in(), table, options, d_x16.out(), false);
        // From bf16: as from f32 that holds the same values; in place too.
        GuardedRows<BF16> x16(c.tokens, s.cols()), from16(c.tokens, s.cols());
        GuardedRows<float> x_rounded(c.tokens, s.cols());
        for (int64_t t = 0; t < c.tokens; ++t)
          for (int64_t j = 0; j < s.cols(); ++j) {
            x16.row(t)[j] = to_bf16(x.at(t, j));
            x_rounded.row(t)[j] = to_f32(x16.row(t)[j]);
          }
        rope_bwd(s, x_rounded.in(), table, options, from16.out(), false);
        rope_bwd(s, x16.any(), table, options, x16.out(), false);
        rope_bwd(s, x.in(), table, options, sum.out(), true);
        for (int64_t t = 0; t < c.tokens; ++t) {
          const int64_t position = 2 + t % 4;
          const float *cos = table.cos.view().row(position).data(),
                      *sin = table.sin.view().row(position).data();
          for (int64_t h = 0; h < c.heads; ++h) {
            const auto xr = to<double>(x.row(t) + h * c.dim, c.dim);
            std::vector<double> fwd(xr.size()), bwd(xr.size());
            kernels::rope_fwd_head(xr.data(), cos, sin, style, c.rot, c.dim, fwd.data());
            kernels::rope_bwd_head(xr.data(), cos, sin, style, c.rot, c.dim, false, bwd.data());
            double largest = 0;
            for (double v : xr) largest = std::max(largest, std::abs(v));
            for (int64_t j = 0; j < c.dim; ++j) {
              const double tolerance = 3 * kUlp * 2 * 1.5 * largest;
              const size_t k = static_cast<size_t>(j);
              const int64_t at = h * c.dim + j;
              ASSERT_NEAR(y.at(t, at), fwd[k], tolerance);
              ASSERT_NEAR(d_x.at(t, at), bwd[k], tolerance);
              const double was = before.at(t, at);
              ASSERT_NEAR(sum.at(t, at), was + bwd[k],
                          tolerance + kUlp * std::abs(was + bwd[k]) * 1.01);
              ASSERT_EQ(in_place.at(t, at), y.at(t, at));
              ASSERT_EQ(x16.row(t)[at].bits, from16.row(t)[at].bits);
              if (j >= c.rot) {
                ASSERT_EQ(y.at(t, at), x.at(t, at));
              }
            }
          }
        }
        expect_rounded(y16, y, c.tokens, s.cols());
        expect_rounded(d_x16, d_x, c.tokens, s.cols());
        ASSERT_TRUE(y.guards_intact() && y16.guards_intact() && d_x.guards_intact() &&
                    sum.guards_intact());
      }
    }
  });
}

TEST(Rope, RefusesWhatDoesNotFit) {
  std::vector<float> x(64);
  const auto table = host_table(frequencies(4), 1.0, 4);
  const RowsIn in{x.data(), 8};
  const RowsOut out{x.data(), DType::kF32, 8};
  for_each_kernel([&] {
    EXPECT_THROW(rope_fwd({5, 1, 8}, in, table, {RopeStyle::kHalfSplit, 0, 5}, out),
                 Error);  // position 4
    EXPECT_THROW(rope_fwd({4, 1, 8}, in, table, {RopeStyle::kHalfSplit, 1, 4}, out),
                 Error);  // position 4
    EXPECT_THROW(rope_fwd({4, 1, 8}, in, table, {RopeStyle::kHalfSplit, 0, 0}, out), Error);
    EXPECT_THROW(rope_fwd({4, 1, 6}, in, table, {RopeStyle::kHalfSplit, 0, 4}, out),
                 Error);  // 8 of 6 dimensions
    EXPECT_NO_THROW(rope_fwd({8, 1, 8}, in, table, {RopeStyle::kHalfSplit, 0, 4}, out));
  });
}

}  // namespace
}  // namespace signround
