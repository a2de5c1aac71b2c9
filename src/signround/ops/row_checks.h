// Checks of row views that the row operations share.
#pragma once

#include "signround/base/error.h"
#include "signround/tensor/rows.h"

namespace signround::detail {

void check_shape(const char* op, HeadShape shape);
// Data is there, the stride holds a row, the type is one of those that the operation takes.
void check_in(const char* op, const char* name, RowsIn rows, HeadShape shape);
void check_in(const char* op, const char* name, RowsAny rows, HeadShape shape);
// f32 or bf16, or f16 where that is allowed.
void check_out(const char* op, const char* name, RowsOut rows, HeadShape shape, bool f16 = false);
// check_out, and only f32 rows can be added to.
void check_grad(const char* op, const char* name, RowsOut rows, HeadShape shape, bool accumulate);

// `values` per row or column: exactly `expected`, or none where that is allowed.
void check_size(const char* op, const char* name, size_t values, int64_t expected,
                bool optional = false);

// Rows of a piece of work for one thread: enough that starting it does not show.
inline int64_t row_grain(int64_t cols) {
  constexpr int64_t kValues = 16384;
  return cols > 0 && cols < kValues ? kValues / cols : 1;
}

}  // namespace signround::detail
