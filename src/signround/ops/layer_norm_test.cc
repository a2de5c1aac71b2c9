#include "signround/ops/layer_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "signround/kernels/cpu/layer_norm_ref.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;

TEST(LayerNorm, ReferenceBackwardMatchesComplexStep) {
  const int64_t d = 7;
  const double eps = 1e-5;
  const auto values = random_normal(4 * d, 11);
  auto part = [&](int64_t k) { return values.begin() + k * d; };
  std::vector<Complex> x(part(0), part(1)), w(part(1), part(2)), b(part(2), part(3)), y(d);
  const std::vector<double> d_y(part(3), part(4));
  auto loss = [&] {
    kernels::layer_norm_fwd_row(x.data(), w.data(), b.data(), eps, d, y.data());
    Complex sum = 0;
    for (size_t j = 0; j < y.size(); ++j) sum += d_y[j] * y[j];
    return sum;
  };
  const auto want_x = complex_step_grad({x.data(), 1, d}, loss);
  const auto want_w = complex_step_grad({w.data(), 1, d}, loss);
  const auto want_b = complex_step_grad({b.data(), 1, d}, loss);

  const std::vector<double> xr(part(0), part(1)), wr(part(1), part(2)), br(part(2), part(3));
  std::vector<double> d_x(d), d_w(d), d_b(d), yr(d);
  const auto saved =
      kernels::layer_norm_fwd_row(xr.data(), wr.data(), br.data(), eps, d, yr.data());
  kernels::layer_norm_bwd_row(xr.data(), wr.data(), saved.mean, saved.rstd, d_y.data(), d, false,
                              d_x.data());
  kernels::layer_norm_bwd_w_row(xr.data(), saved.mean, saved.rstd, d_y.data(), 0, d, d_w.data(),
                                d_b.data());
  for (size_t j = 0; j < d_x.size(); ++j) {
    EXPECT_NEAR(d_x[j], want_x[j], 1e-12) << "d_x at " << j;
    EXPECT_NEAR(d_w[j], want_w[j], 1e-12) << "d_w at " << j;
    EXPECT_NEAR(d_b[j], want_b[j], 1e-12) << "d_b at " << j;
  }
}

std::vector<HeadShape> shapes() {
  std::vector<HeadShape> all;
  for (int64_t d : row_lengths()) all.push_back({3, 1, d});
  all.insert(all.end(), {{0, 1, 8}, {5, 3, 4}, {70, 2, 19}});
  return all;
}

// With D = dim: the mean is off by (D + 1) u mean|x|, which moves each y by that times w r; the
// variance changes only by its square. The sum of squares is off by (D + 3) u, its root by half of
// that. A handful of roundings on top.
TEST(LayerNorm, ForwardMatchesDouble) {
  for_each_cpu_kernel([&] {
    for (const HeadShape& s : shapes()) {
      SCOPED_TRACE(::testing::Message() << s.tokens << " x " << s.heads << " x " << s.dim);
      auto x = GuardedRows<float>::random(s.tokens, s.cols(), 1, 2.0);
      const auto w = random_normal(s.dim, 2), b = random_normal(s.dim, 3);
      GuardedRows<float> y(s.tokens, s.cols());
      GuardedRows<BF16> y16(s.tokens, s.cols());
      std::vector<float> mean(static_cast<size_t>(s.rows())), rstd(mean.size());
      const float eps = 1e-2f;
      layer_norm_fwd(s, x.in(), w, b, eps, y.out(), mean, rstd);
      layer_norm_fwd(s, x.in(), w, b, eps, y16.out(), {}, {});
      for (int64_t r = 0; r < s.rows(); ++r) {
        const int64_t t = r / s.heads, at = r % s.heads * s.dim;
        const auto xr = to<double>(x.row(t) + at, s.dim), wr = to<double>(w.data(), s.dim),
                   br = to<double>(b.data(), s.dim);
        std::vector<double> want(xr.size());
        const auto saved = kernels::layer_norm_fwd_row(
            xr.data(), wr.data(), br.data(), static_cast<double>(eps), s.dim, want.data());
        double size_x = 0;
        for (double v : xr) size_x += std::abs(v) / static_cast<double>(s.dim);
        const double dims = static_cast<double>(s.dim), of_mean = kUlp * (dims + 1) * size_x;
        for (size_t j = 0; j < want.size(); ++j) {
          const double scaled = std::abs(want[j] - br[j]);
          const double tolerance = std::abs(wr[j]) * saved.rstd * of_mean * 1.01 +
                                   kUlp * ((dims / 2 + 10) * scaled + std::abs(want[j])) + kTiny;
          ASSERT_NEAR(y.row(t)[at + static_cast<int64_t>(j)], want[j], tolerance) << j;
        }
        if (s.dim > 0) {
          ASSERT_NEAR(mean[static_cast<size_t>(r)], saved.mean, of_mean);
        }
      }
      expect_rounded(y16, y, s.tokens, s.cols());
      ASSERT_TRUE(y.guards_intact() && y16.guards_intact());
    }
  });
}

