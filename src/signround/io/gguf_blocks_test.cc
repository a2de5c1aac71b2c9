#include "signround/io/gguf_blocks.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "signround/io/safetensors.h"
#include "signround/tensor/dtype.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

constexpr GgmlType kQuantized[] = {GgmlType::kQ4_0, GgmlType::kQ4_1,  GgmlType::kQ5_0,
                                   GgmlType::kQ5_1, GgmlType::kQ8_0,  GgmlType::kQ2_K,
                                   GgmlType::kQ3_K, GgmlType::kQ4_K,  GgmlType::kQ5_K,
                                   GgmlType::kQ6_K, GgmlType::kIQ4_NL};

// scripts/make_gguf_blocks_golden.py; equal bit for bit, so no tolerance.
TEST(GgufBlocks, AreWorthWhatTheReferenceSays) {
  const SafetensorsFile golden(testing::testdata().string() + "/io/gguf_blocks.safetensors");
  for (GgmlType type : kQuantized) {
    const std::string name(info_of(type).name);
    ASSERT_TRUE(golden.find(name + ".blocks") && golden.find(name + ".values")) << name;
    const auto blocks = golden.bytes(*golden.find(name + ".blocks"));
    const auto want_bytes = golden.bytes(*golden.find(name + ".values"));
    ASSERT_EQ(want_bytes.size(), 4096u);
    ASSERT_EQ(static_cast<int64_t>(blocks.size()),
              1024 / info_of(type).block_values * info_of(type).block_bytes)
        << name;
    std::vector<float> got(1024), want(1024);
    std::memcpy(want.data(), want_bytes.data(), want_bytes.size());
    dequantize(type, blocks.data(), 1024, got.data());
    for (size_t i = 0; i < 1024; ++i)
      ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
          << name << " value " << i;
  }
}

TEST(GgufBlocks, PlainTypesAreConverted) {
  const float f32[2] = {1.5f, -2.0f};
  float out[2];
  dequantize(GgmlType::kF32, reinterpret_cast<const std::byte*>(f32), 2, out);
  EXPECT_EQ(out[1], -2.0f);
  const uint16_t f16[2] = {0x3c00, 0xfc00};
  dequantize(GgmlType::kF16, reinterpret_cast<const std::byte*>(f16), 2, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[1], -std::numeric_limits<float>::infinity());
  const uint16_t bf16[2] = {0x3fc0, 0xc000};
  dequantize(GgmlType::kBF16, reinterpret_cast<const std::byte*>(bf16), 2, out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[1], -2.0f);
}

TEST(GgufBlocks, KnowTheNamesOfTypesThatAreNotDecoded) {
  EXPECT_EQ(find_ggml_type(16), nullptr);
  EXPECT_EQ(ggml_type_name(16), "IQ2_XXS");
  EXPECT_EQ(ggml_type_name(39), "MXFP4");
  EXPECT_EQ(ggml_type_name(4), "");  // Q4_2, taken back
  EXPECT_EQ(ggml_type_name(1u << 31), "");
  for (uint32_t i = 0; i < 64; ++i) {
    const GgmlTypeInfo* info = find_ggml_type(i);
    if (info) {
      EXPECT_EQ(info->name, ggml_type_name(i));
    }
  }
}

}  // namespace
}  // namespace signround
