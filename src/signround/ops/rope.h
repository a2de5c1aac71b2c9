// Rotary position embedding: the table of angles, and the rotation of heads by it.
#pragma once

#include <span>

#include "signround/kernels/cpu/rope.h"
#include "signround/tensor/mat.h"
#include "signround/tensor/rows.h"

namespace signround {

// Cosine and sine of position * inv_freq, times the attention factor of the scaling rule (1 without
// one).
struct RopeTable {
  MatBuffer<float> cos, sin;  // (positions, rot_dim / 2)
  int64_t positions() const { return cos.view().rows; }
  int64_t rot_dim() const { return 2 * cos.view().cols; }
};

// inv_freq: (rot_dim / 2). The angle is rounded to f32 before the cosine, as the models were
// trained with.
RopeTable rope_table(std::span<const float> inv_freq, double attention_factor, int64_t positions);

struct RopeOptions {
  RopeStyle style = RopeStyle::kHalfSplit;
  int64_t offset = 0;   // token t stands at position offset + t % seq_len
  int64_t seq_len = 0;  // tokens of one sequence
};

// x, y: shape. y: f32 or bf16, may lie on x of its type. Dimensions from table.rot_dim() on are
// copied.
void rope_fwd(HeadShape shape, RowsAny x, const RopeTable& table, const RopeOptions& options,
              RowsOut y);

// The inverse rotation (times the attention factor, as forward). d_x: overwritten, or added to
// (f32) if accumulate; may lie on d_y of its type where not accumulate.
void rope_bwd(HeadShape shape, RowsAny d_y, const RopeTable& table, const RopeOptions& options,
              RowsOut d_x, bool accumulate);

}  // namespace signround
