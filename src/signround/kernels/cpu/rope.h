// Rotary position embedding of heads. Pair p of a head is turned by the angle of table column p:
//   (a, b) -> (a cos - b sin, b cos + a sin)
// kHalfSplit: pair p is (x[p], x[p + rot_dim / 2]);  kInterleaved: (x[2p], x[2p + 1]). Elements
// from rot_dim on are copied. The backward pass is the same with the sine negated.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround {
enum class RopeStyle : uint8_t { kHalfSplit, kInterleaved };
}  // namespace signround

namespace signround::kernels {

// y may lie on x of its type.
struct Rope {
  HeadShape shape;
  int64_t rot_dim;  // even, <= shape.dim
  RopeStyle style;
  const float *cos, *sin;   // (positions, rot_dim / 2)
  int64_t offset, seq_len;  // token t stands at position offset + t % seq_len
  RowsAny x;
  RowsOut y;
  bool inverse, accumulate;
};

// Tokens [begin, end).
void rope_hwy(const Rope& a, int64_t begin, int64_t end) noexcept;
void rope_ref(const Rope& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
