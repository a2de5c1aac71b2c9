// The weights of a block for generating text: dense, or on a GPU packed as the file holds them.
#pragma once

#include <memory>

#include "signround/graph/weights.h"
#include "signround/io/checkpoint.h"

namespace signround {

// All parameters of `graph` on `device`. On a GPU, with products in bf16, layers of a quantized
// checkpoint stay packed where a product takes them so: layers of one LinearsOp in one weight if
// their bits and groups agree, else each by itself; dense where one of them cannot.
std::unique_ptr<BlockWeights> load_for_generation(const Checkpoint& checkpoint, const Graph& graph,
                                                  DType compute, Device device);

}  // namespace signround
