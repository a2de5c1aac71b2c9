// Scales as the type that holds them has them. Compiled once per instruction set.
#if defined(SIGNROUND_KERNELS_CPU_ROUNDED_SCALE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIGNROUND_KERNELS_CPU_ROUNDED_SCALE_INL_H_
#undef SIGNROUND_KERNELS_CPU_ROUNDED_SCALE_INL_H_
#else
#define SIGNROUND_KERNELS_CPU_ROUNDED_SCALE_INL_H_
#endif

#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

// The bits of kernels::rounded_scale.
HWY_INLINE VF rounded_scale(VF scale, DType dtype) {
  HWY_ALIGN F16 half[hn::MaxLanes(DF())];
  HWY_ALIGN BF16 brain[hn::MaxLanes(DF())];
  float largest = 0x1.fffffep127f;
  if (dtype == DType::kF16) {
    store(scale, half);
    scale = load(half);
    largest = 65504.0f;
  } else if (dtype == DType::kBF16) {
    store(scale, brain);
    scale = load(brain);
    largest = 0x1.fep127f;
  }
  return hn::Min(hn::Max(scale, set(-largest)), set(largest));
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
