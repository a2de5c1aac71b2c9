#include "signround/pipeline/source_identity.h"

#include <fmt/format.h>

#include "signround/base/hash.h"

namespace signround {

std::string source_identity(const Checkpoint& source) {
  std::string text = source.config().dump();
  for (const auto& t : source.tensors())
    text += t.name + std::string(name_of(t.dtype)) + shape_text(t.shape);
  return hex(xxh3(text)) + fmt::format("-{}", source.bytes_on_disk());
}

}  // namespace signround
