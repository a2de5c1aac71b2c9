#pragma once

#include <string>

#include "signround/io/checkpoint.h"

namespace signround {

// What tells one source from another without reading its weights: a hash of its config.json and of its tensors' names,
// dtypes and shapes, and the size of its files.
std::string source_identity(const Checkpoint& source);

}  // namespace signround
