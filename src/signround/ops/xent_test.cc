#include "signround/ops/xent.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "signround/kernels/cpu/xent_ref.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;
constexpr float kInf = std::numeric_limits<float>::infinity();

TEST(Xent, ReferenceBackwardMatchesComplexStep) {
  const int64_t n = 9;
  const auto values = random_normal(2 * n, 5, 2.0);
  std::vector<Complex> x(values.begin(), values.begin() + n), ref(values.begin() + n, values.end());
  const auto want = complex_step_grad({x.data(), 1, n}, [&] {
    const Complex lse = kernels::log_sum_exp_row<Complex>(x.data(), n);
    return 0.3 * kernels::kl_fwd_row(x.data(), lse, ref.data(),
                                     kernels::log_sum_exp_row<Complex>(ref.data(), n), n);
  });
  const std::vector<double> xr(values.begin(), values.begin() + n),
      rr(values.begin() + n, values.end());
  std::vector<double> d_x(static_cast<size_t>(n));
  kernels::kl_bwd_row(xr.data(), kernels::log_sum_exp_row<double>(xr.data(), n), rr.data(),
                      kernels::log_sum_exp_row<double>(rr.data(), n), 0.3, n, d_x.data());
  for (size_t j = 0; j < want.size(); ++j) EXPECT_NEAR(d_x[j], want[j], 1e-12);
}

// A term e^(x - max) has 3 u of the exponential and (x - max) u of its argument; the sum adds up to
// 18 u, see sum_vectors_double. What has weight in the sum has max - x < 17 + log n, so below 60 u
// in all.
constexpr double kSumError = 60 * kUlp;

TEST(Xent, MatchesDouble) {
  for_each_kernel([&] {
    auto lengths = row_lengths();
    if (on_cuda()) lengths.push_back(20012);
    for (int64_t vocab : lengths) {
      if (vocab == 0) continue;
      const int64_t n = 3;
      auto x = GuardedRows<float>::random(n, vocab, 7, 4.0);
      const std::vector<int32_t> targets = {0, static_cast<int32_t>(vocab - 1), -1};
      std::vector<XentRow> rows(3);
      xent_fwd(n, vocab, x.in(), targets, rows);
      for (int64_t i = 0; i < n; ++i) {
        const XentRow& row = rows[static_cast<size_t>(i)];
        const double lse = kernels::log_sum_exp_row<double>(x.row(i), vocab);
        const int32_t target = targets[static_cast<size_t>(i)];
        ASSERT_NEAR(row.log_sum_exp, lse, kSumError);
        ASSERT_EQ(row.argmax, kernels::argmax_row(x.row(i), vocab));
        ASSERT_EQ(row.max, x.at(i, row.argmax));
        if (target < 0) {
          ASSERT_EQ(row.log_p, 0);
        } else {
          ASSERT_NEAR(row.log_p, static_cast<double>(x.at(i, target)) - lse, kSumError);
        }
      }
    }
  });
}

TEST(Xent, TakesTheFirstOfEqualLogits) {
  for_each_kernel([&] {
    for (int64_t vocab : {5, 40, 129, 20001}) {
      std::vector<float> x(static_cast<size_t>(vocab), 1.5f);
      std::vector<XentRow> rows(1);
      xent_fwd(1, vocab, {x.data(), vocab}, {}, rows);
      EXPECT_EQ(rows[0].argmax, 0);
      EXPECT_NEAR(rows[0].log_sum_exp, 1.5 + std::log(static_cast<double>(vocab)), kSumError);
      x.back() = 2;
      xent_fwd(1, vocab, {x.data(), vocab}, {}, rows);
      EXPECT_EQ(rows[0].argmax, vocab - 1);
    }
  });
}

TEST(Xent, HandlesHugeAndForbiddenLogits) {
  for_each_kernel([&] {
    std::vector<float> x(50, -1e4f);
    x[7] = 1e4f;
    x[9] = -kInf;
    const std::vector<int32_t> targets = {9};
    std::vector<XentRow> rows(1);
    xent_fwd(1, 50, {x.data(), 50}, targets, rows);
    EXPECT_EQ(rows[0].log_sum_exp, 1e4);
    EXPECT_EQ(rows[0].argmax, 7);
    EXPECT_EQ(rows[0].log_p, -HUGE_VAL);
    for (float bad : {NAN, kInf}) {
      x[30] = bad;
      xent_fwd(1, 50, {x.data(), 50}, targets, rows);
      EXPECT_TRUE(std::isnan(rows[0].log_sum_exp));
      EXPECT_EQ(rows[0].argmax, 30);
    }
    x.assign(50, -kInf);
    xent_fwd(1, 50, {x.data(), 50}, {}, rows);
    EXPECT_TRUE(std::isnan(rows[0].log_sum_exp));
    EXPECT_EQ(rows[0].argmax, 0);
  });
}

