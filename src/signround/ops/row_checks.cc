#include "signround/ops/row_checks.h"

namespace signround::detail {
namespace {

// Rows to read may have the stride 0.
void check_rows(const char* op, const char* name, const void* data, int64_t stride, HeadShape shape,
                bool to_read) {
  require(data != nullptr || shape.rows() * shape.dim == 0, op, name, " has no data, expected ",
          shape.tokens, " rows of ", shape.cols(), " values");
  require(stride >= shape.cols() || shape.tokens <= 1 || (to_read && stride == 0), op, name,
          " has a stride of ", stride, ", expected at least ", shape.cols(),
          ", the length of a row");
}

}  // namespace

void check_shape(const char* op, HeadShape shape) {
  require(shape.tokens >= 0 && shape.heads >= 1 && shape.dim >= 0, op, "the shape is ",
          shape.tokens, " tokens, ", shape.heads, " heads of ", shape.dim,
          " values, expected no negative number and at least one head");
}

void check_in(const char* op, const char* name, RowsIn rows, HeadShape shape) {
  check_rows(op, name, rows.data, rows.stride, shape, true);
}

void check_in(const char* op, const char* name, RowsAny rows, HeadShape shape) {
  check_rows(op, name, rows.data, rows.stride, shape, true);
  require(rows.dtype == DType::kF32 || rows.dtype == DType::kBF16 || rows.dtype == DType::kF16, op,
          name, " is ", name_of(rows.dtype), ", expected F32, BF16 or F16");
}

void check_out(const char* op, const char* name, RowsOut rows, HeadShape shape, bool f16) {
  check_rows(op, name, rows.data, rows.stride, shape, false);
  require(
      rows.dtype == DType::kF32 || rows.dtype == DType::kBF16 || (f16 && rows.dtype == DType::kF16),
      op, name, " is ", name_of(rows.dtype), ", expected F32", f16 ? ", BF16 or F16" : " or BF16");
}

void check_grad(const char* op, const char* name, RowsOut rows, HeadShape shape, bool accumulate) {
  check_out(op, name, rows, shape);
  require(!accumulate || rows.dtype == DType::kF32, op, name, " is ", name_of(rows.dtype),
          ", expected F32: gradients are added up in F32 only");
}

void check_size(const char* op, const char* name, size_t values, int64_t expected, bool optional) {
  if (optional && values == 0) return;
  require(static_cast<int64_t>(values) == expected, op, name, " has ", values, " values, expected ",
          expected);
}

}  // namespace signround::detail
