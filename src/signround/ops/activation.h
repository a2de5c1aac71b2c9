// Activation functions, alone and gated (SwiGLU, GeGLU).
#pragma once

#include <string_view>

#include "signround/kernels/cpu/activation.h"
#include "signround/tensor/rows.h"

namespace signround {

// y = f(x), (n, d). y: f32 or bf16, may lie on x where both have one type.
void activation_fwd(Activation kind, int64_t n, int64_t d, RowsAny x, RowsOut y);
// d_x: overwritten, or added to (f32) if accumulate. It may lie on x or d_y
// of its type.
void activation_bwd(Activation kind, int64_t n, int64_t d, RowsAny x, RowsAny d_y, RowsOut d_x,
                    bool accumulate);

// y = f(gate) * up, (n, d) each; gate and up are often the halves of one product. y may lie on gate
// or up of its type.
void glu_fwd(Activation kind, int64_t n, int64_t d, RowsAny gate, RowsAny up, RowsOut y);
// d_gate and d_up have one type; each may lie on gate, up or d_y of that type.
void glu_bwd(Activation kind, int64_t n, int64_t d, RowsAny gate, RowsAny up, RowsAny d_y,
             RowsOut d_gate, RowsOut d_up, bool accumulate);

}  // namespace signround
