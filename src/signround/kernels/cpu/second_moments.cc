#include "signround/kernels/cpu/second_moments.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/second_moments.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/simd-inl.h"
#include "signround/kernels/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

constexpr int64_t kRunRows = 16;

template <class Io>
HWY_INLINE void add_columns(const Io& io, const float* x, int64_t rows, int64_t stride, int64_t c,
                            int64_t n, double* sums) {
  VF sum = set(0);
  for (int64_t r = 0; r < rows; ++r) {
    const VF v = io.load(x + r * stride, c);
    sum = hn::Add(sum, hn::Mul(v, v));
  }
  HWY_ALIGN float values[hn::MaxLanes(DF())];
  hn::Store(sum, DF(), values);
  for (int64_t i = 0; i < n; ++i) sums[c + i] += static_cast<double>(values[i]);
}

// ref: sum += v * v, 16 rows at a time; those stay in L1 or L2 between two vectors of columns.
HWY_ATTR void add_second_moments(const float* x, int64_t rows, int64_t cols, int64_t stride,
                                 double* sums) {
  const int64_t width = lanes();
  for (int64_t r = 0; r < rows; r += kRunRows) {
    const int64_t n = rows - r < kRunRows ? rows - r : kRunRows;
    const float* run = x + r * stride;
    int64_t c = 0;
    for (; c + width <= cols; c += width) add_columns(Full{}, run, n, stride, c, width, sums);
    if (c < cols) add_columns(Part{cols - c}, run, n, stride, c, cols - c, sums);
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(add_second_moments);

namespace {

void add_hwy(const float* x, int64_t rows, int64_t cols, int64_t stride, double* sums) noexcept {
  HWY_DYNAMIC_DISPATCH(add_second_moments)(x, rows, cols, stride, sums);
}

void add_ref(const float* x, int64_t rows, int64_t cols, int64_t stride, double* sums) noexcept {
  for (int64_t c = 0; c < cols; ++c) {
    float sum = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const float v = x[r * stride + c];
      sum += v * v;
      if (r % 16 != 15 && r + 1 != rows) continue;
      sums[c] += static_cast<double>(sum);
      sum = 0;
    }
  }
}

constexpr SecondMomentsKernel kKernels[] = {{"hwy", runs_always, add_hwy},
                                            {"ref", runs_always, add_ref}};

}  // namespace

std::span<const SecondMomentsKernel> second_moments_kernels() { return kKernels; }
const SecondMomentsKernel& second_moments_kernel() {
  return pick_kernel("second_moments", kKernels);
}

}  // namespace signround::kernels
#endif
