// Whole arrays of one floating-point type to another. Bytes may have any alignment: files do not
// promise one.
#pragma once

#include <cstddef>
#include <cstdint>

#include "signround/tensor/dtype.h"

namespace signround {

// n elements of `dtype` at `from` as f32; exact, but for kF64, which is rounded to nearest.
// Error{kUnsupported} for a dtype that is not floating point.
void convert_to_f32(DType dtype, const std::byte* from, int64_t n, float* to);

// n values rounded to nearest even; a NaN stays one.
void convert_to_bf16(const float* from, int64_t n, BF16* to);
void convert_to_f16(const float* from, int64_t n, F16* to);

}  // namespace signround
