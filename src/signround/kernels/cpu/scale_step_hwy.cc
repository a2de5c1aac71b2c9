// kernels/cpu/scale_step.h on Highway. Adam's part has the reference's bits.
#include "signround/kernels/cpu/scale_step.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/scale_step_hwy.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set
// After it.
#include <hwy/contrib/math/math-inl.h>

#include <algorithm>

#include "signround/kernels/cpu/rounded_scale-inl.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

using DD = hn::ScalableTag<double>;
using DHalf = hn::Rebind<float, DD>;  // as many floats as there are doubles in a vector

// Of one vector of doubles.
HWY_INLINE void adam(const double* gradient, double lr, ScaleMoments* moments, float* t) {
  const DD d;
  const DHalf dh;
  const auto g = hn::LoadU(d, gradient);
  hn::Vec<DHalf> mean, root;
  hn::LoadInterleaved2(dh, &moments->mean, mean, root);
  const auto old_mean = hn::PromoteTo(d, mean), old_root = hn::PromoteTo(d, root);
  const auto new_mean =
      hn::Add(hn::Mul(hn::Set(d, kScaleBeta1), old_mean), hn::Mul(hn::Set(d, 1 - kScaleBeta1), g));
  const auto size = hn::Sqrt(hn::Add(hn::Mul(hn::Mul(hn::Set(d, kScaleBeta2), old_root), old_root),
                                     hn::Mul(hn::Mul(hn::Set(d, 1 - kScaleBeta2), g), g)));
  const auto change = hn::Div(hn::Mul(hn::Set(d, -lr), new_mean), size);
  // Infinity minus itself is no number, nor is what was none before.
  const auto difference = hn::Sub(g, g);
  const auto finite = hn::Eq(difference, hn::Zero(d));
  const auto moves = hn::And(finite, hn::Not(hn::Eq(size, hn::Zero(d))));
  const auto old_t = hn::LoadU(dh, t);
  hn::StoreU(hn::Add(old_t, hn::DemoteTo(dh, hn::IfThenElseZero(moves, change))), dh, t);
  hn::StoreInterleaved2(hn::DemoteTo(dh, hn::IfThenElse(finite, new_mean, old_mean)),
                        hn::DemoteTo(dh, hn::IfThenElse(finite, size, old_root)), dh,
                        &moments->mean);
}

HWY_INLINE VF scale_of(VF t, VF start, const ScaleLimits& limits) {
  const VF value = rounded_scale(hn::Mul(start, hn::Exp(DF(), t)), limits.dtype);
  const VF floored =
      hn::CopySign(hn::Max(hn::Abs(value), set(limits.smallest)), hn::Add(value, set(0)));
  return hn::IfThenElse(hn::Eq(t, set(0)), start, floored);
}

void move(int64_t n, const double* gradient, double lr, ScaleMoments* moments, float* t) {
  const auto width = static_cast<int64_t>(hn::Lanes(DD()));
  int64_t i = 0;
  for (; i + width <= n; i += width) adam(gradient + i, lr, moments + i, t + i);
  if (i == n) return;
  constexpr size_t kLanes = hn::MaxLanes(DD());
  double last_gradient[kLanes] = {};
  ScaleMoments last_moments[kLanes] = {};
  float last_t[kLanes] = {};
  std::copy(gradient + i, gradient + n, last_gradient);
  std::copy(moments + i, moments + n, last_moments);
  std::copy(t + i, t + n, last_t);
  adam(last_gradient, lr, last_moments, last_t);
  std::copy_n(last_moments, n - i, moments + i);
  std::copy_n(last_t, n - i, t + i);
}

void scales(int64_t n, const float* t, const float* start, const ScaleLimits& limits,
            float* scale) {
  for_vectors(n, [&](int64_t i, auto io) SIGNROUND_LAMBDA {
    io.store(scale_of(io.load(t, i), io.load(start, i), limits), scale, i);
  });
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(move);
HWY_EXPORT(scales);

void move_hwy(int64_t n, const double* gradient, double lr, ScaleMoments* moments,
              float* t) noexcept {
  HWY_DYNAMIC_DISPATCH(move)(n, gradient, lr, moments, t);
}
void scales_hwy(int64_t n, const float* t, const float* start, const ScaleLimits& limits,
                float* scale) noexcept {
  HWY_DYNAMIC_DISPATCH(scales)(n, t, start, limits, scale);
}

}  // namespace signround::kernels
#endif
