// The scale of one group that loses least, among a fixed set of candidates (AutoRound's opt-RTN,
// after llama.cpp's make_qx_quants): minimize  sum_i w_i (s q_i - x_i)^2  with q_i = clamp(round(t
// x_i), -M, M - 1), s = 1 / t, t = -c / g, over the multipliers c; g is the weight of largest
// magnitude, the first one where several are largest.
//
// All rows of the table give the same bits. The sum is in f32 and its order is part of the
// definition: 16 partial sums (element i goes to sum i mod 16) that are then added in a tree;
// nothing is contracted.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace signround::kernels {

constexpr int kSearchRows = 32, kSearchColumns = 8;

// Multipliers c = half - step * j for j = -steps .. steps. j = 0 is tried first, then the others in
// this order; a later one wins only if it is strictly better.
struct ScaleCandidates {
  int half;   // M
  int steps;  // at most 100
  double step;
  std::vector<float> multiplier;  // of j = -steps .. steps
  // 1 / c with c ascending, in kSearchColumns columns of kSearchRows; 0 beyond the last. For
  // scale_search_hwy.cc.
  std::vector<double> inverse_in_columns;
};
ScaleCandidates scale_candidates(int half, double step, int steps);

struct ScaleSearchKernel {
  std::string_view name;
  const char* (*why_not)();
  // w may be null: all 1. Weights are at least 0. Returns 0 where no |x| reaches 1e-30. REQUIRES: x
  // and w are finite.
  float (*search)(const float* x, const float* w, int64_t n,
                  const ScaleCandidates& candidates) noexcept;
};

std::span<const ScaleSearchKernel> scale_search_kernels();
const ScaleSearchKernel& scale_search_kernel();  // the one to use; see kernels/dispatch.h

float scale_search_ref(const float* x, const float* w, int64_t n,
                       const ScaleCandidates& candidates) noexcept;
float scale_search_hwy(const float* x, const float* w, int64_t n,
                       const ScaleCandidates& candidates) noexcept;
const char* scale_search_hwy_why_not();

constexpr float kSmallestLargest = 1e-30f;  // below it, a group counts as zero

}  // namespace signround::kernels
