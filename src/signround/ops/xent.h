// Rows of logits for evaluation: cross-entropy, the most likely token, and the divergence from a
// reference model.
#pragma once

#include <span>

#include "signround/kernels/cpu/xent.h"
#include "signround/tensor/rows.h"

namespace signround {

// rows[i] = what row i of logits (n, vocab) says. targets: (n), negative = none, or empty.
void xent_fwd(int64_t n, int64_t vocab, RowsIn logits, std::span<const int32_t> targets,
              std::span<XentRow> rows);

// The same for a model and a reference, with KL(p_ref || p) of each row, accurate to about 1e-6
// relative however small it is.
void kl_fwd(int64_t n, int64_t vocab, RowsIn logits, RowsIn ref, std::span<const int32_t> targets,
            std::span<KlRow> rows);

// d_logits = (p - p_ref) scale: the gradient of scale * sum of the rows' divergences. rows: from
// kl_fwd. Rows where mask is 0 get 0; empty = none. d_logits: f32 or bf16, overwritten; may lie on
// logits or ref (f32).
void kl_bwd(int64_t n, int64_t vocab, RowsIn logits, RowsIn ref, std::span<const KlRow> rows,
            std::span<const uint8_t> mask, float scale, RowsOut d_logits);

}  // namespace signround
