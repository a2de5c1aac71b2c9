#include "signround/graph/stream.h"

#include <cstring>

#include "signround/base/error.h"
#include "signround/ops/convert.h"

namespace signround {

ActivationStream::ActivationStream(int64_t samples, int64_t seq_len, int64_t cols, DType dtype,
                                   std::filesystem::path folder, Device device)
    : samples_(samples),
      seq_len_(seq_len),
      cols_(cols),
      dtype_(dtype),
      device_(device),
      folder_(std::move(folder)) {
  if (!folder_.empty()) file_.emplace(folder_, samples * sample_bytes());
  memory_ = Buffer((file_ ? 1 : samples) * sample_bytes(), device);
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

void* ActivationStream::stage() const {
  if (on_gpu_.bytes() != sample_bytes() || on_gpu_.device() != current_device())
    on_gpu_ = Buffer(sample_bytes(), current_device());
  return on_gpu_.data();
}

void ActivationStream::copy(const int64_t* indices, int64_t count, void* rows) const {
  for (int64_t i = 0; i < count; ++i) {
    char* to = static_cast<char*>(rows) + i * sample_bytes();
    const void* from = sample(indices[i]).data;
    if (device_.is_cuda())
      copy_on_device(to, from, sample_bytes());
    else
      copy_to_current(to, from, sample_bytes());
    if (file_ && on_cuda()) synchronize();  // before the file's one sample is the next one
  }
}

void ActivationStream::gather(const int64_t* indices, int64_t count, float* rows) const {
  if (on_cuda() && !device_.is_cuda()) {
    for (int64_t i = 0; i < count; ++i) {
      copy(indices + i, 1, stage());
      convert(seq_len_, cols_, {stage(), dtype_, cols_},
              {rows + i * seq_len_ * cols_, DType::kF32, cols_});
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i)
    convert(seq_len_, cols_, sample(indices[i]), {rows + i * seq_len_ * cols_, DType::kF32, cols_});
}

void ActivationStream::gather(int64_t first, int64_t count, float* rows) const {
  for (int64_t i = 0; i < count; ++i, ++first) gather(&first, 1, rows + i * seq_len_ * cols_);
}

void ActivationStream::scatter(int64_t first, int64_t count, const float* rows) {
  check(first, count);
  for (int64_t i = first; i < first + count; ++i, rows += seq_len_ * cols_) {
    if (on_cuda() && !device_.is_cuda()) {
      convert(seq_len_, cols_, {rows, DType::kF32, cols_}, {stage(), dtype_, cols_});
      copy_to_host(place(i).data(), stage(), sample_bytes());
    } else {
      convert(seq_len_, cols_, {rows, DType::kF32, cols_}, {place(i).data(), dtype_, cols_});
    }
    if (file_) file_->write(place(i), i * sample_bytes());
  }
}

ActivationStream ActivationStream::clone() const {
  ActivationStream other(samples_, seq_len_, cols_, dtype_, folder_, device_);
  if (device_.is_cuda()) {
    const DeviceScope scope(device_);
    copy_on_device(other.memory_.data(), memory_.data(), memory_.bytes());
    return other;
  }
  for (int64_t i = 0; i < samples_; ++i) {
    std::memcpy(other.place(i).data(), sample(i).data, place(i).size());
    if (other.file_) other.file_->write(other.place(i), i * sample_bytes());
  }
  return other;
}

}  // namespace signround
