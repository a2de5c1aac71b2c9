// Attention of few queries over many keys, as in the generation of text (attention_decode.cu).
#pragma once

#include "signround/kernels/attention_shape.h"
#include "signround/tensor/rows.h"

namespace signround::kernels::cuda {

inline bool is_decode(const AttentionShape& s) { return s.q_len <= 8 && s.head_dim <= 256; }
int64_t decode_scratch_bytes(const AttentionShape& s);
// As attention_fwd. REQUIRES: is_decode(s).
void attention_decode(const AttentionShape& s, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                      float* lse, void* scratch);

}  // namespace signround::kernels::cuda
