#pragma once

#include <string>

#include "signround/io/checkpoint.h"

namespace signround {

// What tells one source from another without reading all of its weights: a hash of its config.json, of its tensors'
// names, dtypes and shapes and of about 1,000 weights in the middle of each, and the size of its files.
std::string source_identity(const Checkpoint& source);

}  // namespace signround
