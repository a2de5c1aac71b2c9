// kernels/cpu/grid_loss.h on Highway, with the reference's bits.
#include "signround/kernels/cpu/grid_loss.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/grid_loss_hwy.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/ordered_sum-inl.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

HWY_INLINE VF code(VF x, VF inverse, VF lo, VF hi) {
  return hn::Min(hn::Max(hn::Round(hn::Mul(x, inverse)), lo), hi);
}

HWY_INLINE VF term(VF x, VF w, VF inverse, VF scale, VF lo, VF hi) {
  const VF e = hn::Sub(hn::Mul(scale, code(x, inverse, lo, hi)), x);
  return hn::Mul(hn::Mul(w, e), e);
}

// Two grids at a time share what is loaded.
void losses_of_two(const float* x, const float* w, int64_t n, const TrialGrid& a,
                   const TrialGrid& b, float* loss) {
  HWY_ALIGN float sums_a[kSums], sums_b[kSums];
  const VF scale_a = set(a.scale), inverse_a = set(1 / a.scale), lo_a = set(a.lo), hi_a = set(a.hi);
  const VF scale_b = set(b.scale), inverse_b = set(1 / b.scale), lo_b = set(b.lo), hi_b = set(b.hi);
  for (int64_t at = 0; at < kSums; at += lanes()) {
    VF sum_a = set(0), sum_b = set(0);
    for (int64_t i = at; i < n; i += kSums) {
      const VF xv = load(x + i), wv = load(w + i);
      sum_a = hn::Add(sum_a, term(xv, wv, inverse_a, scale_a, lo_a, hi_a));
      sum_b = hn::Add(sum_b, term(xv, wv, inverse_b, scale_b, lo_b, hi_b));
    }
    hn::Store(sum_a, DF(), sums_a + at);
    hn::Store(sum_b, DF(), sums_b + at);
  }
  loss[0] = tree_sum(sums_a);
  loss[1] = tree_sum(sums_b);
}

void losses(const float* x, const float* w, int64_t n, const TrialGrid* grids, int64_t count,
            float* loss) {
  int64_t t = 0;
  for (; t + 2 <= count; t += 2) losses_of_two(x, w, n, grids[t], grids[t + 1], loss + t);
  if (t == count) return;
  float both[2];
  losses_of_two(x, w, n, grids[t], grids[t], both);
  loss[t] = both[0];
}

FitSums fit(const float* x, const float* w, int64_t n, const TrialGrid& grid) {
  HWY_ALIGN float sums[5][kSums];
  const VF inverse = set(1 / grid.scale), lo = set(grid.lo), hi = set(grid.hi);
  for (int64_t at = 0; at < kSums; at += lanes()) {
    VF sum_w = set(0), sum_q = sum_w, sum_qq = sum_w, sum_x = sum_w, sum_xq = sum_w;
    for (int64_t i = at; i < n; i += kSums) {
      const VF xv = load(x + i), wv = load(w + i), q = code(xv, inverse, lo, hi);
      const VF wq = hn::Mul(wv, q), wx = hn::Mul(wv, xv);
      sum_w = hn::Add(sum_w, wv);
      sum_q = hn::Add(sum_q, wq);
      sum_qq = hn::Add(sum_qq, hn::Mul(wq, q));
      sum_x = hn::Add(sum_x, wx);
      sum_xq = hn::Add(sum_xq, hn::Mul(wx, q));
    }
    hn::Store(sum_w, DF(), sums[0] + at);
    hn::Store(sum_q, DF(), sums[1] + at);
    hn::Store(sum_qq, DF(), sums[2] + at);
    hn::Store(sum_x, DF(), sums[3] + at);
    hn::Store(sum_xq, DF(), sums[4] + at);
  }
  return {tree_sum(sums[0]), tree_sum(sums[1]), tree_sum(sums[2]), tree_sum(sums[3]),
          tree_sum(sums[4])};
}

bool grid_loss_fits() { return vectors_fit(); }

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(losses);
HWY_EXPORT(fit);
HWY_EXPORT(grid_loss_fits);

void grid_losses_hwy(const float* x, const float* w, int64_t n, std::span<const TrialGrid> grids,
                     float* loss) noexcept {
  HWY_DYNAMIC_DISPATCH(losses)(x, w, n, grids.data(), static_cast<int64_t>(grids.size()), loss);
}
FitSums grid_fit_hwy(const float* x, const float* w, int64_t n, const TrialGrid& grid) noexcept {
  return HWY_DYNAMIC_DISPATCH(fit)(x, w, n, grid);
}
const char* grid_loss_hwy_why_not() {
  return HWY_DYNAMIC_DISPATCH(grid_loss_fits)() ? nullptr : "vectors are longer than 16 floats";
}

}  // namespace signround::kernels
#endif
