#include "signround/ops/mse_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "signround/kernels/cpu/mse_loss_ref.h"
#include "signround/kernels/cuda.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;

TEST(MseLoss, ReferenceBackwardMatchesComplexStep) {
  const int64_t d = 6;
  const auto values = random_normal(2 * d, 5);
  std::vector<Complex> pred(values.begin(), values.begin() + d),
      ref(values.begin() + d, values.end());
  const auto want = complex_step_grad({pred.data(), 1, d}, [&] {
    return 0.3 * kernels::mse_loss_fwd_row<Complex>(pred.data(), ref.data(), d);
  });
  const std::vector<double> p(values.begin(), values.begin() + d),
      r(values.begin() + d, values.end());
  std::vector<double> d_pred(static_cast<size_t>(d));
  kernels::mse_loss_bwd_row(p.data(), r.data(), 0.3, d, d_pred.data());
  for (size_t j = 0; j < want.size(); ++j) EXPECT_NEAR(d_pred[j], want[j], 1e-12);
}

// On a GPU the sums of the rows are the result.
double sum_of(const MseLoss& loss, const std::vector<double>& row_sums) {
  if (!on_cuda()) return loss.sum;
  EXPECT_EQ(loss.sum, 0);
  double sum = 0;
  for (double v : row_sums) sum += v;
  return sum;
}

// A square has two roundings of the difference and one of its own, 3 u; runs of 64 vectors are
// added in four f32 accumulators, at most 16 + 2 additions deep, the rest is double: 24 u in all,
// without any growth with d.
TEST(MseLoss, MatchesDouble) {
  for_each_kernel([&] {
    for (int64_t d : row_lengths()) {
      for (bool masked : {false, true}) {
        SCOPED_TRACE(d);
        const int64_t n = 4;
        auto pred = GuardedRows<float>::random(n, d, 1);
        auto ref = GuardedRows<float>::random(n, d, 2);
        auto ref16 = GuardedRows<BF16>::random(n, d, 2);
        const std::vector<uint8_t> mask =
            masked ? std::vector<uint8_t>{1, 0, 255, 0} : std::vector<uint8_t>{};
        std::vector<double> sums(n), sums16(n), sums_fwd(n);
        GuardedRows<float> d_pred(n, d);
        GuardedRows<BF16> d_pred16(n, d);
        const float scale = 0.37f;
        const MseLoss loss =
            mse_loss_fwd_bwd(n, d, pred.in(), ref.any(), mask, scale, sums, d_pred.out());
        const MseLoss only = mse_loss_fwd(n, d, pred.in(), ref.any(), mask, sums_fwd);
        mse_loss_fwd_bwd(n, d, pred.in(), ref.any(), mask, scale, sums, d_pred16.out());
        const MseLoss loss16 = mse_loss_fwd(n, d, pred.in(), ref16.any(), mask, sums16);
        EXPECT_EQ(sums, sums_fwd);
        EXPECT_EQ(sum_of(loss, sums), sum_of(only, sums_fwd));
        EXPECT_EQ(loss.count, on_cuda() ? 0 : (masked ? 2 : 4) * d);
        double want = 0, want16 = 0;
        for (int64_t i = 0; i < n; ++i) {
          const bool valid = !masked || mask[static_cast<size_t>(i)] != 0;
          double row = 0;
          for (int64_t j = 0; j < d; ++j) {
            const double e = static_cast<double>(pred.at(i, j)) - static_cast<double>(ref.at(i, j));
            const double e16 =
                static_cast<double>(pred.at(i, j)) - static_cast<double>(to_f32(ref16.at(i, j)));
            if (valid) row += e * e, want16 += e16 * e16;
            const double gradient = valid ? 2 * e * static_cast<double>(scale) : 0;
            ASSERT_NEAR(d_pred.at(i, j), gradient, 3 * kUlp * std::abs(gradient));
          }
          ASSERT_NEAR(sums[static_cast<size_t>(i)], row, 24 * kUlp * row);
          want += row;
        }
        EXPECT_NEAR(sum_of(loss, sums), want, 24 * kUlp * want);
        EXPECT_NEAR(sum_of(loss16, sums16), want16, 24 * kUlp * want16);
        expect_rounded(d_pred16, d_pred, n, d);
        ASSERT_TRUE(d_pred.guards_intact() && d_pred16.guards_intact());
        mse_loss_fwd_bwd(n, d, pred.in(), ref.any(), mask, scale, sums, pred.out());
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < d; ++j) ASSERT_EQ(pred.at(i, j), d_pred.at(i, j));
      }
    }
  });
}

