#include "signround/io/gguf_blocks.h"

#include <array>
#include <cstring>

#include "signround/base/error.h"
#include "signround/tensor/dtype.h"

namespace signround {
namespace {

constexpr std::array kTypes = {
    GgmlTypeInfo{GgmlType::kF32, "F32", 1, 4},
    GgmlTypeInfo{GgmlType::kF16, "F16", 1, 2},
    GgmlTypeInfo{GgmlType::kQ4_0, "Q4_0", 32, 18},
    GgmlTypeInfo{GgmlType::kQ4_1, "Q4_1", 32, 20},
    GgmlTypeInfo{GgmlType::kQ5_0, "Q5_0", 32, 22},
    GgmlTypeInfo{GgmlType::kQ5_1, "Q5_1", 32, 24},
    GgmlTypeInfo{GgmlType::kQ8_0, "Q8_0", 32, 34},
    GgmlTypeInfo{GgmlType::kQ2_K, "Q2_K", 256, 84},
    GgmlTypeInfo{GgmlType::kQ3_K, "Q3_K", 256, 110},
    GgmlTypeInfo{GgmlType::kQ4_K, "Q4_K", 256, 144},
    GgmlTypeInfo{GgmlType::kQ5_K, "Q5_K", 256, 176},
    GgmlTypeInfo{GgmlType::kQ6_K, "Q6_K", 256, 210},
    GgmlTypeInfo{GgmlType::kIQ4_NL, "IQ4_NL", 32, 18},
    GgmlTypeInfo{GgmlType::kBF16, "BF16", 1, 2},
};

// Index = number; "" for numbers that were taken back.
constexpr std::array<std::string_view, 42> kNames = {
    "F32",     "F16",   "Q4_0",   "Q4_1",  "",      "",       "Q5_0", "Q5_1",    "Q8_0",
    "Q8_1",    "Q2_K",  "Q3_K",   "Q4_K",  "Q5_K",  "Q6_K",   "Q8_K", "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",     "I32",
    "I64",     "F64",   "IQ1_M",  "BF16",  "",      "",       "",     "TQ1_0",   "TQ2_0",
    "",        "",      "",       "MXFP4", "NVFP4", "Q1_0"};

using Byte = uint8_t;

template <class T>
T load(const Byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}
float half(const Byte* from) { return to_f32(F16{load<uint16_t>(from)}); }

// Low nibbles are values 0..15, high nibbles 16..31.
void q4_0(const Byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((b[2 + i] & 15) - 8);
    y[i + 16] = d * static_cast<float>((b[2 + i] >> 4) - 8);
  }
}

void q4_1(const Byte* b, float* y) {
  const float d = half(b), m = half(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(b[4 + i] & 15) + m;
    y[i + 16] = d * static_cast<float>(b[4 + i] >> 4) + m;
  }
}

// The fifth bit of value i is bit i of 32.
void q5_0(const Byte* b, float* y) {
  const float d = half(b);
  const auto high = load<uint32_t>(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(static_cast<int>((b[6 + i] & 15u) | (high >> i & 1u) << 4) - 16);
    y[i + 16] =
        d * static_cast<float>(static_cast<int>(b[6 + i] >> 4 | (high >> (i + 16) & 1u) << 4) - 16);
  }
}

void q5_1(const Byte* b, float* y) {
  const float d = half(b), m = half(b + 2);
  const auto high = load<uint32_t>(b + 4);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>((b[8 + i] & 15u) | (high >> i & 1u) << 4) + m;
    y[i + 16] = d * static_cast<float>(b[8 + i] >> 4 | (high >> (i + 16) & 1u) << 4) + m;
  }
}

void q8_0(const Byte* b, float* y) {
  const float d = half(b);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(static_cast<int8_t>(b[2 + i]));
}

// 4-bit codes of a fixed, non-uniform grid.
void iq4_nl(const Byte* b, float* y) {
  constexpr float kGrid[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};
  const float d = half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * kGrid[b[2 + i] & 15];
    y[i + 16] = d * kGrid[b[2 + i] >> 4];
  }
}

// In all k-quants of 2 to 3 bits: bytes 32h..32h+31 hold, in bits 2s and 2s+1, the values 128h +
// 32s .. 128h + 32s + 31. 16 scales of 4 bits (low) with 16 minima of 4 bits (high), 64 bytes of
// codes, d, dmin.
void q2_k(const Byte* b, float* y) {
  const Byte *scales = b, *codes = b + 16;
  const float d = half(b + 80), dmin = half(b + 82);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(scales[group] & 15),
                low = dmin * static_cast<float>(scales[group] >> 4);
    const Byte* from = codes + group / 8 * 32 + group % 2 * 16;
    const int shift = group % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i)
      y[16 * group + i] = scale * static_cast<float>(from[i] >> shift & 3) - low;
  }
}

// 32 bytes of third bits (bit k of byte i: value 32k + i; 0 stands for -4), 64 bytes of codes, 16
// scales of 6 bits (low nibbles in 8 bytes, upper two bits in 4), d.
void q3_k(const Byte* b, float* y) {
  const Byte *high = b, *codes = b + 32, *packed = b + 96;
  const float d = half(b + 108);
  for (int group = 0; group < 16; ++group) {
    const int scale_low = packed[group % 8] >> (group / 8 * 4) & 15,
              scale_high = packed[8 + group % 4] >> (group / 4 * 2) & 3;
    const float scale = d * static_cast<float>((scale_low | scale_high << 4) - 32);
    const Byte *from = codes + group / 8 * 32 + group % 2 * 16, *bits = high + group % 2 * 16;
    const int shift = group % 8 / 2 * 2, bit = group / 2;
    for (int i = 0; i < 16; ++i) {
      const int code = (from[i] >> shift & 3) - ((bits[i] >> bit & 1) ? 0 : 4);
      y[16 * group + i] = scale * static_cast<float>(code);
    }
  }
}

