// Where tuning with free scales starts: the scale (and zero point) of each group under which
// rounding to nearest loses least of the layer's output, sum_i importance_i (scale (q_i - zero) -
// w_i)^2, found by trying factors of the group's range and then refitted by least squares with the
// codes held.
#pragma once

#include <vector>

#include "signround/quant/non_finite.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"

namespace signround {

// Factors of the scale that spans the group: below 1 the largest weights are clamped.
constexpr int kSearchFactors = 31, kSearchRefits = 3;
constexpr float kSmallestSearchFactor = 0.4f, kLargestSearchFactor = 1.15f;

// w: (out, in), contiguous. importance: `in` numbers of at least 0, the second moment of each input
// channel (see imatrix.h), or null: all equal. Every grid has a search; the full-range one tries
// both signs of the scale. Weights that are not finite are replaced as non_finite.h says. Never
// worse than rtn() by the sum above.
QuantizedLinear search_start(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const float* importance, NonFinite* non_finite = nullptr);
QuantizedLinear search_start(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const float* importance, NonFinite* non_finite = nullptr);

// What counts for each of `in` channels, by their importance as above: about 1 on average.
std::vector<float> channel_importance(const float* importance, int64_t in);

}  // namespace signround
