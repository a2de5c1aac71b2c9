// Attention of queries over keys and values: grouped heads, causal, sliding window, soft-capped.
// No matrix of q_len x kv_len values is ever held: the backward pass computes the scores again.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "signround/kernels/attention_shape.h"
#include "signround/tensor/rows.h"

namespace signround {

// q: (batch * q_len, heads * head_dim)  k, v: (batch * kv_len, kv_heads * head_dim)
// All three f32 or bf16.
//   -> y: like q, f32 or bf16;  lse: (batch, heads, q_len), the log of the sum of exp(score), kept
//      for the backward pass; may be null.
// q_len = 1 is generation: k and v are then the cache, read once.
void attention_fwd(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                   float* lse);

// y and lse as the forward pass stored them; d_y f32 or bf16. d_q, d_k, d_v: f32 or bf16,
// overwritten; one without data is not computed. A bf16 y adds its rounding, 2^-8 |y| |d_y|, to the
// row term sum_j P dP.
void attention_bwd(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                   const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v);

// Bytes that the two functions above hold during a call, for the memory plan. They are kept by the
// calling thread for its next call.
int64_t attention_scratch_bytes(const AttentionShape& shape, bool backward);

struct AttentionKernel {
  std::string_view name;
  const char* (*why_not)();
  bool (*fits)(const AttentionShape& shape);  // the last two rows of a table fit every shape
  int64_t (*scratch_bytes)(const AttentionShape& shape, bool backward);
  void (*fwd)(const AttentionShape&, RowsAny q, RowsAny k, RowsAny v, RowsOut y, float* lse,
              void* scratch);
  void (*bwd)(const AttentionShape&, RowsAny q, RowsAny k, RowsAny v, RowsAny y, const float* lse,
              RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v, void* scratch);
};
// The kernels of the operations; those that may be used where shape.bf16_products has been set.
std::span<const AttentionKernel> attention_kernels(bool bf16_products = false);

}  // namespace signround
