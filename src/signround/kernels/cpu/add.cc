#include "signround/kernels/cpu/add.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/add.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/add_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

void add(const Add& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float *x = row_of(a.x, i), *y = row_of(a.y, i);
    const OutRow z = row_of(a.z, i);
    for_vectors(a.cols, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      fetch_ahead(x + j);
      fetch_ahead(y + j);
      store(io, hn::Add(io.load(x, j), io.load(y, j)), z, j);
    });
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(add);

void add_hwy(const Add& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(add)(a, begin, end);
}

void add_ref(const Add& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i)
    with_out(a.z, i * a.z.stride, [&](auto* z) {
      add_row(a.x.data + i * a.x.stride, a.y.data + i * a.y.stride, a.cols, z);
    });
}

}  // namespace signround::kernels
#endif
