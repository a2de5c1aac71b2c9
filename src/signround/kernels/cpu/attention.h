// Attention on the CPU. The operations of ops/attention.h have checked all arguments.
#pragma once

#include <cstdint>

#include "signround/kernels/attention_shape.h"
#include "signround/tensor/rows.h"

namespace signround::kernels {

// In double, row by row; slow, the definition (attention_ref.h).
void attention_fwd_ref(const AttentionShape& shape, RowsIn q, RowsIn k, RowsIn v, RowsOut y,
                       float* lse, void* scratch);
void attention_bwd_ref(const AttentionShape& shape, RowsIn q, RowsIn k, RowsIn v, RowsAny y,
                       const float* lse, RowsIn d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void* scratch);

}  // namespace signround::kernels
