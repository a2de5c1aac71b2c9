// Where tuning with free scales starts: the scale (and zero point) of each group under which
// rounding to nearest loses least of the layer's output, sum_i importance_i (scale (q_i - zero) -
// w_i)^2, found by trying factors of the group's range and then refitted by least squares with the
// codes held.
#pragma once

#include "signround/quant/non_finite.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"

namespace signround {

// w: (out, in), contiguous. importance: `in` numbers of at least 0, the second moment of each input
// channel (see imatrix.h), or null: all equal. Every grid has a search; the full-range one tries
// both signs of the scale. Weights that are not finite are replaced as non_finite.h says. Never
// worse than rtn() by the sum above.
QuantizedLinear search_start(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const float* importance, NonFinite* non_finite = nullptr);
QuantizedLinear search_start(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const float* importance, NonFinite* non_finite = nullptr);

}  // namespace signround
