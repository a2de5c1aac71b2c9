// A block's parameters as rounding wants them: values that are not finite, which would spoil every
// activation behind them, are replaced on the way in.
#pragma once

#include <map>
#include <string>

#include "signround/graph/weights.h"
#include "signround/io/checkpoint.h"
#include "signround/quant/non_finite.h"

namespace signround {

// load_weights, and then replace_non_finite row by row. Returns what was found, for every layer.
std::map<std::string, NonFinite> load_finite_weights(const Checkpoint& checkpoint,
                                                     const Graph& graph, BlockWeights& weights);

}  // namespace signround
