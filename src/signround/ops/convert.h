// Rows between f32, bf16 and f16, and the rows of an embedding table.
#pragma once

#include <span>

#include "signround/tensor/rows.h"

namespace signround {

// y = x, (n, d). Both f32, bf16 or f16; rounds to nearest even, overflow to f16 gives infinity.
void convert(int64_t n, int64_t d, RowsAny x, RowsOut y);

// Row i of y is row ids[i] of table (vocab, d) times scale (Gemma multiplies by sqrt(d)). Fails for
// an id outside of [0, vocab).
void embedding(std::span<const int32_t> ids, int64_t vocab, int64_t d, RowsAny table, float scale,
               RowsOut y);

}  // namespace signround