TEST(MseLoss, IsTheSameForEveryThreadCount) {
  const int64_t n = 123, d = 700;
  auto pred = GuardedRows<float>::random(n, d, 1), ref = GuardedRows<float>::random(n, d, 2);
  std::vector<double> sums(static_cast<size_t>(n));
  set_num_threads(1);
  const double one = mse_loss_fwd(n, d, pred.in(), ref.any(), {}, sums).sum;
  set_num_threads(3);
  const double three = mse_loss_fwd(n, d, pred.in(), ref.any(), {}, sums).sum;
  set_num_threads(0);
  EXPECT_EQ(one, three);
}

TEST(MseLoss, SeesADifferenceOfOneUlp) {
  const int64_t d = 4096;
  GuardedRows<float> pred(1, d), ref(1, d);
  for (int64_t j = 0; j < d; ++j) {
    ref.at(0, j) = 1000;
    pred.at(0, j) = std::nextafter(1000.0f, 2000.0f);
  }
  const double e = static_cast<double>(pred.at(0, 0)) - 1000;
  for_each_kernel([&] {
    std::vector<double> sums(1);
    const MseLoss loss = mse_loss_fwd(1, d, pred.in(), ref.any(), {}, sums);
    EXPECT_NEAR(sum_of(loss, sums), 4096 * e * e, 4096 * e * e * 24 * kUlp);
  });
}

TEST(MseLoss, AStrideOfZeroRepeatsARow) {
  for_each_kernel([&] {
    auto pred = GuardedRows<float>::random(3, 20, 1);
    GuardedRows<float> zeros(3, 20);
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t j = 0; j < 20; ++j) zeros.at(i, j) = 0;
    std::vector<double> want(3), sums(3);
    mse_loss_fwd(3, 20, pred.in(), zeros.any(), {}, want);
    mse_loss_fwd(3, 20, pred.in(), {zeros.data(), DType::kF32, 0}, {}, sums);
    EXPECT_EQ(sums, want);
    for (double sum : sums) EXPECT_GT(sum, 0);
  });
}

TEST(MseLoss, RefusesWhatDoesNotFit) {
  std::vector<float> x(12);
  std::vector<double> sums(3);
  const std::vector<uint8_t> short_mask(2);
  const RowsIn in{x.data(), 4};
  const RowsAny ref{x.data(), DType::kF32, 4}, half{x.data(), DType::kF16, 4};
  for_each_kernel([&] {
    EXPECT_THROW(mse_loss_fwd(3, 4, in, ref, short_mask, sums), Error);
    EXPECT_THROW(mse_loss_fwd(3, 4, in, half, {}, sums), Error);
    EXPECT_THROW(mse_loss_fwd(2, 4, in, ref, {}, sums), Error);  // 3 sums for 2 rows
    EXPECT_THROW(mse_loss_fwd_bwd(3, 4, in, ref, {}, 1, sums, {}), Error);
  });
}

// Sums of n doubles: (n - 1) roundings of 2^-53 relative to the sum of the sizes, at worst.
TEST(MseLoss, TotalOnAGpuIsTheSumOfAllRows) {
  for_cuda([] {
    for (int64_t n : {0, 1, 31, 257, 1000, 20000}) {
      const auto random = random_normal(n, 7);
      const std::vector<double> values(random.begin(), random.end());
      std::vector<double> sums = {5, 6};  // not on the stack, which a GPU does not see
      kernels::cuda::total(values.data(), n, &sums[0]);
      kernels::cuda::total(values.data(), n, &sums[1]);
      const double got = sums[0], again = sums[1];
      double want = 0, size = 0;
      for (double v : values) want += v, size += std::abs(v);
      EXPECT_NEAR(got, want, static_cast<double>(n) * 0x1p-52 * size) << n;
      EXPECT_EQ(got, again) << n;
    }
  });
}

}  // namespace
}  // namespace signround
