// From a checkpoint into a block's memory.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "signround/graph/weights.h"
#include "signround/io/checkpoint.h"

namespace signround {

// Names, shapes and types of all parameters of `graph` against the file: Error{kCorruptFile} names
// the tensor, what it has and what was expected. A bias that the graph has and the file lacks is an
// error, and so is the opposite: a "name.bias" in the file that the graph would ignore.
void check_weights(const Checkpoint& checkpoint, const Graph& graph);

// Reads all parameters that `graph` names, checked as above; but not the weights of the linear layers
// in `filled`, which the caller writes.
void load_weights(const Checkpoint& checkpoint, const Graph& graph, BlockWeights& weights,
                  const std::set<std::string>& filled = {});

// Shape and type of one linear layer's weight against what the graph asks for; errors as above.
void check_linear(const Checkpoint& checkpoint, const LinearParam& param);

// One linear layer's weight as f32 rows, checked.
std::vector<float> read_linear(const Checkpoint& checkpoint, const LinearParam& param);

}  // namespace signround
