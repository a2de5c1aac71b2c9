#include "signround/pipeline/source_identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "signround/base/hash.h"

namespace signround {

namespace {

constexpr int64_t kSampled = 1024;     // weights of each tensor, from its middle
constexpr int64_t kLongRow = 1 << 20;  // longer rows are left out: reading one would cost too much

// Some of the tensor's values: another training of the same model has other ones.
uint64_t sample_of(const Checkpoint& source, const TensorInfo& t) {
  if (!is_float(t.dtype) || t.numel() == 0) return 0;
  const int64_t rows = t.shape.empty() ? 1 : t.shape[0], columns = t.numel() / rows;
  if (columns > kLongRow) return 0;
  const int64_t count = std::clamp<int64_t>(kSampled / columns, 1, rows);
  std::vector<float> values(static_cast<size_t>(count * columns));
  source.read_f32(t.name, (rows - count) / 2, count, values.data());
  source.release(t.name);
  return xxh3(std::as_bytes(std::span(values)));
}

}  // namespace

std::string source_identity(const Checkpoint& source) {
  std::string text = source.config().dump();
  for (const auto& t : source.tensors())
    text +=
        t.name + std::string(name_of(t.dtype)) + shape_text(t.shape) + hex(sample_of(source, t));
  return hex(xxh3(text)) + fmt::format("-{}", source.bytes_on_disk());
}

}  // namespace signround
