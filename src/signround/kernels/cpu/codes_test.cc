#include "signround/kernels/cpu/codes.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

std::vector<uint8_t> some_codes(size_t n) {
  std::vector<uint8_t> codes(n);
  for (size_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(i * 97 % 256);
  return codes;
}

TEST(Codes, AllKernelsGiveTheBitsOfTheReference) {
  const auto d = testing::random_normal(300, 5);
  const auto codes = some_codes(300);
  const CodesKernel& ref = codes_kernels().back();
  for (const CodesKernel& kernel : codes_kernels()) {
    ASSERT_EQ(kernel.why_not(), nullptr) << kernel.name;
    for_each_hwy_target([&](const char* target) {
      for (const int64_t n : {0, 1, 3, 7, 8, 15, 16, 17, 31, 33, 64, 127, 128, 200})
        for (const int64_t offset : {0, 1, 5})
          for (const float zero : {0.0f, 3.0f, 128.0f}) {
            const float scale = -0.0371f;
            const auto size = static_cast<size_t>(n) + 1;
            std::vector<float> got(size, 0.25f), want = got;
            kernel.write_f32(codes.data() + offset, n, scale, zero, got.data());
            ref.write_f32(codes.data() + offset, n, scale, zero, want.data());
            EXPECT_EQ(got, want) << kernel.name << " on " << target << ", " << n;
            std::vector<BF16> got16(size, to_bf16(0.25f)), want16 = got16;
            kernel.write_bf16(codes.data() + offset, n, scale, zero, got16.data());
            ref.write_bf16(codes.data() + offset, n, scale, zero, want16.data());
            for (size_t i = 0; i < size; ++i)
              EXPECT_EQ(to_f32(got16[i]), to_f32(want16[i]))
                  << kernel.name << " on " << target << ", " << n << " at " << i;
            EXPECT_EQ(kernel.dot(d.data() + offset, codes.data() + offset, n, zero),
                      ref.dot(d.data() + offset, codes.data() + offset, n, zero))
                << kernel.name << " on " << target << ", " << n;
          }
    });
  }
}

TEST(Codes, ReferenceMatchesDoubleArithmetic) {
  const auto d = testing::random_normal(100, 6);
  const auto codes = some_codes(100);
  const CodesKernel& ref = codes_kernels().back();
  double want = 0, size = 0;
  std::vector<float> weight(100);
  ref.write_f32(codes.data(), 100, 0.3f, 128, weight.data());
  for (size_t i = 0; i < 100; ++i) {
    const double step = static_cast<double>(codes[i]) - 128, exact = 0.3f * step;
    EXPECT_NEAR(static_cast<double>(weight[i]), exact, std::fabs(exact) * 0x1p-24) << i;
    want += static_cast<double>(d[i]) * step;
    size += std::fabs(static_cast<double>(d[i]) * step);
  }
  // A product and at most 7 additions in f32.
  EXPECT_NEAR(ref.dot(d.data(), codes.data(), 100, 128), want, 8 * 0x1p-24 * size);
}

}  // namespace
}  // namespace signround::kernels
