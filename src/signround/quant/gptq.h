// GPTQ (arXiv 2210.17323): columns are rounded one after the other, and what rounding a column adds
// to the layer's output error is taken back, as well as can be, by the columns that are still free.
// What decides is the Hessian of the output error, the second moments X^T X of the layer's inputs.
#pragma once

#include <cstdint>
#include <vector>

#include "signround/quant/non_finite.h"
#include "signround/quant/scheme.h"

namespace signround {

struct GptqOptions {
  double damp = 0.01;  // of the mean of the Hessian's diagonal, added to it
  bool act_order =
      true;  // columns with large inputs first; the groups stay where they are (static groups)
  bool operator==(const GptqOptions&) const = default;
};

// The upper triangle U with U^T U = (H + damp)^-1, of the inputs in the order in which they are
// rounded. Layers that read the same input share one.
struct GptqFactor {
  int64_t in = 0;
  std::vector<float> upper;    // (in, in), row-major; empty: H could not be factored
  std::vector<int64_t> order;  // of the inputs
  std::vector<float> moments;  // the Hessian's diagonal, by input
  double damp = 0;             // the one that worked: options.damp, or 10, 100 or 1000 times it
  int64_t dead = 0;            // inputs that were always 0: their weights become 0
};

// hessian: (in, in), symmetric, row-major; its lower triangle may be anything.
// Error{kInvalidArgument} if a diagonal element is negative or not finite.
GptqFactor gptq_factor(std::vector<float> hessian, int64_t in, const GptqOptions& options);

// Memory that factoring and rounding a layer of this size takes, Hessian and result included.
int64_t gptq_bytes(int64_t out, int64_t in);

// What gptq met on its way, for the report.
struct GptqNotes {
  NonFinite non_finite;
  bool plain_rtn = false;  // the factor is empty, so this is rtn's result
};

// w: (out, in), contiguous. Grids are those of the range of each group: with act_order of the given
// weights, without of the weights as they are when their group's turn comes.
QuantizedLinear gptq(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                     const GptqFactor& factor, const GptqOptions& options,
                     GptqNotes* notes = nullptr);

}  // namespace signround
