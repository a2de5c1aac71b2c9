// Views of rows inside a wider matrix: q, k, v or gate, up are column slices of one product.
// Strides count elements, from one row to the next. Passed by value, own nothing, as Mat.
#pragma once

#include <cstdint>

#include "signround/tensor/dtype.h"
#include "signround/tensor/mat.h"

namespace signround {

// Rows to read whose type is known at run time only: f32, bf16 or f16. Here and in RowsIn the
// stride 0 stands for one row that is read again and again.
struct RowsAny {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t stride = 0;
};

// f32 rows to read.
struct RowsIn {
  const float* data = nullptr;
  int64_t stride = 0;
  operator RowsAny() const { return {data, DType::kF32, stride}; }
};

// Rows to write: f32, or bf16 rounded to nearest even exactly as to_bf16 does. No data: not wanted.
struct RowsOut {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t stride = 0;
  explicit operator bool() const { return data != nullptr; }
};

// From row to row of a matrix of so many columns, in values, for those who choose it. Rows that lie
// a multiple of 1 KiB apart share few sets of the caches; three lines more and they do not.
inline int64_t spread_stride(int64_t cols, DType dtype) {
  const int64_t size = dtype == DType::kF32 ? 4 : 2;
  return cols * size % 1024 == 0 ? cols + 3 * 64 / size : cols;
}

// The same for rows on `device`: only the caches of a CPU gain by gaps.
inline int64_t row_stride(int64_t cols, DType dtype, Device device) {
  return device.kind == Device::Kind::kCpu ? spread_stride(cols, dtype) : cols;
}

// A row of `heads` parts of `dim` values each: head h of token t starts at data + t * stride + h *
// dim. heads == 1 is an ordinary row of dim values.
struct HeadShape {
  int64_t tokens = 0, heads = 1, dim = 0;
  int64_t rows() const { return tokens * heads; }
  int64_t cols() const { return heads * dim; }
  int64_t offset(int64_t row, int64_t stride) const {  // of the row's first value
    return heads == 1 ? row * stride : row / heads * stride + row % heads * dim;
  }
};

inline RowsIn rows_in(Mat<const float> m) { return {m.data, m.cols}; }
inline RowsIn rows_in(Mat<float> m) { return {m.data, m.cols}; }
inline RowsAny rows_any(Mat<const float> m) { return {m.data, DType::kF32, m.cols}; }
inline RowsAny rows_any(Mat<const BF16> m) { return {m.data, DType::kBF16, m.cols}; }
inline RowsAny rows_any(Mat<const F16> m) { return {m.data, DType::kF16, m.cols}; }
inline RowsAny rows_any(RowsIn r) { return {r.data, DType::kF32, r.stride}; }
inline RowsOut rows_out(Mat<float> m) { return {m.data, DType::kF32, m.cols}; }
inline RowsOut rows_out(Mat<BF16> m) { return {m.data, DType::kBF16, m.cols}; }
inline RowsOut rows_out(Mat<F16> m) { return {m.data, DType::kF16, m.cols}; }

}  // namespace signround
