#include "signround/ops/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "signround/kernels/cpu/rms_norm_ref.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;

TEST(RmsNorm, ReferenceBackwardMatchesComplexStep) {
  const int64_t d = 7;
  const double eps = 1e-5;
  for (double offset : {0.0, 1.0}) {
    const auto values = random_normal(3 * d, 11);
    std::vector<Complex> x(values.begin(), values.begin() + d),
        w(values.begin() + d, values.begin() + 2 * d), y(d);
    const std::vector<double> d_y(values.begin() + 2 * d, values.end());
    auto loss = [&] {
      kernels::rms_norm_fwd_row(x.data(), w.data(), offset, eps, d, y.data());
      Complex sum = 0;
      for (size_t j = 0; j < y.size(); ++j) sum += d_y[j] * y[j];
      return sum;
    };
    const auto want_x = complex_step_grad({x.data(), 1, d}, loss);
    const auto want_w = complex_step_grad({w.data(), 1, d}, loss);

    std::vector<double> xr(d), wr(d), d_x(d), d_w(d), yr(d);
    for (size_t j = 0; j < xr.size(); ++j) xr[j] = x[j].real(), wr[j] = w[j].real();
    const double r = kernels::rms_norm_fwd_row(xr.data(), wr.data(), offset, eps, d, yr.data());
    kernels::rms_norm_bwd_row(xr.data(), wr.data(), offset, r, d_y.data(), d, false, d_x.data());
    kernels::rms_norm_bwd_w_row(xr.data(), r, d_y.data(), 0, d, d_w.data());
    for (size_t j = 0; j < d_x.size(); ++j) {
      EXPECT_NEAR(d_x[j], want_x[j], 1e-12) << "d_x at " << j;
      EXPECT_NEAR(d_w[j], want_w[j], 1e-12) << "d_w at " << j;
    }
  }
}

struct Case {
  int64_t tokens, heads, dim;
  HeadShape shape() const { return {tokens, heads, dim}; }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (int64_t d : row_lengths()) all.push_back({3, 1, d});
  all.insert(all.end(), {{0, 1, 8}, {5, 3, 4}, {2, 4, 64}, {70, 2, 19}});
  if (on_cuda())  // several rows for a block; rows that registers do not hold
    all.insert(all.end(), {{1200, 1, 516}, {1100, 1, 128}, {2, 1, 8200}, {3, 2, 9001}});
  return all;
}

// Any order of summation of d squares is off by at most d u relative, its root by half of that; the
// divisions, the root and the products add a few more u.
TEST(RmsNorm, ForwardMatchesDouble) {
  for_each_kernel([&] {
    for (const Case& c : cases()) {
      SCOPED_TRACE(::testing::Message() << c.tokens << " x " << c.heads << " x " << c.dim);
      const HeadShape s = c.shape();
      auto x = GuardedRows<float>::random(c.tokens, s.cols(), 1, 2.0);
      const auto w = random_normal(c.dim, 2);
      GuardedRows<float> y(c.tokens, s.cols());
      GuardedRows<BF16> y16(c.tokens, s.cols(), 5, 3);
      std::vector<float> rstd(static_cast<size_t>(s.rows()));
      const RmsNormOptions options{1e-5f, 1.0f};
      rms_norm_fwd(s, x.in(), w, options, y.out(), rstd);
      rms_norm_fwd(s, x.in(), w, options, y16.out(), {});
      for (int64_t r = 0; r < s.rows(); ++r) {
        const auto xr = to<double>(x.row(r / c.heads) + r % c.heads * c.dim, c.dim);
        const auto wr = to<double>(w.data(), c.dim);
        std::vector<double> want(static_cast<size_t>(c.dim));
        const double want_r = kernels::rms_norm_fwd_row(
            xr.data(), wr.data(), 1.0, static_cast<double>(options.eps), c.dim, want.data());
        const double tolerance = kUlp * (0.5 * static_cast<double>(c.dim) + 8);
        if (c.dim > 0) {
          ASSERT_NEAR(rstd[static_cast<size_t>(r)], want_r, want_r * tolerance);
        }
        for (int64_t j = 0; j < c.dim; ++j) {
          const double v = want[static_cast<size_t>(j)];
          // w + 1 is rounded before the product.
          const double of_w = kUlp * std::abs(v) * 2;
          ASSERT_NEAR(y.row(r / c.heads)[r % c.heads * c.dim + j], v,
                      std::abs(v) * tolerance + of_w)
              << j;
        }
      }
      expect_rounded(y16, y, c.tokens, s.cols());
      ASSERT_TRUE(y.guards_intact() && y16.guards_intact());
    }
  });
}

