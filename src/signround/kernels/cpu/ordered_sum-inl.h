// A sum whose bits do not depend on the instruction set: element i of a row goes to partial sum i
// mod 16, and the 16 are then added in a tree. Compiled once per instruction set; include it after
// foreach_target.h.
#if defined(SIGNROUND_KERNELS_CPU_ORDERED_SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIGNROUND_KERNELS_CPU_ORDERED_SUM_INL_H_
#undef SIGNROUND_KERNELS_CPU_ORDERED_SUM_INL_H_
#else
#define SIGNROUND_KERNELS_CPU_ORDERED_SUM_INL_H_
#endif

#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

constexpr int64_t kSums = 16;

// What this header cannot serve; a reason for a kernel's why_not.
inline bool vectors_fit() { return lanes() <= kSums; }

// sums[place ...] += v, at the place of an element whose index is `place` mod 16. GCC keeps it in
// registers.
HWY_INLINE void add_at(VF v, float* sums, int64_t place) {
  hn::Store(hn::Add(hn::Load(DF(), sums + place), v), DF(), sums + place);
}

#if HWY_TARGET == HWY_SCALAR || HWY_HAVE_SCALABLE
HWY_INLINE float tree_sum(float* sums) {
  for (int64_t half = kSums / 2; half > 0; half /= 2)
    for (int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}
#else
// Halves of a register: as loops over memory this took half of the time of a SignRound step with
// groups of 32.
template <class D>
HWY_INLINE float tree_sum_lanes(D d, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) > 4) {
    const hn::Half<D> half;
    return tree_sum_lanes(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    HWY_ALIGN float s[4];
    hn::Store(v, d, s);
    return (s[0] + s[2]) + (s[1] + s[3]);
  }
}

HWY_INLINE float tree_sum(const float* sums) {
  const DF d;
  constexpr size_t kLanes = hn::MaxLanes(DF());
  static_assert(kLanes == 4 || kLanes == 8 || kLanes == 16);
  VF sum = hn::Load(d, sums);
  if constexpr (kLanes == 8) sum = hn::Add(sum, hn::Load(d, sums + 8));
  if constexpr (kLanes == 4) {
    const VF high = hn::Add(hn::Load(d, sums + 4), hn::Load(d, sums + 12));
    sum = hn::Add(hn::Add(sum, hn::Load(d, sums + 8)), high);
  }
  return tree_sum_lanes(d, sum);
}
#endif

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
