// Attention on the CPU. The operations of ops/attention.h have checked all arguments.
#pragma once

#include <cstdint>

#include "signround/kernels/attention_shape.h"
#include "signround/kernels/cpu/panel_unit.h"
#include "signround/tensor/rows.h"

namespace signround::kernels {

// Tiles in the caches, on Highway, with all threads. Rows to read are f32 or bf16. `scratch` starts
// on a cache line and holds the bytes that are asked for the same shape.
int64_t attention_fwd_scratch_bytes(const AttentionShape& shape);
int64_t attention_bwd_scratch_bytes(const AttentionShape& shape);
void attention_fwd_hwy(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                       float* lse, void* scratch);
void attention_bwd_hwy(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                       const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void* scratch);

// The products by the matrix unit of Intel's CPUs or the vectors of AVX-512, their inputs rounded
// to bf16; for shapes that fit. attention_bf16_why_not: what is missing here, or null.
const char* attention_bf16_why_not(PanelUnit unit);
bool attention_bf16_fits(const AttentionShape& shape);
int64_t attention_bf16_fwd_scratch_bytes(const AttentionShape& shape);
int64_t attention_bf16_bwd_scratch_bytes(const AttentionShape& shape);
template <PanelUnit kUnit>
void attention_fwd_bf16(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                        float* lse, void* scratch);
template <PanelUnit kUnit>
void attention_bwd_bf16(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                        const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                        void* scratch);

// In double, row by row; slow, the definition (attention_ref.h).
void attention_fwd_ref(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                       float* lse, void* scratch);
void attention_bwd_ref(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                       const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                       void* scratch);

}  // namespace signround::kernels
