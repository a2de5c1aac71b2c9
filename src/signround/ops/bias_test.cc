#include "signround/ops/bias.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>

#include "signround/kernels/cuda.h"
#include "signround/ops/row_testing.h"
#include "signround/testing/complex_step.h"
#include "signround/testing/expect_error.h"

namespace signround {
namespace {

using namespace testing;
using Complex = std::complex<double>;

// loss = <d_y, z + b> with z the product, which does not depend on b.
TEST(Bias, ReferenceBackwardMatchesComplexStep) {
  const int64_t n = 5, d = 7;
  const auto z = random_normal(n * d, 1), d_y = random_normal(n * d, 2), b = random_normal(d, 3);
  std::vector<Complex> bias(b.begin(), b.end());
  const auto want = complex_step_grad({bias.data(), 1, d}, [&] {
    Complex sum{};
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < d; ++j) {
        const auto k = static_cast<size_t>(i * d + j);
        sum += static_cast<double>(d_y[k]) *
               (static_cast<double>(z[k]) + bias[static_cast<size_t>(j)]);
      }
    return sum;
  });
  const std::vector<double> rows(d_y.begin(), d_y.end());
  std::vector<double> d_b(static_cast<size_t>(d));
  bias_bwd_ref<double>({rows.data(), n, d}, d_b.data());
  for (size_t j = 0; j < want.size(); ++j) EXPECT_NEAR(d_b[j], want[j], 1e-12);
}

// body() on the CPU, then on a GPU.
template <class Body>
void for_each_device(Body&& body) {
  body();
  for_cuda(body);
}

// Sums in double of f32 values; the result is rounded to f32 once: half an eps of it.
TEST(Bias, AddsTheSumOfAllRowsWhateverTheLengthAndStride) {
  for_each_device([] {
    for (int64_t d : row_lengths())
      for (int64_t n : {1, 3, 200}) {
        SCOPED_TRACE(d);
        auto wide = GuardedRows<float>::random(n, d, 4);
        auto narrow = GuardedRows<BF16>::random(n, d, 5);
        std::vector<float> sums(static_cast<size_t>(d), 0.5f), sums16(sums);
        bias_bwd(n, d, wide.any(), sums);
        bias_bwd(n, d, narrow.any(), sums16);
        for (int64_t j = 0; j < d; ++j) {
          double want = 0.5, want16 = 0.5;
          for (int64_t i = 0; i < n; ++i) {
            want += static_cast<double>(wide.row(i)[j]);
            want16 += static_cast<double>(to_f32(narrow.row(i)[j]));
          }
          const size_t k = static_cast<size_t>(j);
          ASSERT_NEAR(sums[k], want, 6e-8 * std::abs(want) + 1e-12) << j;
          ASSERT_NEAR(sums16[k], want16, 6e-8 * std::abs(want16) + 1e-12) << j;
        }
      }
  });
}

TEST(Bias, AddBiasOnAGpuAddsToEveryRow) {
  for_cuda([] {
    for (int64_t d : row_lengths()) {
      SCOPED_TRACE(d);
      auto wide = GuardedRows<float>::random(5, d, 4);
      auto narrow = GuardedRows<BF16>::random(5, d, 5);
      const auto before = wide;
      const auto before16 = narrow;
      const auto bias = random_normal(d, 6);
      kernels::cuda::add_bias(5, d, bias.data(), wide.out());
      kernels::cuda::add_bias(5, d, bias.data(), narrow.out());
      auto was = before;
      auto was16 = before16;
      for (int64_t i = 0; i < 5; ++i)
        for (int64_t j = 0; j < d; ++j) {
          const float b = bias[static_cast<size_t>(j)];
          ASSERT_EQ(wide.at(i, j), was.at(i, j) + b);
          ASSERT_EQ(narrow.at(i, j).bits, to_bf16(to_f32(was16.at(i, j)) + b).bits);
        }
      ASSERT_TRUE(wide.guards_intact() && narrow.guards_intact());
    }
  });
}

// A square and up to three additions to it are f32: four roundings; the rest is double.
TEST(Bias, SecondMomentsOnAGpuAreSumsOfSquares) {
  for_cuda([] {
    for (int64_t d : row_lengths())
      for (int64_t n : {1, 3, 200}) {
        SCOPED_TRACE(d);
        auto wide = GuardedRows<float>::random(n, d, 4);
        auto narrow = GuardedRows<BF16>::random(n, d, 5);
        auto half = GuardedRows<F16>::random(n, d, 6);
        std::vector<double> sums(static_cast<size_t>(d), 0.5);
        auto again = sums, sums16 = sums, sums_h = sums;
        kernels::cuda::second_moments(n, d, wide.any(), sums.data());
        kernels::cuda::second_moments(n, d, wide.any(), again.data());
        kernels::cuda::second_moments(n, d, narrow.any(), sums16.data());
        kernels::cuda::second_moments(n, d, half.any(), sums_h.data());
        EXPECT_EQ(sums, again);
        const auto square = [](float v) { return static_cast<double>(v) * static_cast<double>(v); };
        for (int64_t j = 0; j < d; ++j) {
          double want = 0.5, want16 = 0.5, want_h = 0.5;
          for (int64_t i = 0; i < n; ++i) {
            want += square(wide.at(i, j));
            want16 += square(to_f32(narrow.at(i, j)));
            want_h += square(to_f32(half.at(i, j)));
          }
          const size_t k = static_cast<size_t>(j);
          ASSERT_NEAR(sums[k], want, 4 * kUlp * want) << j;
          ASSERT_NEAR(sums16[k], want16, 4 * kUlp * want16) << j;
          ASSERT_NEAR(sums_h[k], want_h, 4 * kUlp * want_h) << j;
        }
      }
  });
}

TEST(Bias, RefusesAGradientOfAnotherSize) {
  const std::vector<float> d_y(6);
  std::vector<float> d_b(2);
  for_each_device([&] {
    expect_error(ErrorKind::kInvalidArgument, "d_b has 2 values, expected 3", [&] {
      bias_bwd(2, 3, {d_y.data(), DType::kF32, 3}, d_b);
    });
  });
}

}  // namespace
}  // namespace signround
