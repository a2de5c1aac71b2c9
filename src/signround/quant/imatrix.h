// The importance of a layer's input channels: sums of squares of what the layer sees on calibration
// text.
#pragma once

#include <cstdint>
#include <vector>

namespace signround {

// sums[c] += sum over rows of x[r, c]^2. x: (rows, cols) with `stride` elements from row to row.
// Threads split the columns, so the result does not depend on their number.
void add_second_moments(const float* x, int64_t rows, int64_t cols, int64_t stride, double* sums);

// What opt_rtn takes: the sums divided by the number of rows, as f32. Fails with kInvalidArgument
// for rows < 1.
std::vector<float> importance_of(const std::vector<double>& sums, int64_t rows);

}  // namespace signround