TEST(RmsNorm, WorksInPlaceAndWithoutWeights) {
  for_each_kernel([&] {
    auto x = GuardedRows<float>::random(4, 37, 5);
    GuardedRows<float> apart(4, 37), ones_out(4, 37);
    const std::vector<float> ones(37, 1.0f);
    rms_norm_fwd({4, 1, 37}, x.in(), {}, {}, apart.out(), {});
    rms_norm_fwd({4, 1, 37}, x.in(), ones, {}, ones_out.out(), {});
    rms_norm_fwd({4, 1, 37}, x.in(), {}, {}, x.out(), {});
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < 37; ++j) {
        ASSERT_EQ(x.at(i, j), apart.at(i, j));
        ASSERT_EQ(ones_out.at(i, j), apart.at(i, j));
      }
  });
}

TEST(RmsNorm, BackwardMatchesDouble) {
  for_each_kernel([&] {
    for (const Case& c : cases()) {
      SCOPED_TRACE(::testing::Message() << c.tokens << " x " << c.heads << " x " << c.dim);
      const HeadShape s = c.shape();
      auto x = GuardedRows<float>::random(c.tokens, s.cols(), 1, 2.0);
      auto d_y = GuardedRows<float>::random(c.tokens, s.cols(), 2);
      const auto w = random_normal(c.dim, 3);
      GuardedRows<float> y(c.tokens, s.cols()), d_x(c.tokens, s.cols());
      GuardedRows<BF16> d_x16(c.tokens, s.cols());
      auto sum = GuardedRows<float>::random(c.tokens, s.cols(), 4);
      auto before = sum;
      std::vector<float> rstd(static_cast<size_t>(s.rows()));
      auto d_w = random_normal(c.dim, 5);
      const auto d_w_before = d_w;
      const RmsNormOptions options{1e-5f, 0.0f};
      rms_norm_fwd(s, x.in(), w, options, y.out(), rstd);
      rms_norm_bwd(s, x.in(), w, rstd, d_y.in(), options, d_x.out(), false, d_w);
      rms_norm_bwd(s, x.in(), w, rstd, d_y.in(), options, d_x16.out(), false);
      rms_norm_bwd(s, x.in(), w, rstd, d_y.in(), options, sum.out(), true);
      auto in_place = d_y;
      auto d_w_in_place = d_w_before;
      rms_norm_bwd(s, x.in(), w, rstd, in_place.in(), options, in_place.out(), false, d_w_in_place);
      ASSERT_EQ(d_w_in_place, d_w);

      std::vector<double> want_w(d_w_before.begin(), d_w_before.end()), size_w(want_w.size());
      for (int64_t r = 0; r < s.rows(); ++r) {
        const int64_t t = r / c.heads, at = r % c.heads * c.dim;
        const auto xr = to<double>(x.row(t) + at, c.dim), d_yr = to<double>(d_y.row(t) + at, c.dim);
        const auto wr = to<double>(w.data(), c.dim);
        const double rr = rstd[static_cast<size_t>(r)];
        std::vector<double> want(static_cast<size_t>(c.dim));
        kernels::rms_norm_bwd_row(xr.data(), wr.data(), 0.0, rr, d_yr.data(), c.dim, false,
                                  want.data());
        kernels::rms_norm_bwd_w_row(xr.data(), rr, d_yr.data(), 0, c.dim, want_w.data());
        double size_dot = 0;  // sum of |d_y w x|
        for (size_t j = 0; j < want.size(); ++j) {
          size_dot += std::abs(d_yr[j] * wr[j] * xr[j]);
          size_w[j] += std::abs(d_yr[j] * xr[j] * rr);
        }
        for (int64_t j = 0; j < c.dim; ++j) {
          const size_t k = static_cast<size_t>(j);
          // Direct term: 3 roundings. Term through r: a sum of d products (d + 2), and 6 roundings.
          // Two for the difference of the terms, one to add to what was there.
          const double direct = std::abs(d_yr[k] * wr[k] * rr);
          const double through =
              std::abs(xr[k]) * rr * rr * rr * size_dot / static_cast<double>(c.dim);
          const double tolerance =
              kUlp * (5 * direct + (static_cast<double>(c.dim) + 10) * through);
          ASSERT_NEAR(d_x.row(t)[at + j], want[k], tolerance) << "row " << r << " column " << j;
          const double was = before.row(t)[at + j];
          ASSERT_NEAR(sum.row(t)[at + j], was + want[k],
                      tolerance + kUlp * (std::abs(was) + std::abs(want[k]) * 2));
          ASSERT_EQ(in_place.row(t)[at + j], d_x.row(t)[at + j]);
        }
      }
      for (size_t j = 0; j < want_w.size(); ++j) {
        const double n = static_cast<double>(s.rows());
        ASSERT_NEAR(d_w[j], want_w[j], kUlp * ((n + 4) * (size_w[j] + std::abs(d_w_before[j]))))
            << "d_w at " << j;
      }
      expect_rounded(d_x16, d_x, c.tokens, s.cols());
      ASSERT_TRUE(d_x.guards_intact() && d_x16.guards_intact() && sum.guards_intact());
    }
  });
}

