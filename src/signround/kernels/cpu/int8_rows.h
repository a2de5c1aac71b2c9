// Rounds one operand of a product to 8 bits (int8_step.h).
#pragma once

#include <cstdint>

#include "signround/tensor/rows.h"

namespace signround::kernels {

// (outer, k) row-major, or with k_major (k, outer): rows of A, or columns of B. f32 or bf16.
struct Int8Operand {
  RowsAny x;
  int64_t outer, k;
  bool k_major;
};

// The outer index in [begin, end): codes in the order of x without gaps between rows, and a step
// each. k is at most kInt8StepValues.
void round_to_int8(const Int8Operand& a, int64_t begin, int64_t end, int8_t* codes,
                   float* steps) noexcept;

// A row of C, n values of `dtype`, f32 or bf16, from sums of products of codes: sums step_a steps_b,
// plus `from` unless it is null; steps_b has one step for each column. from may be c.
void add_int8_sums(const int32_t* sums, int64_t n, float step_a, const float* steps_b,
                   const float* from, void* c, DType dtype) noexcept;

}  // namespace signround::kernels
