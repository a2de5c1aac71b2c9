// Squared error of rows, and its gradient in the same pass:
//   row_sums[i] = sum_j (pred_ij - ref_ij)^2,   d_pred = 2 (pred - ref) scale
// A row with mask 0 has the sum 0 and the gradient 0.
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround::kernels {

// ref: f32 or bf16. mask (rows) may be null; d_pred may be absent, may lie on pred (f32).
struct MseLoss {
  int64_t cols;
  RowsIn pred;
  RowsAny ref;
  const uint8_t* mask;
  float scale;
  double* row_sums;
  RowsOut d_pred;
};

// Rows [begin, end).
void mse_loss_hwy(const MseLoss& a, int64_t begin, int64_t end) noexcept;
void mse_loss_ref(const MseLoss& a, int64_t begin, int64_t end) noexcept;

}  // namespace signround::kernels
