#include "signround/io/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

uint32_t bits_of(float v) { return std::bit_cast<uint32_t>(v); }

// The bytes of `values`, one byte behind an aligned address: nothing in a file is aligned for
// certain.
template <class T>
std::vector<std::byte> misaligned(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T) + 1);
  std::memcpy(bytes.data() + 1, values.data(), values.size() * sizeof(T));
  return bytes;
}

TEST(Convert, EveryF16BecomesWhatTheScalarConversionSays) {
  std::vector<uint16_t> halves(0x10000);
  for (uint32_t i = 0; i < 0x10000; ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(halves.size());
  convert_to_f32(DType::kF16, misaligned(halves).data() + 1, 0x10000, floats.data());
  for (uint32_t i = 0; i < 0x10000; ++i)
    ASSERT_EQ(bits_of(floats[i]), bits_of(to_f32(F16{static_cast<uint16_t>(i)}))) << i;
}

TEST(Convert, EveryBF16IsTheUpperHalfOfItsF32) {
  std::vector<uint16_t> halves(0x10000);
  for (uint32_t i = 0; i < 0x10000; ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> floats(halves.size());
  convert_to_f32(DType::kBF16, misaligned(halves).data() + 1, 0x10000, floats.data());
  for (uint32_t i = 0; i < 0x10000; ++i) ASSERT_EQ(bits_of(floats[i]), i << 16);
}

// Values of the OCP 8-bit floating point specification 1.0, tables 1 and 2.
TEST(Convert, F8HasTheValuesOfTheOcpSpecification) {
  const std::vector<uint8_t> e4m3 = {0x00, 0x80, 0x01, 0x07, 0x08, 0x38, 0x7e, 0xfe, 0x7f, 0xff};
  std::vector<float> out(e4m3.size());
  convert_to_f32(DType::kF8E4M3, misaligned(e4m3).data() + 1, static_cast<int64_t>(e4m3.size()),
                 out.data());
  const std::vector<float> want = {0.0f,    -0.0f, 0x1p-9f, 0.875f * 0x1p-6f,
                                   0x1p-6f, 1.0f,  448.0f,  -448.0f};
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(bits_of(out[i]), bits_of(want[i])) << i;
  EXPECT_TRUE(std::isnan(out[8]) && std::isnan(out[9]));

  const std::vector<uint8_t> e5m2 = {0x00, 0x01, 0x03, 0x04, 0x3c, 0x7b, 0x7c, 0xfc, 0x7d};
  out.resize(e5m2.size());
  convert_to_f32(DType::kF8E5M2, misaligned(e5m2).data() + 1, static_cast<int64_t>(e5m2.size()),
                 out.data());
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> want2 = {0.0f, 0x1p-16f, 0.75f * 0x1p-14f, 0x1p-14f, 1.0f, 57344.0f,
                                    inf,  -inf};
  for (size_t i = 0; i < want2.size(); ++i) EXPECT_EQ(bits_of(out[i]), bits_of(want2[i])) << i;
  EXPECT_TRUE(std::isnan(out[8]));
}

TEST(Convert, F64IsRoundedAndF32IsCopied) {
  const std::vector<double> doubles = {1.0, 1.0 + 0x1p-24, -3.25, 1e300};
  std::vector<float> out(4);
  convert_to_f32(DType::kF64, misaligned(doubles).data() + 1, 4, out.data());
  EXPECT_EQ(out, (std::vector<float>{1.0f, 1.0f, -3.25f, std::numeric_limits<float>::infinity()}));
  const std::vector<float> floats = {1.5f, -0.0f, 3e38f};
  out.resize(3);
  convert_to_f32(DType::kF32, misaligned(floats).data() + 1, 3, out.data());
  EXPECT_EQ(out, floats);
}

TEST(Convert, LongArraysAreTheSameInEveryPiece) {  // more values than one thread takes
  const int64_t n = 300'001;
  const std::vector<float> values = testing::random_normal(n, 7);
  std::vector<BF16> bf16(values.size());
  std::vector<F16> f16(values.size());
  convert_to_bf16(values.data(), n, bf16.data());
  convert_to_f16(values.data(), n, f16.data());
  std::vector<float> from_bf16(values.size()), from_f16(values.size());
  convert_to_f32(DType::kBF16, reinterpret_cast<const std::byte*>(bf16.data()), n,
                 from_bf16.data());
  convert_to_f32(DType::kF16, reinterpret_cast<const std::byte*>(f16.data()), n, from_f16.data());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(from_bf16[i], round_to_bf16(values[i])) << i;
    ASSERT_EQ(from_f16[i], round_to_f16(values[i])) << i;
  }
}

TEST(Convert, IntegersAreNotWeights) {
  float out = 0;
  const std::byte in[8] = {};
  testing::expect_error(ErrorKind::kUnsupported, "dtype I32",
                        [&] { convert_to_f32(DType::kI32, in, 1, &out); });
}

}  // namespace
}  // namespace signround
