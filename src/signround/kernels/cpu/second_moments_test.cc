#include "signround/kernels/cpu/second_moments.h"

#include <gtest/gtest.h>

#include <vector>

#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

TEST(SecondMoments, AllKernelsGiveTheBitsOfTheReference) {
  const auto pool = testing::random_normal(60 * 90, 3);
  for (const SecondMomentsKernel& kernel : second_moments_kernels()) {
    ASSERT_EQ(kernel.why_not(), nullptr) << kernel.name;
    for_each_hwy_target([&](const char* target) {
      for (const int64_t rows : {0, 1, 2, 15, 16, 17, 33, 50})
        for (const int64_t cols : {1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 77})
          for (const int64_t offset : {0, 1}) {
            const int64_t stride = cols + 3 * offset;
            std::vector<double> got(static_cast<size_t>(cols) + 1, 0.25), want = got;
            kernel.add(pool.data() + offset, rows, cols, stride, got.data());
            second_moments_kernels().back().add(pool.data() + offset, rows, cols, stride,
                                                want.data());
            EXPECT_EQ(got, want) << kernel.name << " on " << target << " " << rows << " x " << cols;
            EXPECT_EQ(got.back(), 0.25);
          }
    });
  }
}

TEST(SecondMoments, ReferenceMatchesDoubleArithmetic) {
  const auto x = testing::random_normal(200 * 5, 4);
  std::vector<double> got(5, 0.0);
  second_moments_kernels().back().add(x.data(), 200, 5, 5, got.data());
  for (size_t c = 0; c < 5; ++c) {
    double want = 0;
    for (size_t r = 0; r < 200; ++r)
      want += static_cast<double>(x[r * 5 + c]) * static_cast<double>(x[r * 5 + c]);
    EXPECT_NEAR(got[c], want, 17 * 0x1p-24 * want) << c;  // a square and 16 additions in f32
  }
}

}  // namespace
}  // namespace signround::kernels