// The divergence of rows that differ by about `delta`, for shifts that change no probability.
TEST(Xent, DivergenceIsAccurateHoweverSmall) {
  for_each_kernel([&] {
    for (int64_t vocab : {1, 2, 17, 33, 1000, 5003}) {
      for (double delta : {1e-5, 1e-3, 0.1, 1.0, 4.0}) {
        for (float shift : {0.0f, 8.0f, -250.0f}) {
          SCOPED_TRACE(::testing::Message()
                       << vocab << " tokens, delta " << delta << ", shift " << shift);
          auto ref = GuardedRows<float>::random(1, vocab, 1, 3.0);
          auto x = GuardedRows<float>::random(1, vocab, 2, delta);
          for (int64_t j = 0; j < vocab; ++j) x.at(0, j) += ref.at(0, j) + shift;
          std::vector<KlRow> rows(1);
          kl_fwd(1, vocab, x.in(), ref.in(), {}, rows);
          const double lse = kernels::log_sum_exp_row<double>(x.row(0), vocab);
          const double ref_lse = kernels::log_sum_exp_row<double>(ref.row(0), vocab);
          const double want =
              kernels::kl_fwd_row<double>(x.row(0), lse, ref.row(0), ref_lse, vocab);
          // A weight p_ref is off by kSumError, phi(d) by 40 u (at |d| = 1/2, where the forms
          // change), the sum by 18 u. Absolute: the square of the error of the log-sum-exps, and
          // what cancels in the double definition.
          const double tolerance = want * (kSumError + 58 * kUlp) + kSumError * kSumError +
                                   1e-15 * (10 + std::abs(shift));
          ASSERT_NEAR(rows[0].kl, want, tolerance);
          ASSERT_EQ(rows[0].model.argmax, kernels::argmax_row(x.row(0), vocab));
          ASSERT_EQ(rows[0].same_top(),
                    kernels::argmax_row(x.row(0), vocab) == kernels::argmax_row(ref.row(0), vocab));
        }
      }
    }
  });
}

TEST(Xent, DivergenceOfARowFromItselfIsZero) {
  for_each_kernel([&] {
    auto x = GuardedRows<float>::random(2, 1103, 1, 5.0);
    std::vector<KlRow> rows(2);
    kl_fwd(2, 1103, x.in(), x.in(), {}, rows);
    EXPECT_EQ(rows[0].kl, 0);
    EXPECT_EQ(rows[1].kl, 0);
  });
}

TEST(Xent, DivergenceOfExtremeLogits) {
  for_each_kernel([&] {
    std::vector<float> ref(40, -1e4f), x(40, -1e4f);
    ref[3] = 1e4f, x[5] = 1e4f;
    std::vector<KlRow> rows(1);
    std::vector<float> d_x(40);
    const RowsOut out{d_x.data(), DType::kF32, 40};
    kl_fwd(1, 40, {x.data(), 40}, {ref.data(), 40}, {}, rows);
    EXPECT_EQ(rows[0].kl, 2e4);
    kl_bwd(1, 40, {x.data(), 40}, {ref.data(), 40}, rows, {}, 1, out);
    EXPECT_EQ(d_x[3], -1);
    EXPECT_EQ(d_x[5], 1);
    EXPECT_EQ(d_x[0], 0);
    // A token that both rows forbid counts nothing; one that only the model forbids makes the
    // divergence infinite.
    ref = x;
    ref[9] = x[9] = -kInf;
    kl_fwd(1, 40, {x.data(), 40}, {ref.data(), 40}, {}, rows);
    EXPECT_EQ(rows[0].kl, 0);
    kl_bwd(1, 40, {x.data(), 40}, {ref.data(), 40}, rows, {}, 1, out);
    for (float v : d_x) EXPECT_EQ(v, 0);
    ref[9] = 1e4f;
    kl_fwd(1, 40, {x.data(), 40}, {ref.data(), 40}, {}, rows);
    EXPECT_EQ(rows[0].kl, HUGE_VAL);
    kl_fwd(1, 40, {ref.data(), 40}, {x.data(), 40}, {}, rows);
    EXPECT_NEAR(rows[0].kl, std::log(2.0), 20 * kUlp);
    x[11] = NAN;
    kl_fwd(1, 40, {x.data(), 40}, {ref.data(), 40}, {}, rows);
    EXPECT_TRUE(std::isnan(rows[0].kl));
  });
}

