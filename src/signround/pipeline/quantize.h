// The main path: from a checkpoint to a verified quantized one.
#pragma once

#include "signround/pipeline/options.h"
#include "signround/pipeline/report.h"

namespace signround {

// Quantizes options.model ("model": a folder, a .gguf file or a Hub id) into options.output and
// returns what signround.json holds. A run that was cut continues. A finished one is read once more
// and left alone (already_done): Error{kCorruptFile} if its files are not what was written.
struct QuantizeResult {
  RunReport report;
  bool already_done = false;
  nlohmann::ordered_json earlier_report;  // signround.json of the run that was done already
};
QuantizeResult quantize(const std::string& model, const QuantizeOptions& options);

// What quantize() would do in an empty OUT, and what that needs of memory and disk. Reads the
// calibration text and writes nothing. The errors are those of make_plan.
Plan plan_quantization(const std::string& model, const QuantizeOptions& options);

}  // namespace signround
