#include "signround/graph/stream.h"

#include <cstring>

#include "signround/base/error.h"
#include "signround/ops/convert.h"

namespace signround {

ActivationStream::ActivationStream(int64_t samples, int64_t seq_len, int64_t cols, DType dtype,
                                   std::filesystem::path folder)
    : samples_(samples), seq_len_(seq_len), cols_(cols), dtype_(dtype), folder_(std::move(folder)) {
  if (!folder_.empty()) file_.emplace(folder_, samples * sample_bytes());
  memory_ = Buffer((file_ ? 1 : samples) * sample_bytes());
}

void ActivationStream::check(int64_t first, int64_t count) const {
  require(first >= 0 && first + count <= samples_, "stream", "samples ", first, " .. ",
          first + count, " of ", samples_);
}

RowsAny ActivationStream::sample(int64_t i) const {
  check(i, 1);
  if (file_) file_->read(place(i), i * sample_bytes());
  return {place(i).data(), dtype_, cols_};
}

void ActivationStream::gather(const int64_t* indices, int64_t count, float* rows) const {
  for (int64_t i = 0; i < count; ++i)
    convert(seq_len_, cols_, sample(indices[i]), {rows + i * seq_len_ * cols_, DType::kF32, cols_});
}

void ActivationStream::gather(int64_t first, int64_t count, float* rows) const {
  for (int64_t i = 0; i < count; ++i, ++first) gather(&first, 1, rows + i * seq_len_ * cols_);
}

void ActivationStream::scatter(int64_t first, int64_t count, const float* rows) {
  check(first, count);
  for (int64_t i = first; i < first + count; ++i, rows += seq_len_ * cols_) {
    convert(seq_len_, cols_, {rows, DType::kF32, cols_}, {place(i).data(), dtype_, cols_});
    if (file_) file_->write(place(i), i * sample_bytes());
  }
}

ActivationStream ActivationStream::clone() const {
  ActivationStream copy(samples_, seq_len_, cols_, dtype_, folder_);
  for (int64_t i = 0; i < samples_; ++i) {
    std::memcpy(copy.place(i).data(), sample(i).data, place(i).size());
    if (copy.file_) copy.file_->write(copy.place(i), i * sample_bytes());
  }
  return copy;
}

}  // namespace signround