TEST(Xent, BackwardMatchesDouble) {
  for_each_kernel([&] {
    for (int64_t vocab : row_lengths()) {
      if (vocab == 0) continue;
      for (double delta : {1e-4, 0.3, 3.0}) {
        const int64_t n = 3;
        auto ref = GuardedRows<float>::random(n, vocab, 1, 3.0),
             x = GuardedRows<float>::random(n, vocab, 2, delta);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < vocab; ++j) x.at(i, j) += ref.at(i, j);
        const std::vector<uint8_t> mask = {1, 0, 1};
        std::vector<KlRow> rows(3);
        GuardedRows<float> d_x(n, vocab);
        GuardedRows<BF16> d_x16(n, vocab);
        kl_fwd(n, vocab, x.in(), ref.in(), {}, rows);
        kl_bwd(n, vocab, x.in(), ref.in(), rows, mask, 0.7f, d_x.out());
        kl_bwd(n, vocab, x.in(), ref.in(), rows, mask, 0.7f, d_x16.out());
        for (int64_t i = 0; i < n; ++i) {
          const double lse = kernels::log_sum_exp_row<double>(x.row(i), vocab);
          const double ref_lse = kernels::log_sum_exp_row<double>(ref.row(i), vocab);
          std::vector<double> want(static_cast<size_t>(vocab));
          kernels::kl_bwd_row(x.row(i), lse, ref.row(i), ref_lse, static_cast<double>(0.7f), vocab,
                              want.data());
          for (int64_t j = 0; j < vocab; ++j) {
            const double w = mask[static_cast<size_t>(i)] ? want[static_cast<size_t>(j)] : 0;
            // Relative to the difference, and 2 kSumError of p_ref where the log-sum-exps are off
            // by that much. The reference table calculates in double.
            const double p = std::exp(static_cast<double>(ref.at(i, j)) - ref_lse) +
                             std::exp(static_cast<double>(x.at(i, j)) - lse);
            ASSERT_NEAR(d_x.at(i, j), w, 40 * kUlp * std::abs(w) + 2 * kSumError * p + kTiny) << j;
          }
        }
        expect_rounded(d_x16, d_x, n, vocab);
        ASSERT_TRUE(d_x.guards_intact() && d_x16.guards_intact());
      }
    }
  });
}

TEST(Xent, IsTheSameForEveryThreadCount) {
  const int64_t n = 40, vocab = 3000;
  auto x = GuardedRows<float>::random(n, vocab, 1), ref = GuardedRows<float>::random(n, vocab, 2);
  std::vector<KlRow> one(static_cast<size_t>(n)), three(one.size());
  set_num_threads(1);
  kl_fwd(n, vocab, x.in(), ref.in(), {}, one);
  set_num_threads(3);
  kl_fwd(n, vocab, x.in(), ref.in(), {}, three);
  set_num_threads(0);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_EQ(one[i].kl, three[i].kl);
}

TEST(Xent, RefusesWhatDoesNotFit) {
  std::vector<float> x(12);
  std::vector<XentRow> rows(3);
  const std::vector<int32_t> outside = {0, 4, 0}, two = {0, 1};
  const RowsIn in{x.data(), 4};
  for_each_kernel([&] {
    if (!on_cuda()) {
      EXPECT_THROW(xent_fwd(3, 4, in, outside, rows), Error);
    }
    EXPECT_THROW(xent_fwd(3, 4, in, two, rows), Error);
    EXPECT_THROW(xent_fwd(2, 4, in, {}, rows), Error);
    EXPECT_THROW(xent_fwd(3, 0, in, {}, rows), Error);
    EXPECT_THROW(xent_fwd(3, 5, in, {}, rows), Error);
  });
}

}  // namespace
}  // namespace signround
