// z = x + y of rows (n, d). The backward pass is d_x = d_y = d_z and needs no operation.
// add_rms_norm_fwd in ops/rms_norm.h adds and normalizes in one pass.
#pragma once

#include "signround/tensor/rows.h"

namespace signround {

// z: f32 or bf16; may lie on x or y (f32).
void add(int64_t n, int64_t d, RowsIn x, RowsIn y, RowsOut z);

}  // namespace signround
