// What a group of weights loses when it is rounded to a grid, for many grids at once: the inner
// loops of quant/scale_start.h.
//
// All rows of the table give the same bits. Sums are in f32 and their order is part of the
// definition: 16 partial sums (element i goes to sum i mod 16) that are then added in a tree;
// nothing is contracted.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace signround::kernels {

// Codes are q = clamp(round(x * (1 / scale)), lo, hi), half to even. REQUIRES: |scale| >= 1e-8.
struct TrialGrid {
  float scale, lo, hi;
};

// Sums over a group that a weighted fit of x by q needs: of w, w q, w q^2, w x, w x q.
struct FitSums {
  float w = 0, q = 0, qq = 0, x = 0, xq = 0;
};

struct GridLossKernel {
  std::string_view name;
  const char* (*why_not)();
  // loss[t] = sum_i w_i (scale q_i - x_i)^2 under grids[t]. REQUIRES: n is a multiple of 16 (pad
  // with w = 0), x and w are finite.
  void (*losses)(const float* x, const float* w, int64_t n, std::span<const TrialGrid> grids,
                 float* loss) noexcept;
  FitSums (*fit)(const float* x, const float* w, int64_t n, const TrialGrid& grid) noexcept;
};

std::span<const GridLossKernel> grid_loss_kernels();
const GridLossKernel& grid_loss_kernel();  // the one to use; see kernels/dispatch.h

void grid_losses_ref(const float* x, const float* w, int64_t n, std::span<const TrialGrid> grids,
                     float* loss) noexcept;
FitSums grid_fit_ref(const float* x, const float* w, int64_t n, const TrialGrid& grid) noexcept;
void grid_losses_hwy(const float* x, const float* w, int64_t n, std::span<const TrialGrid> grids,
                     float* loss) noexcept;
FitSums grid_fit_hwy(const float* x, const float* w, int64_t n, const TrialGrid& grid) noexcept;
const char* grid_loss_hwy_why_not();

}  // namespace signround::kernels
