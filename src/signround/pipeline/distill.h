// The end-to-end pass: with all integers fixed, the scales of all rounded layers, and the weights
// of the norms, learn together what keeps the whole model's predictions close to the original's.
// Memory: one block, one batch's activations in front of every block, four numbers per scale and,
// where there is room, the integers. On a GPU all of that is there, and layers that are not rounded
// as well.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "signround/formats/format.h"
#include "signround/graph/stream.h"
#include "signround/graph/timings.h"
#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"
#include "signround/model/scaled_checkpoint.h"
#include "signround/pipeline/learned.h"
#include "signround/quant/tune.h"

namespace signround {

struct DistillOptions {
  int64_t epochs = 1;
  double lr = 1e-3;  // first step of a scale's logarithm, falling to 0
  int64_t batch = 4;
  uint64_t seed = 42;  // of the order of samples
  DType compute = DType::kF32;
  bool norms = true;   // the norms' weights learn too
  Device device = {};  // where it runs; targets may lie elsewhere
  // Of all layers; unless kThere, they are uploaded or read twice for every step.
  IntegerPlace integers = IntegerPlace::kThere;
  bool profile = false;  // on a GPU, parts are waited for, so that their times are right
};

struct DistillInputs {
  const Checkpoint& source;
  const Architecture& architecture;
  const std::vector<std::vector<FormatLayer>>& layers;  // of each block; bits 16: as in the source
  const std::vector<std::vector<int32_t>>& samples;
  const TokenMasks& masks;          // which tokens' predictions count; empty: all
  const ActivationStream& targets;  // the original's last hidden states
  std::function<QuantizedLinear(const FormatLayer&)> read;  // a layer as it was rounded
  Timings* timings = nullptr;                               // gets the time of every part
};

struct DistillResult {
  std::map<std::string, std::vector<float>> scales;  // of each rounded layer, (out, groups)
  CheckpointFactors norms;           // of each norm's weight behind the first rounded layer
  double kl_first = 0, kl_last = 0;  // means over the first and the last steps: noisy
  int64_t steps = 0;
};

// The loss is KL(original || rounded model) per token that counts, in nats. on_step(step, steps,
// kl) may throw to stop.
DistillResult distill(const DistillInputs& inputs, const DistillOptions& options,
                      const std::function<void(int64_t, int64_t, double)>& on_step);

// What distill holds at its fullest moment beside targets and what kernels keep.
struct DistillBytes {
  int64_t host = 0, gpu = 0;
};
DistillBytes distill_bytes(const Architecture& architecture,
                           const std::vector<std::vector<FormatLayer>>& layers, int64_t seqlen,
                           const DistillOptions& options);

}  // namespace signround
