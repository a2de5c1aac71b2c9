#include "signround/kernels/cpu/scale_search.h"

#include "signround/kernels/dispatch.h"

namespace signround::kernels {
namespace {

constexpr ScaleSearchKernel kKernels[] = {
    {"hwy", scale_search_hwy_why_not, scale_search_hwy},
    {"ref", runs_always, scale_search_ref},
};

}  // namespace

ScaleCandidates scale_candidates(int half, double step, int steps) {
  ScaleCandidates c{half, steps, step, {}, {}};
  for (int j = -steps; j <= steps; ++j) c.multiplier.push_back(static_cast<float>(half - step * j));
  c.inverse_in_columns.resize(kSearchRows * kSearchColumns);
  for (int m = 0; m <= 2 * steps && m < kSearchRows * kSearchColumns; ++m)
    c.inverse_in_columns[static_cast<size_t>(m % kSearchRows * kSearchColumns + m / kSearchRows)] =
        1 / (half - step * (steps - m));
  return c;
}

std::span<const ScaleSearchKernel> scale_search_kernels() { return kKernels; }

const ScaleSearchKernel& scale_search_kernel() { return pick_kernel("scale_search", kKernels); }

}  // namespace signround::kernels
