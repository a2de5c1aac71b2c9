// Squared error between rows, over the rows that a mask allows.
#pragma once

#include <span>

#include "signround/tensor/rows.h"

namespace signround {

struct MseLoss {
  double sum = 0;     // of (pred - ref)^2; the same for every thread count
  int64_t count = 0;  // valid rows * d
};

// Rows of the mask that are not 0; n where it is empty.
int64_t count_valid_rows(std::span<const uint8_t> mask, int64_t n);

// pred, ref: (n, d); ref f32 or bf16. mask: (n), 0 = the row does not count, empty = all do.
// row_sums: (n), scratch that holds each row's sum afterwards; on a GPU they are the result, and what is returned is
// empty: nobody waits for it.
MseLoss mse_loss_fwd(int64_t n, int64_t d, RowsIn pred, RowsAny ref, std::span<const uint8_t> mask,
                     std::span<double> row_sums);

// The same and d_pred = 2 (pred - ref) scale, 0 in rows that do not count, in one pass. The mean
// squared error has scale = 1 / count. d_pred: f32 or bf16, overwritten; may lie on pred (f32).
MseLoss mse_loss_fwd_bwd(int64_t n, int64_t d, RowsIn pred, RowsAny ref,
                         std::span<const uint8_t> mask, float scale, std::span<double> row_sums,
                         RowsOut d_pred);

}  // namespace signround
