// The element types of GGUF files, and what their blocks mean in f32.
// Block layouts: ggml-common.h of ggml (https://github.com/ggml-org/ggml) and docs/formats/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace signround {

enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;  // "Q4_K"
  int64_t block_values;   // values per block; a row is a whole number of blocks
  int64_t block_bytes;
};

// nullptr: a number that this program does not decode.
const GgmlTypeInfo* find_ggml_type(uint32_t number);
const GgmlTypeInfo& info_of(GgmlType type);
// The name of any type number that ggml has given out, also of those that find_ggml_type refuses;
// else "".
std::string_view ggml_type_name(uint32_t number);

// n values (a multiple of block_values) of the blocks at `from`, which may have any alignment.
// Every operation is rounded to f32 in the order of the reference, so results are equal bit for bit
// to its own.
void dequantize(GgmlType type, const std::byte* from, int64_t n, float* to) noexcept;

}  // namespace signround
