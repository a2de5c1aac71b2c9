#include "signround/tensor/dtype.h"

#include <array>

namespace signround {
namespace {

struct Row {
  DType dtype;
  std::string_view name, torch_name;
  int64_t size;
  bool is_float;
};

constexpr std::array kRows = {
    Row{DType::kF32, "F32", "float32", 4, true},         Row{DType::kF16, "F16", "float16", 2, true},
    Row{DType::kBF16, "BF16", "bfloat16", 2, true},      Row{DType::kF64, "F64", "float64", 8, true},
    Row{DType::kF8E4M3, "F8_E4M3", "float8_e4m3fn", 1, true}, Row{DType::kF8E5M2, "F8_E5M2", "float8_e5m2", 1, true},
    Row{DType::kI8, "I8", "int8", 1, false},             Row{DType::kU8, "U8", "uint8", 1, false},
    Row{DType::kI16, "I16", "int16", 2, false},          Row{DType::kU16, "U16", "uint16", 2, false},
    Row{DType::kI32, "I32", "int32", 4, false},          Row{DType::kU32, "U32", "uint32", 4, false},
    Row{DType::kI64, "I64", "int64", 8, false},          Row{DType::kU64, "U64", "uint64", 8, false},
    Row{DType::kBool, "BOOL", "bool", 1, false},
};

const Row& row(DType dtype) { return kRows[static_cast<size_t>(dtype)]; }

}  // namespace

int64_t size_of(DType dtype) { return row(dtype).size; }
std::string_view name_of(DType dtype) { return row(dtype).name; }
std::string_view torch_name_of(DType dtype) { return row(dtype).torch_name; }
bool is_float(DType dtype) { return row(dtype).is_float; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const Row& r : kRows)
    if (r.name == name) return r.dtype;
  return std::nullopt;
}

std::optional<DType> dtype_from_torch_name(std::string_view name) {
  if (name.starts_with("torch.")) name.remove_prefix(6);
  for (const Row& r : kRows)
    if (r.torch_name == name) return r.dtype;
  return std::nullopt;
}

float to_f32(F16 v) {
  const uint32_t sign = static_cast<uint32_t>(v.bits & 0x8000u) << 16;
  const uint32_t exponent = (v.bits >> 10) & 31u, mantissa = v.bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float value = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero, exact
  return sign ? -value : value;
}

F16 to_f16(float v) {
  const uint32_t u = std::bit_cast<uint32_t>(v);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u | ((u >> 13) & 0x1ffu))};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // 65520 and more round to infinity
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal; adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) & 0xffffu))};
  }
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | (rounded >> 13))};
}

}  // namespace signround
