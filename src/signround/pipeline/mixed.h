// Mixed precision: which scheme each layer gets so that the whole stays within a size and the
// predictions change least.
#pragma once

#include <filesystem>
#include <string>

#include "signround/io/checkpoint.h"
#include "signround/pipeline/options.h"
#include "signround/pipeline/plan.h"
#include "signround/quant/tune.h"
#include "signround/text/calibration.h"

namespace signround {

// Bytes of "4.2GB", "700 MB", "1.5GiB" or "4.2" (GB). Error{kInvalidArgument} for anything else.
int64_t parse_size(const std::string& text);

// The schemes that --options names, others than bits and group as in `base`.
// Error{kInvalidArgument}.
std::vector<QuantScheme> parse_options(const std::vector<std::string>& names,
                                       const QuantScheme& base);

struct ChosenSchemes {
  std::string layer_config;  // of the layers that differ from the base scheme, as --layer-config
  int64_t held = 0;          // by all the program while it measured; 0: it did not
};

// For options that are mixed(). Measures sensitivities, or takes them from the file of an earlier
// measurement on the same model and text; logs what other sizes would cost. Activations that do not
// fit in memory wait in files without names in scratch_folder.
ChosenSchemes choose_schemes(const QuantizeOptions& options, const Checkpoint& source,
                             const CalibrationSet& calibration, const TokenMasks& masks,
                             const std::filesystem::path& scratch_folder);

// All that would be held while it measures; `plan` is that of the scheme given.
int64_t measurement_bytes(const QuantizeOptions& options, const Checkpoint& source,
                          const CalibrationSet& calibration, const Plan& plan);

}  // namespace signround
