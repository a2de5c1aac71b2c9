// Activations of all calibration samples at one place of the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

#include "signround/io/scratch_file.h"
#include "signround/tensor/buffer.h"
#include "signround/tensor/dtype.h"
#include "signround/tensor/rows.h"

namespace signround {

// (samples, seq_len, cols) in f32 or bf16, in memory of the host or of a GPU, or in a file. In the
// scope of a GPU, rows to copy to or from lie there, wherever the stream is. Not thread-safe.
class ActivationStream {
 public:
  ActivationStream() = default;
  // folder: where the file without a name is made that holds all but one sample; empty: all is in
  // memory. Error{kIo} where the disk has too little space.
  ActivationStream(int64_t samples, int64_t seq_len, int64_t cols, DType dtype,
                   std::filesystem::path folder = {}, Device device = {});

  int64_t samples() const { return samples_; }
  int64_t seq_len() const { return seq_len_; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  // The seq_len rows of one sample; from a file they are valid until the next call of any function.
  RowsAny sample(int64_t i) const;
  // Copies samples as they are into consecutive rows of the stream's type.
  void copy(const int64_t* indices, int64_t count, void* rows) const;

  // Copies samples into consecutive rows of f32, and back.
  void gather(const int64_t* indices, int64_t count, float* rows) const;
  void gather(int64_t first, int64_t count, float* rows) const;
  void scatter(int64_t first, int64_t count, const float* rows);
  ActivationStream clone() const;

 private:
  int64_t sample_bytes() const { return seq_len_ * cols_ * size_of(dtype_); }
  // Where sample i lies; of a file, the one place that there is for all.
  std::span<std::byte> place(int64_t i) const {
    return {memory_.as<std::byte>() + (file_ ? 0 : i * sample_bytes()),
            static_cast<size_t>(sample_bytes())};
  }
  void check(int64_t first, int64_t count) const;

  int64_t samples_ = 0, seq_len_ = 0, cols_ = 0;
  DType dtype_ = DType::kF32;
  Device device_;
  mutable Buffer on_gpu_;  // one sample of a stream of the host, on its way to or from a GPU
  void* stage() const;
  std::filesystem::path folder_;
  std::optional<ScratchFile> file_;
  mutable Buffer memory_;  // all samples, or the one that was read or written last
};

}  // namespace signround
