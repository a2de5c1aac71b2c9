// Round to nearest under the best of about 200 scales per group (AutoRound's opt-RTN): minimizes
// sum_i importance_i (scale q_i - w_i)^2 by search, without any training.
#pragma once

#include "signround/quant/non_finite.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"

namespace signround {

// Only the full-range grid has a search; AutoRound has none for the others either.
inline bool has_scale_search(const QuantScheme& scheme) {
  return scheme.symmetry == Symmetry::kFullRange;
}

// What opt_rtn met on its way, for the report.
struct OptRtnNotes {
  NonFinite non_finite;
  bool plain_rtn = false;  // the scheme has no search, so this is rtn's result
  int64_t unimportant_groups =
      0;  // more than half of the importance was zero: replaced by the weights' own size
  int64_t filled_groups = 0;  // some of it was zero: filled with the mean of the rest
};

// w: (out, in), contiguous. importance: `in` numbers of at least 0, the second moment of each input
// channel (see imatrix.h), or null: all equal. notes may be null. Fails with kInvalidArgument for
// an importance that is negative or not finite. AutoRound searches in the weight's type (bf16),
// here it is f32.
QuantizedLinear opt_rtn(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                        const float* importance, OptRtnNotes* notes = nullptr);
QuantizedLinear opt_rtn(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                        const float* importance, OptRtnNotes* notes = nullptr);

}  // namespace signround
