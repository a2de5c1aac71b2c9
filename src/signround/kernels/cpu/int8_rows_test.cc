#include "signround/kernels/cpu/int8_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

constexpr int64_t kGap = 3;  // between rows in memory

struct Source {
  std::vector<float> f32;
  std::vector<BF16> bf16;
  Source(int64_t n, uint64_t seed) : f32(testing::random_normal(n, seed)) {
    for (float& v : f32) bf16.push_back(to_bf16(v)), v = to_f32(bf16.back());
  }
};

// Steps and codes of the definition in int8_step.h, for every instruction set, both orders, both
// types; only [begin, end) is written.
TEST(Int8Rows, GiveTheCodesOfTheDefinition) {
  for_each_hwy_target([](const char* target) {
    for (const bool k_major : {false, true})
      for (const DType dtype : {DType::kF32, DType::kBF16})
        for (const int64_t outer : {1, 17, 70, 300})
          for (const int64_t k : {1, 16, 37}) {
            SCOPED_TRACE(::testing::Message() << target << " k_major " << k_major << " outer "
                                              << outer << " k " << k << " " << name_of(dtype));
            const int64_t stride = (k_major ? outer : k) + kGap;
            Source x((k_major ? k : outer) * stride, 1);
            const auto at = [&](int64_t i, int64_t p) {
              return x.f32[static_cast<size_t>(k_major ? p * stride + i : i * stride + p)];
            };
            const void* data = dtype == DType::kF32 ? static_cast<const void*>(x.f32.data())
                                                    : static_cast<const void*>(x.bf16.data());
            const int64_t begin = outer / 3, end = outer - outer / 4;
            std::vector<int8_t> codes(static_cast<size_t>(outer * k), 99);
            std::vector<float> steps(static_cast<size_t>(outer), -1);
            round_to_int8({{data, dtype, stride}, outer, k, k_major}, begin, end, codes.data(),
                          steps.data());
            for (int64_t i = 0; i < outer; ++i) {
              float most = 0;
              for (int64_t p = 0; p < k; ++p) most = std::max(most, std::fabs(at(i, p)));
              const bool inside = i >= begin && i < end;
              const float step = int8_step(most);
              ASSERT_EQ(steps[static_cast<size_t>(i)], inside ? step : -1) << i;
              for (int64_t p = 0; p < k; ++p) {
                const int64_t place = k_major ? p * outer + i : i * k + p;
                const long want = inside ? std::lrint(at(i, p) * int8_inverse(step)) : 99;
                ASSERT_EQ(codes[static_cast<size_t>(place)], want) << i << " " << p;
              }
            }
          }
  });
}

TEST(Int8Rows, HaveNoStepWhereAValueIsNotFinite) {
  for_each_hwy_target([](const char* target) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()})
      for (const bool k_major : {false, true}) {
        std::vector<float> x(20 * 20, 1.0f);
        x[5 * 20 + 7] = bad;
        std::vector<int8_t> codes(x.size());
        std::vector<float> steps(20);
        round_to_int8({{x.data(), DType::kF32, 20}, 20, 20, k_major}, 0, 20, codes.data(),
                      steps.data());
        for (int64_t i = 0; i < 20; ++i)
          EXPECT_EQ(std::isnan(steps[static_cast<size_t>(i)]), i == (k_major ? 7 : 5))
              << target << " " << bad << " " << i;
      }
  });
}

TEST(Int8Rows, AddSumsTimesBothSteps) {
  const std::vector<float> steps = testing::random_normal(37, 2),
                           from = testing::random_normal(37, 3);
  std::vector<int32_t> sums;
  for (int32_t j = 0; j < 37; ++j) sums.push_back((j - 18) * 1000003);
  for_each_hwy_target([&](const char* target) {
    for (const bool adds : {false, true})
      for (const int64_t n : {0, 1, 16, 37}) {
        std::vector<float> c(38, 7.0f);
        add_int8_sums(sums.data(), n, 0.25f, steps.data(), adds ? from.data() : nullptr, c.data(),
                      DType::kF32);
        for (size_t j = 0; j < c.size(); ++j) {
          const bool inside = static_cast<int64_t>(j) < n;
          // A sum of 25 bits is rounded to a float, and so are two products and the addition.
          const double product = inside ? double(sums[j]) * 0.25 * double(steps[j]) : 0;
          const double want = inside ? product + (adds ? double(from[j]) : 0) : 7;
          EXPECT_NEAR(c[j], want, 4 * 0x1p-24 * (std::fabs(product) + std::fabs(want)))
              << target << " " << j;
        }
      }
  });
}

}  // namespace
}  // namespace signround::kernels
