// The main path: from a checkpoint to a verified quantized one.
#pragma once

#include "signround/pipeline/options.h"
#include "signround/pipeline/report.h"

namespace signround {

// Quantizes options.model ("model": a folder, a .gguf file or a Hub id) into options.output and
// returns what signround.json holds. A run that was cut continues; a finished one is left alone
// (already_done).
struct QuantizeResult {
  RunReport report;
  bool already_done = false;
};
QuantizeResult quantize(const std::string& model, const QuantizeOptions& options);

}  // namespace signround
