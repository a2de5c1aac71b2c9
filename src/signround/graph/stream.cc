#include "signround/graph/stream.h"

#include <cstring>

#include "signround/base/error.h"
#include "signround/ops/convert.h"

namespace signround {

void ActivationStream::gather(const int64_t* indices, int64_t count, float* rows) const {
  for (int64_t i = 0; i < count; ++i) {
    require(indices[i] >= 0 && indices[i] < samples_, "stream", "sample ", indices[i], " of ",
            samples_);
    convert(seq_len_, cols_, sample(indices[i]), {rows + i * seq_len_ * cols_, DType::kF32, cols_});
  }
}

void ActivationStream::gather(int64_t first, int64_t count, float* rows) const {
  for (int64_t i = 0; i < count; ++i, ++first) gather(&first, 1, rows + i * seq_len_ * cols_);
}

void ActivationStream::scatter(int64_t first, int64_t count, const float* rows) {
  require(first >= 0 && first + count <= samples_, "stream", "samples ", first, " .. ",
          first + count, " of ", samples_);
  convert(count * seq_len_, cols_, {rows, DType::kF32, cols_}, sample(first));
}

ActivationStream ActivationStream::clone() const {
  ActivationStream copy(samples_, seq_len_, cols_, dtype_);
  std::memcpy(copy.memory_.data(), memory_.data(), static_cast<size_t>(memory_.bytes()));
  return copy;
}

}  // namespace signround
