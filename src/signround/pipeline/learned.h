// What learns in the end-to-end pass, on the CPU or on the current device, a GPU: the scales of a
// rounded layer, and the factors of a norm's weight.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "signround/graph/weights.h"
#include "signround/quant/scheme.h"

namespace signround {

// Where a layer's integers are between two uses.
enum class IntegerPlace : uint8_t {
  kThere,   // in the memory of the device that the pass runs on
  kInHost,  // of a GPU: in the host's memory
  kInFile,  // they are read again each time
};

class LearnedLayer {
 public:
  virtual ~LearnedLayer() = default;
  // The weight that the scales give as they are now, into the layer's place in the block.
  virtual void write(const WeightView& place) = 0;
  // One step along the gradient of the loss by the weight that was written last.
  virtual void step(const RowsAny& d_weight, double lr) = 0;
  // The layer is not needed before its next write().
  virtual void rest() {}
  virtual std::vector<float> scales() const = 0;  // (out, groups)
};

class LearnedNorm {
 public:
  virtual ~LearnedNorm() = default;
  // value: as the source has it; becomes what the factors make of it.
  virtual void apply(std::span<float> value) = 0;
  // gradient: of the loss by `value` as apply() left it.
  virtual void step(std::span<const float> gradient, std::span<const float> value, double lr) = 0;
  virtual std::vector<float> factors() const = 0;
};

// read: the layer as it was rounded; called for kInFile. On a GPU the current device must be that
// one in all calls, and all rows lie there; `read` runs in the scope of the CPU.
std::unique_ptr<LearnedLayer> learned_layer(QuantizedLinear linear, IntegerPlace integers,
                                            std::function<QuantizedLinear()> read);
// offset: what the model adds to the norm's weight.
std::unique_ptr<LearnedNorm> learned_norm(int64_t size, float offset);

// Of what a layer holds beside its integers; of those with their scales and zero points.
int64_t learned_layer_bytes(int64_t out, int64_t in, const QuantScheme& scheme, Device device);
int64_t integer_bytes(int64_t out, int64_t in, const QuantScheme& scheme);

}  // namespace signround
