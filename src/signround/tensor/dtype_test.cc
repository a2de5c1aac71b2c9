#include "signround/tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace signround {
namespace {

TEST(F16, RoundTripsEveryFiniteValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 half{static_cast<uint16_t>(bits)};
    const float value = to_f32(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(to_f32(to_f16(value))));
    } else {
      EXPECT_EQ(to_f16(value).bits, bits);
    }
  }
}

TEST(F16, RoundsToNearestEvenBetweenNeighbours) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {  // every pair of finite neighbours
    const float low = to_f32(F16{static_cast<uint16_t>(bits)}), high = to_f32(F16{static_cast<uint16_t>(bits + 1)});
    const float middle = low + (high - low) / 2;  // exact: one more bit of mantissa
    const uint32_t even = bits & 1 ? bits + 1 : bits;
    EXPECT_EQ(to_f16(middle).bits, even);
    EXPECT_EQ(to_f16(std::nextafter(middle, 0.0f)).bits, bits);
    EXPECT_EQ(to_f16(std::nextafter(middle, 1e9f)).bits, bits + 1);
    EXPECT_EQ(to_f16(-middle).bits, even | 0x8000u);
  }
  EXPECT_EQ(to_f16(65519.99f).bits, 0x7bff);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);
}

TEST(BF16, RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f).bits, 0x3f80);             // tie, even below
  EXPECT_EQ(to_bf16(1.0f + 0x1p-7f + 0x1p-8f).bits, 0x3f82);   // tie, even above
  EXPECT_EQ(to_bf16(1.0f + 0x1p-8f + 0x1p-20f).bits, 0x3f81);  // above the tie
  EXPECT_TRUE(std::isnan(to_f32(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(DType, NamesAreInverse) {
  for (int i = 0; i <= static_cast<int>(DType::kBool); ++i) {
    const auto dtype = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name_of(dtype)), dtype);
    EXPECT_EQ(dtype_from_torch_name(torch_name_of(dtype)), dtype);
  }
  EXPECT_EQ(dtype_from_name("nonsense"), std::nullopt);
}

}  // namespace
}  // namespace signround
