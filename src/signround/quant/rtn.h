// Round to nearest: each group gets the grid that its smallest and largest weight ask for, and
// nothing is tuned.
#pragma once

#include "signround/quant/non_finite.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"

namespace signround {

// w: (out, in), contiguous. non_finite (may be null) receives what was found; see non_finite.h for
// what is done. Two threads reach about memory speed; nothing but the result is allocated.
QuantizedLinear rtn(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                    NonFinite* non_finite = nullptr);
QuantizedLinear rtn(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                    NonFinite* non_finite = nullptr);

// Fails with kInvalidArgument for sizes that cannot be rounded.
void check_weight_size(const char* where, int64_t out, int64_t in);

// The same, and for a scheme that is no uniform grid.
void check_rounding(const char* where, int64_t out, int64_t in, const QuantScheme& scheme);

// A result of the right sizes, after check_rounding.
QuantizedLinear make_quantized(const char* where, int64_t out, int64_t in,
                               const QuantScheme& scheme);

// Rows that one thread should take at least, so that starting it is worth it.
int64_t rows_per_thread(int64_t in);

// The weights that a result stands for, scale * (code - zero), as f32. row: (in); weight: (out,
// in), contiguous.
void dequantize_row(const QuantizedLinear& q, int64_t o, float* row);
void dequantize(const QuantizedLinear& q, float* weight);
// The same into rows of kF32 or kBF16 (rounded to nearest even), `stride` elements apart.
void dequantize(const QuantizedLinear& q, void* weight, DType dtype, int64_t stride);

}  // namespace signround