TEST(RmsNorm, AddAndNormIsAddThenNorm) {
  for_each_kernel([&] {
    for (int64_t d : row_lengths()) {
      auto x = GuardedRows<float>::random(3, d, 1), y = GuardedRows<float>::random(3, d, 2);
      const auto w = random_normal(d, 3);
      GuardedRows<float> z(3, d), h(3, d), want(3, d);
      GuardedRows<BF16> h16(3, d);
      std::vector<float> rstd(3), want_rstd(3);
      add_rms_norm_fwd(3, d, x.in(), y.in(), w, {}, z.out(), h.out(), rstd);
      add_rms_norm_fwd(3, d, x.in(), y.in(), w, {}, x.out(), h16.out(), {});
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < d; ++j) ASSERT_EQ(z.at(i, j), x.at(i, j));
      rms_norm_fwd({3, 1, d}, z.in(), w, {}, want.out(), want_rstd);
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < d; ++j) ASSERT_EQ(h.at(i, j), want.at(i, j)) << d;
      if (d > 0) {
        ASSERT_EQ(rstd, want_rstd);
      }
      expect_rounded(h16, h, 3, d);
      ASSERT_TRUE(z.guards_intact() && h.guards_intact() && h16.guards_intact());
    }
  });
}

TEST(RmsNorm, WeightGradientDoesNotDependOnTheThreadCount) {
  const int64_t n = 300, d = 200;
  auto x = GuardedRows<float>::random(n, d, 1), d_y = GuardedRows<float>::random(n, d, 2);
  const std::vector<float> rstd(static_cast<size_t>(n), 0.7f);
  std::vector<std::vector<float>> grads;
  for (int threads : {1, 2, 3}) {
    set_num_threads(threads);
    std::vector<float> d_w(static_cast<size_t>(d));
    GuardedRows<float> d_x(n, d);
    rms_norm_bwd({n, 1, d}, x.in(), {}, rstd, d_y.in(), {}, d_x.out(), false, d_w);
    grads.push_back(d_w);
  }
  set_num_threads(0);
  EXPECT_EQ(grads[0], grads[1]);
  EXPECT_EQ(grads[0], grads[2]);
}

TEST(RmsNorm, RefusesWhatDoesNotFit) {
  std::vector<float> x(12), w(3), rstd(3);
  const RowsIn in{x.data(), 4};
  for_each_kernel([&] {
    EXPECT_THROW(rms_norm_fwd({3, 1, 4}, in, w, {}, {x.data(), DType::kF32, 4}, rstd),
                 Error);  // 3 weights
    EXPECT_THROW(rms_norm_fwd({3, 1, 3}, {x.data(), 2}, w, {}, {x.data(), DType::kF32, 4}, rstd),
                 Error);
    EXPECT_THROW(rms_norm_fwd({3, 1, 3}, in, w, {}, {x.data(), DType::kF16, 4}, rstd), Error);
    EXPECT_THROW(rms_norm_fwd({3, 1, 3}, {}, w, {}, {x.data(), DType::kF32, 4}, rstd), Error);
    EXPECT_THROW(rms_norm_bwd({3, 1, 3}, in, w, {}, in, {}, {x.data(), DType::kF32, 4}, false),
                 Error);  // no rstd
    EXPECT_THROW(rms_norm_bwd({3, 1, 3}, in, w, rstd, in, {}, {x.data(), DType::kBF16, 4}, true),
                 Error);
  });
}

}  // namespace
}  // namespace signround
