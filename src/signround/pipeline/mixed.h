// Mixed precision: which scheme each layer gets so that the whole stays within a size and the
// predictions change least.
#pragma once

#include <string>

#include "signround/io/checkpoint.h"
#include "signround/pipeline/options.h"
#include "signround/quant/tune.h"
#include "signround/text/calibration.h"

namespace signround {

// Bytes of "4.2GB", "700 MB", "1.5GiB" or "4.2" (GB). Error{kInvalidArgument} for anything else.
int64_t parse_size(const std::string& text);

// The schemes that --options names, others than bits and group as in `base`.
// Error{kInvalidArgument}.
std::vector<QuantScheme> parse_options(const std::vector<std::string>& names,
                                       const QuantScheme& base);

// For options that are mixed(): the schemes of the layers that differ from the base scheme, as
// --layer-config has them. Measures sensitivities, or takes them from the file of an earlier
// measurement on the same model and text; logs what other sizes would cost.
std::string choose_schemes(const QuantizeOptions& options, const Checkpoint& source,
                           const CalibrationSet& calibration, const TokenMasks& masks);

}  // namespace signround
