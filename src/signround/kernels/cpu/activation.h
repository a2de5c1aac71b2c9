// Activation functions, alone (y = f(x)) or gated (y = f(gate) * up: SwiGLU, GeGLU).
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround {

enum class Activation : uint8_t {
  kSilu,         // x / (1 + e^-x)
  kGeluTanh,     // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kGeluErf,      // x/2 (1 + erf(x / sqrt 2))
  kRelu,         // max(x, 0)
  kReluSquared,  // max(x, 0)^2
};

}  // namespace signround

namespace signround::kernels {

// (rows, cols). up.data null: no gate. y may lie on x or up, of its type.
struct ActFwd {
  Activation kind;
  int64_t cols;
  RowsAny x, up;
  RowsOut y;
};

// d_up is used where up.data is. d_x and d_up may lie on d_y (one of them), x and up, of
// their type.
struct ActBwd {
  Activation kind;
  int64_t cols;
  RowsAny x, up, d_y;
  RowsOut d_x, d_up;
  bool accumulate;
};

// Rows [begin, end).
void act_fwd_hwy(const ActFwd& a, int64_t begin, int64_t end) noexcept;
void act_fwd_ref(const ActFwd& a, int64_t begin, int64_t end) noexcept;
void act_bwd_hwy(const ActBwd& a, int64_t begin, int64_t end) noexcept;
void act_bwd_ref(const ActBwd& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
