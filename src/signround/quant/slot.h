// What the tuner sees of one linear layer: a weight that can be written and that learns from its gradient.
// A new method is a new slot, in one file of quant/.
#pragma once

#include <cstdint>

#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"
#include "signround/tensor/rows.h"

namespace signround {

class WeightSlot {
 public:
  virtual ~WeightSlot() = default;

  // Writes the fake-quantized weight (out, in) of the current parameters into `weight` (kF32 or kBF16), row-major
  // with `stride` elements from row to row.
  virtual void write_weight(void* weight, DType dtype, int64_t stride) const = 0;

  // Takes one step along the gradient of the loss by the weight, (out, in) in kF32 or kBF16, then writes the new weight
  // as write_weight does; one pass over the data. Only signs of gradients matter to sign-descent slots, so the
  // gradient's scale is free but must be the same for all slots and iterations.
  // `decay` is the schedule's factor of the first step: 1 at the first iteration, falling to 0.
  virtual void step(const RowsAny& d_weight, double decay, void* weight, DType dtype, int64_t stride) = 0;

  // Goes back to the parameters that it began with.
  virtual void restart() = 0;

  // Remembers the current parameters as the best so far.
  virtual void keep_best() = 0;

  // The rounded layer under the best parameters (the initial ones if keep_best was never called).
  virtual QuantizedLinear finish() const = 0;
};

}  // namespace signround
