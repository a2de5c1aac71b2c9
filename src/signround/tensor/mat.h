// Views are passed by value, owners are held. Row-major matrices of one element type.
#pragma once

#include <cstdint>
#include <span>

#include "signround/tensor/buffer.h"

namespace signround {

template <class T>
struct Mat {
  T* data = nullptr;
  int64_t rows = 0, cols = 0;

  int64_t size() const { return rows * cols; }
  std::span<T> row(int64_t r) const { return {data + r * cols, static_cast<size_t>(cols)}; }
  std::span<T> all() const { return {data, static_cast<size_t>(rows * cols)}; }
  operator Mat<const T>() const { return {data, rows, cols}; }
};

// Owner of a zeroed, 64-byte aligned matrix. Move-only; clone() makes a copy visible.
template <class T>
class MatBuffer {
 public:
  MatBuffer() = default;
  MatBuffer(int64_t rows, int64_t cols, Device device = {})
      : buffer_(rows * cols * static_cast<int64_t>(sizeof(T)), device), rows_(rows), cols_(cols) {}
  MatBuffer clone() const {
    MatBuffer copy(rows_, cols_);
    std::copy_n(view().data, view().size(), copy.view().data);
    return copy;
  }
  Mat<T> view() { return {static_cast<T*>(buffer_.data()), rows_, cols_}; }
  Mat<const T> view() const { return {static_cast<const T*>(buffer_.data()), rows_, cols_}; }
  operator Mat<T>() { return view(); }
  operator Mat<const T>() const { return view(); }

 private:
  Buffer buffer_;
  int64_t rows_ = 0, cols_ = 0;
};

}  // namespace signround
