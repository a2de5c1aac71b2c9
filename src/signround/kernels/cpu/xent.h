// Rows of logits: log-sum-exp, the target's log-probability, the most likely token; the divergence
// of a model's rows from those of a reference, and its gradient.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround {

// What one row of logits says. A row with a NaN or +infinity, or with nothing but -infinity, has
// NaN sums; -infinity elsewhere is a token of probability 0.
struct XentRow {
  double log_sum_exp = 0;
  double log_p = 0;     // of the target; 0 where there is none
  float max = 0;        // the largest logit
  int32_t argmax = -1;  // its first place
};

struct KlRow {
  XentRow model, ref;
  double kl = 0;  // sum of p_ref (log p_ref - log p_model) >= 0
  bool same_top() const { return model.argmax == ref.argmax; }
};

}  // namespace signround

namespace signround::kernels {

// targets (rows) may be null; a negative target is none. vocab > 0.
struct Xent {
  int64_t vocab;
  RowsIn logits;
  const int32_t* targets;
  XentRow* rows;
};

struct Kl {
  int64_t vocab;
  RowsIn logits, ref;
  const int32_t* targets;
  KlRow* rows;
};

// d_logits = (p - p_ref) scale, 0 where mask (rows, may be null) is 0. d_logits may lie on logits
// or ref (f32).
struct KlBwd {
  int64_t vocab;
  RowsIn logits, ref;
  const KlRow* rows;
  const uint8_t* mask;
  float scale;
  RowsOut d_logits;
};

// Rows [begin, end).
void xent_fwd_hwy(const Xent& a, int64_t begin, int64_t end) noexcept;
void xent_fwd_ref(const Xent& a, int64_t begin, int64_t end) noexcept;
void kl_fwd_hwy(const Kl& a, int64_t begin, int64_t end) noexcept;
void kl_fwd_ref(const Kl& a, int64_t begin, int64_t end) noexcept;
void kl_bwd_hwy(const KlBwd& a, int64_t begin, int64_t end) noexcept;
void kl_bwd_ref(const KlBwd& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