TEST(LayerNorm, BackwardMatchesDouble) {
  for_each_cpu_kernel([&] {
    for (const HeadShape& s : shapes()) {
      for (bool weights : {true, false}) {
        SCOPED_TRACE(::testing::Message() << s.tokens << " x " << s.heads << " x " << s.dim);
        auto x = GuardedRows<float>::random(s.tokens, s.cols(), 1, 2.0);
        auto d_y = GuardedRows<float>::random(s.tokens, s.cols(), 2);
        const auto w = weights ? random_normal(s.dim, 3) : std::vector<float>();
        GuardedRows<float> y(s.tokens, s.cols()), d_x(s.tokens, s.cols());
        GuardedRows<BF16> d_x16(s.tokens, s.cols());
        auto sum = GuardedRows<float>::random(s.tokens, s.cols(), 4);
        auto before = sum;
        std::vector<float> mean(static_cast<size_t>(s.rows())), rstd(mean.size());
        auto d_w = random_normal(s.dim, 5), d_b = random_normal(s.dim, 6);
        const auto d_w_before = d_w, d_b_before = d_b;
        layer_norm_fwd(s, x.in(), w, {}, 1e-2f, y.out(), mean, rstd);
        layer_norm_bwd(s, x.in(), w, mean, rstd, d_y.in(), d_x.out(), false, d_w, d_b);
        layer_norm_bwd(s, x.in(), w, mean, rstd, d_y.in(), d_x16.out(), false);
        layer_norm_bwd(s, x.in(), w, mean, rstd, d_y.in(), sum.out(), true);
        auto in_place = d_y;
        auto only_b = d_b_before;
        layer_norm_bwd(s, x.in(), w, mean, rstd, in_place.in(), in_place.out(), false, {}, only_b);
        ASSERT_EQ(only_b, d_b);

        const double dims = static_cast<double>(s.dim), rows = static_cast<double>(s.rows());
        std::vector<double> want_w(d_w_before.begin(), d_w_before.end()),
            want_b(d_b_before.begin(), d_b_before.end());
        std::vector<double> size_w(want_w.size()), size_b(want_b.size());
        for (int64_t r = 0; r < s.rows(); ++r) {
          const int64_t t = r / s.heads, at = r % s.heads * s.dim;
          const auto xr = to<double>(x.row(t) + at, s.dim),
                     d_yr = to<double>(d_y.row(t) + at, s.dim);
          const auto wr = weights ? to<double>(w.data(), s.dim)
                                  : std::vector<double>(static_cast<size_t>(s.dim), 1.0);
          const double m = mean[static_cast<size_t>(r)], rr = rstd[static_cast<size_t>(r)];
          std::vector<double> want(xr.size());
          kernels::layer_norm_bwd_row(xr.data(), wr.data(), m, rr, d_yr.data(), s.dim, false,
                                      want.data());
          kernels::layer_norm_bwd_w_row(xr.data(), m, rr, d_yr.data(), 0, s.dim, want_w.data(),
                                        want_b.data());
          double size_g = 0, size_gh = 0;  // means of |g| and |g h|
          for (size_t j = 0; j < want.size(); ++j) {
            const double h = (xr[j] - m) * rr, g = d_yr[j] * wr[j];
            size_g += std::abs(g) / dims;
            size_gh += std::abs(g * h) / dims;
            size_w[j] += std::abs(d_yr[j] * h);
            size_b[j] += std::abs(d_yr[j]);
          }
          for (size_t j = 0; j < want.size(); ++j) {
            // A sum of D products with 4 roundings each; then at most 8 more of each of the three
            // terms.
            const double h = std::abs((xr[j] - m) * rr), g = std::abs(d_yr[j] * wr[j]);
            const double tolerance =
                rr * kUlp * (5 * g + (dims + 6) * size_g + (dims + 12) * h * size_gh) + kTiny;
            const int64_t col = at + static_cast<int64_t>(j);
            ASSERT_NEAR(d_x.at(t, col), want[j], tolerance) << "row " << r << " column " << j;
            const double total = before.at(t, col) + want[j];
            ASSERT_NEAR(sum.at(t, col), total, tolerance + 1.01 * kUlp * std::abs(total));
            ASSERT_EQ(in_place.at(t, col), d_x.at(t, col));
          }
        }
        for (size_t j = 0; j < want_w.size(); ++j) {
          ASSERT_NEAR(d_w[j], want_w[j], kUlp * (rows + 5) * (size_w[j] + std::abs(d_w_before[j])));
          ASSERT_NEAR(d_b[j], want_b[j], kUlp * (rows + 5) * (size_b[j] + std::abs(d_b_before[j])));
        }
        expect_rounded(d_x16, d_x, s.tokens, s.cols());
        ASSERT_TRUE(d_x.guards_intact() && d_x16.guards_intact() && sum.guards_intact());
      }
    }
  });
}

TEST(LayerNorm, RefusesWhatDoesNotFit) {
  std::vector<float> x(12), w(4), b(3), saved(3);
  const RowsIn in{x.data(), 4};
  const RowsOut out{x.data(), DType::kF32, 4};
  EXPECT_THROW(layer_norm_fwd({3, 1, 4}, in, w, b, 1e-5f, out, saved, saved), Error);  // 3 biases
  EXPECT_THROW(layer_norm_fwd({4, 1, 3}, {x.data(), 2}, b, b, 1e-5f, out, {}, {}), Error);
  EXPECT_THROW(layer_norm_bwd({3, 1, 4}, in, w, {}, saved, in, out, false), Error);  // no mean
}

}  // namespace
}  // namespace signround
