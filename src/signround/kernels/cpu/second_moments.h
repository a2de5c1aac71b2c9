// Sums of squares of each column: what the importance of an input channel is made of.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace signround::kernels {

struct SecondMomentsKernel {
  std::string_view name;
  const char* (*why_not)();
  // sums[c] += x[r, c]^2 over the rows, for `cols` columns; rows are `stride` elements apart.
  // Squares are f32, up to 16 of them are added in f32, in order, and then to the double: the same
  // bits in every row of the table.
  void (*add)(const float* x, int64_t rows, int64_t cols, int64_t stride, double* sums) noexcept;
};

std::span<const SecondMomentsKernel> second_moments_kernels();
const SecondMomentsKernel& second_moments_kernel();  // the one to use; see kernels/dispatch.h

}  // namespace signround::kernels
