// Gradient of a bias: y = x W^T + b for every row, so d_b is the sum of d_y over the rows. The
// forward pass is part of the product (ops/matmul.h).
#pragma once

#include <span>

#include "signround/tensor/rows.h"

namespace signround {

// Reference on T (float, double or std::complex<double>). d_y: (n, d). d_b: (d), added to.
template <class T>
void bias_bwd_ref(Mat<const T> d_y, T* d_b) {
  for (int64_t i = 0; i < d_y.rows; ++i)
    for (int64_t j = 0; j < d_y.cols; ++j) d_b[j] += d_y.row(i)[j];
}

// d_y: (n, d), f32 or bf16. d_b: (d), added to; summed in double in the order of the rows, whatever
// the thread count.
void bias_bwd(int64_t n, int64_t d, RowsAny d_y, std::span<float> d_b);

}  // namespace signround
