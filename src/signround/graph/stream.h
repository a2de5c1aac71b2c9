// Activations of all calibration samples at one place of the model.
#pragma once

#include <cstdint>
#include <vector>

#include "signround/tensor/buffer.h"
#include "signround/tensor/dtype.h"
#include "signround/tensor/rows.h"

namespace signround {

// (samples, seq_len, cols) in f32 or bf16.
class ActivationStream {
 public:
  ActivationStream() = default;
  ActivationStream(int64_t samples, int64_t seq_len, int64_t cols, DType dtype)
      : samples_(samples),
        seq_len_(seq_len),
        cols_(cols),
        dtype_(dtype),
        memory_(samples * seq_len * cols * size_of(dtype)) {}

  int64_t samples() const { return samples_; }
  int64_t seq_len() const { return seq_len_; }
  int64_t cols() const { return cols_; }
  DType dtype() const { return dtype_; }
  int64_t bytes() const { return memory_.bytes(); }
  // The seq_len rows of one sample.
  RowsAny sample(int64_t i) const { return {memory_.as<char>() + offset(i), dtype_, cols_}; }
  RowsOut sample(int64_t i) { return {memory_.as<char>() + offset(i), dtype_, cols_}; }

  // Copies samples into consecutive rows of f32, and back.
  void gather(const int64_t* indices, int64_t count, float* rows) const;
  void gather(int64_t first, int64_t count, float* rows) const;
  void scatter(int64_t first, int64_t count, const float* rows);
  ActivationStream clone() const;

 private:
  int64_t offset(int64_t i) const { return i * seq_len_ * cols_ * size_of(dtype_); }
  int64_t samples_ = 0, seq_len_ = 0, cols_ = 0;
  DType dtype_ = DType::kF32;
  Buffer memory_;
};

}  // namespace signround
