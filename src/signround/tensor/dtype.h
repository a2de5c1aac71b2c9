// Element types as safetensors names them, and exact conversions of single values.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace signround {

enum class DType : uint8_t { kF32, kF16, kBF16, kF64, kF8E4M3, kF8E5M2, kI8, kU8, kI16, kU16, kI32, kU32, kI64, kU64, kBool };

int64_t size_of(DType dtype);                                // bytes of one element
std::string_view name_of(DType dtype);                       // as in a safetensors header: "BF16"
std::optional<DType> dtype_from_name(std::string_view name);  // of a safetensors header
std::string_view torch_name_of(DType dtype);                 // as in config.json: "bfloat16"
std::optional<DType> dtype_from_torch_name(std::string_view name);  // with or without "torch."
bool is_float(DType dtype);

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

inline float to_f32(BF16 v) { return std::bit_cast<float>(static_cast<uint32_t>(v.bits) << 16); }

// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
inline BF16 to_bf16(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

float to_f32(F16 v);
F16 to_f16(float v);  // round to nearest, ties to even; overflow gives infinity, as IEEE 754 says
inline float round_to_f16(float v) { return to_f32(to_f16(v)); }
inline float round_to_bf16(float v) { return to_f32(to_bf16(v)); }

}  // namespace signround
