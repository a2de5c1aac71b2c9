// Blocks one after the other, as one block: for tuning several together.
#pragma once

#include <span>

#include "signround/graph/graph.h"

namespace signround {

// Each part's output is the next one's input. Error{kInvalidArgument} for none, or where widths differ.
Graph join(std::span<const Graph> parts);

}  // namespace signround