struct ScaleMin {
  int scale, min;
};

// 8 scales and 8 minima of 6 bits in 12 bytes: the first four of each in the low 6 bits of bytes
// 0..3 and 4..7; of the last four the low nibbles in bytes 8..11 and the upper two bits in the
// upper two bits of bytes 0..7.
ScaleMin scale_min(const Byte* s, int group) {
  if (group < 4) return {s[group] & 63, s[group + 4] & 63};
  return {(s[group + 4] & 15) | (s[group - 4] >> 6) << 4, s[group + 4] >> 4 | (s[group] >> 6) << 4};
}

// d, dmin, 12 bytes of scales and minima, 128 bytes of nibbles: 32 bytes hold 64 values, low
// nibbles first.
void q4_k(const Byte* b, float* y) {
  const float d = half(b), dmin = half(b + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = scale_min(b + 4, group);
    const float scale = d * static_cast<float>(s.scale), low = dmin * static_cast<float>(s.min);
    const Byte* from = b + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i)
      y[32 * group + i] = scale * static_cast<float>(from[i] >> shift & 15) - low;
  }
}

// As q4_k, with 32 bytes of fifth bits before the nibbles: bit k of byte i belongs to value 32k +
// i.
void q5_k(const Byte* b, float* y) {
  const float d = half(b), dmin = half(b + 2);
  const Byte* high = b + 16;
  for (int group = 0; group < 8; ++group) {
    const ScaleMin s = scale_min(b + 4, group);
    const float scale = d * static_cast<float>(s.scale), low = dmin * static_cast<float>(s.min);
    const Byte* from = b + 48 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int code = (from[i] >> shift & 15) | (high[i] >> group & 1) << 4;
      y[32 * group + i] = scale * static_cast<float>(code) - low;
    }
  }
}

// 128 bytes of low nibbles (64 bytes hold 128 values), 64 bytes of upper two bits, 16 scales of 8
// bits, d.
void q6_k(const Byte* b, float* y) {
  const Byte *low = b, *high = b + 128, *scales = b + 192;
  const float d = half(b + 208);
  for (int part = 0; part < 8; ++part) {  // 32 values each
    const int in_half = part % 4;
    const Byte *from = low + part / 4 * 64 + in_half % 2 * 32, *bits = high + part / 4 * 32;
    const int shift = in_half / 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[2 * part + i / 16]));
      const int code = (from[i] >> shift & 15) | (bits[i] >> (2 * in_half) & 3) << 4;
      y[32 * part + i] = scale * static_cast<float>(code - 32);
    }
  }
}

template <void (*kDecode)(const Byte*, float*)>
void run(const GgmlTypeInfo& info, const Byte* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += info.block_values, from += info.block_bytes)
    kDecode(from, to + i);
}

}  // namespace

const GgmlTypeInfo* find_ggml_type(uint32_t number) {
  for (const GgmlTypeInfo& info : kTypes)
    if (static_cast<uint32_t>(info.type) == number) return &info;
  return nullptr;
}

const GgmlTypeInfo& info_of(GgmlType type) { return *find_ggml_type(static_cast<uint32_t>(type)); }

std::string_view ggml_type_name(uint32_t number) {
  return number < kNames.size() ? kNames[number] : "";
}

void dequantize(GgmlType type, const std::byte* blocks, int64_t n, float* to) noexcept {
  const auto* from = reinterpret_cast<const Byte*>(blocks);
  const GgmlTypeInfo& info = info_of(type);
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(to, from, static_cast<size_t>(n) * 4);
      return;
    case GgmlType::kF16:
      for (int64_t i = 0; i < n; ++i) to[i] = half(from + 2 * i);
      return;
    case GgmlType::kBF16:
      for (int64_t i = 0; i < n; ++i) to[i] = to_f32(BF16{load<uint16_t>(from + 2 * i)});
      return;
    case GgmlType::kQ4_0:
      return run<q4_0>(info, from, n, to);
    case GgmlType::kQ4_1:
      return run<q4_1>(info, from, n, to);
    case GgmlType::kQ5_0:
      return run<q5_0>(info, from, n, to);
    case GgmlType::kQ5_1:
      return run<q5_1>(info, from, n, to);
    case GgmlType::kQ8_0:
      return run<q8_0>(info, from, n, to);
    case GgmlType::kQ2_K:
      return run<q2_k>(info, from, n, to);
    case GgmlType::kQ3_K:
      return run<q3_k>(info, from, n, to);
    case GgmlType::kQ4_K:
      return run<q4_k>(info, from, n, to);
    case GgmlType::kQ5_K:
      return run<q5_k>(info, from, n, to);
    case GgmlType::kQ6_K:
      return run<q6_k>(info, from, n, to);
    case GgmlType::kIQ4_NL:
      return run<iq4_nl>(info, from, n, to);
  }
}

}  // namespace signround
