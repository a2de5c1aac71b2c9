#include "signround/io/convert.h"

#include <array>
#include <cstring>
#include <limits>

#include "signround/base/error.h"
#include "signround/base/parallel.h"

namespace signround {
namespace {

constexpr int64_t kGrain =
    1 << 16;  // values per thread below which a thread costs more than it brings

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

// The branch-free f16 -> f32 that compilers vectorize; bit for bit what to_f32(F16) gives.
// Subnormals are made by a subtraction of normal numbers, so no slow subnormal operand occurs.
inline float f16_bits_to_f32(uint32_t half) {
  const uint32_t magnitude = (half & 0x7fffu) << 13, exponent = magnitude & 0x0f800000u;
  const uint32_t normal = magnitude + (112u << 23);
  const uint32_t infinite = magnitude + (224u << 23);  // exponent 31 becomes 255
  const uint32_t subnormal = std::bit_cast<uint32_t>(
      std::bit_cast<float>(magnitude + (113u << 23)) - std::bit_cast<float>(113u << 23));
  const uint32_t value = exponent == 0x0f800000u ? infinite : exponent == 0 ? subnormal : normal;
  return std::bit_cast<float>(value | (half & 0x8000u) << 16);
}

// OCP 8-bit floats: E4M3 ("fn": no infinities, 0x7f and 0xff are NaN) and E5M2 (the upper byte of
// an f16).
float e4m3_to_f32(uint32_t bits) {
  const uint32_t exponent = bits >> 3 & 15u, mantissa = bits & 7u;
  float value = static_cast<float>(mantissa) * 0x1p-9f;
  if (exponent != 0) value = std::bit_cast<float>((exponent + 120u) << 23 | mantissa << 20);
  if ((bits & 0x7fu) == 0x7fu) value = std::numeric_limits<float>::quiet_NaN();
  return bits & 0x80u ? -value : value;
}

template <class Decode>
std::array<float, 256> make_table(Decode&& decode) {
  std::array<float, 256> table;
  for (uint32_t i = 0; i < 256; ++i) table[i] = decode(i);
  return table;
}

void from_table(const std::array<float, 256>& table, const std::byte* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = table[static_cast<size_t>(from[i])];
}

void convert_piece(DType dtype, const std::byte* from, int64_t n, float* to) {
  static const auto e4m3 = make_table(e4m3_to_f32);
  static const auto e5m2 =
      make_table([](uint32_t i) { return to_f32(F16{static_cast<uint16_t>(i << 8)}); });
  switch (dtype) {
    case DType::kF32:
      std::memcpy(to, from, static_cast<size_t>(n) * 4);
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i)
        to[i] = std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(from + 2 * i)) << 16);
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) to[i] = f16_bits_to_f32(load<uint16_t>(from + 2 * i));
      return;
    case DType::kF64:
      for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(load<double>(from + 8 * i));
      return;
    case DType::kF8E4M3:
      return from_table(e4m3, from, n, to);
    case DType::kF8E5M2:
      return from_table(e5m2, from, n, to);
    default:
      fail(ErrorKind::kUnsupported, "convert", "dtype ", name_of(dtype),
           " was asked for as f32, expected a floating-point dtype");
  }
}

}  // namespace

void convert_to_f32(DType dtype, const std::byte* from, int64_t n, float* to) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    convert_piece(dtype, from + begin * size_of(dtype), end - begin, to + begin);
  });
}

void convert_to_bf16(const float* from, int64_t n, BF16* to) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = to_bf16(from[i]);
  });
}

void convert_to_f16(const float* from, int64_t n, F16* to) {
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = to_f16(from[i]);
  });
}

}  // namespace signround
