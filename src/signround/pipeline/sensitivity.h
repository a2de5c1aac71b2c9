// What rounding each part of a model to each scheme costs, before anything is rounded for good.
//
// To second order, changing the weights of one layer by dW changes the model's predictions of a
// sample by KL(original || changed), summed over its tokens, = 1/2 E[<G, dW>^2], where G is the
// gradient of log p(labels) by the layer's weights and the labels are drawn from the model's own
// predictions (the Fisher information: Amari 1998; cross terms of tokens vanish because scores have
// mean 0). One backward pass per sample serves all layers and all schemes.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/formats/format.h"
#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"
#include "signround/quant/tune.h"

namespace signround {

// Layers that must share a scheme: those that engines fuse, or one layer.
struct SensitivityUnit {
  struct Choice {
    QuantScheme scheme;
    int64_t bytes = 0;      // of the unit's tensors on disk
    double kl = 0;          // nats per token that rounding this unit alone is expected to cost
    double delta_loss = 0;  // mean over samples of sum |G dW| per token: AutoScheme's measure
    double error_db = 0;    // error of the layers' outputs relative to the outputs
  };
  std::vector<std::string> layers;
  int64_t weights = 0;
  std::vector<Choice> choices;
};

struct SensitivityOptions {
  std::vector<QuantScheme> schemes;  // 16 bits: as in the source
  int64_t samples = 64;              // at most
  uint64_t seed = 42;                // of the labels
  DType compute = DType::kF32;
  std::filesystem::path folder = {};  // where activations wait in files; empty: in memory
};

struct SensitivityInputs {
  const Checkpoint& source;
  const Architecture& architecture;
  const std::vector<std::vector<FormatLayer>>& layers;  // of each block; bits 16: not measured
  const std::vector<std::vector<int32_t>>& samples;     // of equal length
  const TokenMasks& masks;                              // as in tune_block
  std::function<int64_t(const FormatLayer&)> bytes_of;  // of a layer's tensors on disk
};

// on_progress(done, all) may throw to stop.
std::vector<SensitivityUnit> measure_sensitivity(
    const SensitivityInputs& inputs, const SensitivityOptions& options,
    const std::function<void(int64_t, int64_t)>& on_progress);

// Peak of what measure_sensitivity holds.
int64_t sensitivity_bytes(const SensitivityInputs& inputs, const SensitivityOptions& options);

nlohmann::ordered_json to_json(const std::vector<SensitivityUnit>& units);
// Error{kCorruptFile} naming `path` for what to_json did not write.
std::vector<SensitivityUnit> units_from_json(const nlohmann::ordered_json& json,
                                             const std::string& path);

}  // namespace signround
