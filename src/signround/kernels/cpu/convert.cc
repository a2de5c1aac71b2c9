#include "signround/kernels/cpu/convert.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/convert.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/convert_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

#ifndef SIGNROUND_KERNELS_CPU_CONVERT_ONCE_
#define SIGNROUND_KERNELS_CPU_CONVERT_ONCE_
namespace signround::kernels {
namespace {

// body(first value of the row of type float, BF16 or F16).
template <class Body>
void with_element_type(DType dtype, Body&& body) {
  if (dtype == DType::kF32) return body(float());
  if (dtype == DType::kBF16) return body(BF16());
  body(F16());
}

}  // namespace
}  // namespace signround::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

template <class In, class Out>
void convert_rows(const Convert& a, int64_t begin, int64_t end) {
  const VF scale = set(a.scale);
  for (int64_t i = begin; i < end; ++i) {
    const In* x = static_cast<const In*>(a.x.data) + (a.ids ? a.ids[i] : i) * a.x.stride;
    Out* y = static_cast<Out*>(a.y.data) + i * a.y.stride;
    if (a.scale == 1.0f)
      for_vectors(a.cols,
                  [&](int64_t j, auto io) SIGNROUND_LAMBDA { io.store(io.load(x, j), y, j); });
    else
      for_vectors(a.cols, [&](int64_t j, auto io)
                              SIGNROUND_LAMBDA { io.store(hn::Mul(io.load(x, j), scale), y, j); });
  }
}

void convert(const Convert& a, int64_t begin, int64_t end) {
  with_element_type(a.x.dtype, [&](auto in) HWY_ATTR {
    with_element_type(a.y.dtype, [&](auto out) HWY_ATTR {
      convert_rows<decltype(in), decltype(out)>(a, begin, end);
    });
  });
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(convert);

void convert_hwy(const Convert& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(convert)(a, begin, end);
}

void convert_ref(const Convert& a, int64_t begin, int64_t end) noexcept {
  with_element_type(a.x.dtype, [&]<class In>(In) {
    with_element_type(a.y.dtype, [&]<class Out>(Out) {
      for (int64_t i = begin; i < end; ++i)
        convert_row(static_cast<const In*>(a.x.data) + (a.ids ? a.ids[i] : i) * a.x.stride, a.scale,
                    a.cols, static_cast<Out*>(a.y.data) + i * a.y.stride);
    });
  });
}

}  // namespace signround::kernels
#endif
