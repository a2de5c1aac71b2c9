#include "signround/kernels/cpu/xent.h"

#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/xent.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/exp-inl.h"
#include "signround/kernels/cpu/simd-inl.h"
#include "signround/kernels/cpu/xent_ref.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Largest {
  float value;
  int32_t place;
  bool usable;  // finite, and no NaN in the row
};

HWY_INLINE Largest largest(const float* x, int64_t n) {
  const DF d;
  VF top = set(-kInf), bad = set(0);
  for_vectors(n, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
    const VF v = io.outside(io.load(x, j), set(-kInf));
    top = hn::Max(top, v);
    bad = hn::Or(bad, hn::VecFromMask(d, hn::Not(hn::Lt(v, set(kInf)))));
  });
  const float value = hn::GetLane(hn::MaxOfLanes(d, top));
  const bool usable = hn::AllFalse(d, hn::MaskFromVec(bad)) && value > -kInf;
  if (!usable)
    return {std::numeric_limits<float>::quiet_NaN(), static_cast<int32_t>(argmax_row(x, n)), false};
  const VF want = set(value);
  int64_t j = 0;
  for (; j + lanes() <= n; j += lanes())
    if (!hn::AllFalse(d, hn::Eq(load(x + j), want))) break;
  while (x[j] != value) ++j;
  return {value, static_cast<int32_t>(j), true};
}

HWY_INLINE XentRow score(const float* x, int64_t n, int32_t target) {
  const Largest top = largest(x, n);
  XentRow row{NAN, NAN, top.value, top.place};
  if (top.usable) {
    const VF shift = set(top.value);
    const double sum = sum_vectors_double(n, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      return io.inside(exp_down(hn::Sub(io.load(x, j), shift)));
    });
    row.log_sum_exp = static_cast<double>(top.value) + std::log(sum);
    row.log_p = static_cast<double>(x[target < 0 ? 0 : target]) - row.log_sum_exp;
  }
  if (target < 0) row.log_p = 0;
  return row;
}

// The probabilities of both rows and the logarithm d = log p - log p_ref of their quotient.
//
// The divergence is the sum of p_ref phi(d) with phi(d) = e^d - 1 - d, as both rows sum to 1. No
// term is negative, so nothing cancels, and an error of the log-sum-exps counts only as its square:
// a divergence of 1e-9 is as accurate as one of 1. For that d must be accurate where it is small:
// the difference of the logits keeps its rounding error, and the difference of the log-sum-exps
// comes in two parts.
struct Pair {
  VF shift, scale, ref_shift, ref_scale, hi, lo;

  HWY_INLINE Pair(const XentRow& model, const XentRow& ref) {
    const double offset = ref.log_sum_exp - model.log_sum_exp;
    const float high = static_cast<float>(offset);
    shift = set(model.max);
    ref_shift = set(ref.max);
    scale = set(static_cast<float>(std::exp(static_cast<double>(model.max) - model.log_sum_exp)));
    ref_scale = set(static_cast<float>(std::exp(static_cast<double>(ref.max) - ref.log_sum_exp)));
    hi = set(high);
    lo = set(static_cast<float>(offset - static_cast<double>(high)));
  }

  struct At {
    VF d, p, p_ref, phi_small;
    hn::Mask<DF> small;
  };
  HWY_INLINE At at(VF x, VF ref) const {
    const VF s = hn::Sub(x, ref), z = hn::Sub(s, x);
    VF lost = hn::Sub(hn::Sub(x, hn::Sub(s, z)), hn::Add(ref, z));
    lost = hn::IfThenElseZero(hn::Lt(hn::Abs(s), set(1e30f)), lost);
    At a;
    a.d = hn::Add(hn::Add(s, hi), hn::Add(lost, lo));
    a.p = hn::Mul(exp_down(hn::Sub(x, shift)), scale);
    a.p_ref = hn::Mul(exp_down(hn::Sub(ref, ref_shift)), ref_scale);
    a.small = hn::Lt(hn::Abs(a.d), set(0.5f));
    // phi(d) = d^2 (1/2 + d/6 + d^2/24 + ...), 9 terms: the first one left out is 2e-10 of the sum
    // at d = 1/2.
    constexpr float kTerms[] = {1.0f / 2,    1.0f / 6,     1.0f / 24,     1.0f / 120,    1.0f / 720,
                                1.0f / 5040, 1.0f / 40320, 1.0f / 362880, 1.0f / 3628800};
    VF series = set(kTerms[8]);
    for (int i = 7; i >= 0; --i) series = hn::MulAdd(series, a.d, set(kTerms[i]));
    a.phi_small = hn::Mul(hn::Mul(a.d, a.d), series);
    return a;
  }
};

HWY_INLINE double divergence(const float* x, const float* ref, const KlRow& row, int64_t n) {
  if (std::isnan(row.model.log_sum_exp + row.ref.log_sum_exp)) return NAN;
  const Pair pair(row.model, row.ref);
  return sum_vectors_double(n, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
    const Pair::At a = pair.at(io.load(x, j), io.load(ref, j));
    VF far = hn::Sub(hn::Sub(a.p, a.p_ref), hn::Mul(a.p_ref, a.d));
    far = hn::IfThenElse(hn::Gt(a.p_ref, set(0)), far, a.p);  // d may be infinite there
    return io.inside(hn::IfThenElse(a.small, hn::Mul(a.p_ref, a.phi_small), far));
  });
}

void xent_fwd(const Xent& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i)
    a.rows[i] = score(row_of(a.logits, i), a.vocab, a.targets ? a.targets[i] : -1);
}

void kl_fwd(const Kl& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float *x = row_of(a.logits, i), *ref = row_of(a.ref, i);
    const int32_t target = a.targets ? a.targets[i] : -1;
    KlRow row{score(x, a.vocab, target), score(ref, a.vocab, target), 0};
    row.kl = divergence(x, ref, row, a.vocab);
    a.rows[i] = row;
  }
}

void kl_bwd(const KlBwd& a, int64_t begin, int64_t end) {
  const VF scale = set(a.scale);
  for (int64_t i = begin; i < end; ++i) {
    const float *x = row_of(a.logits, i), *ref = row_of(a.ref, i);
    const OutRow d_x = row_of(a.d_logits, i);
    if (a.mask && a.mask[i] == 0) {
      for_vectors(a.vocab, [&](int64_t j, auto io) SIGNROUND_LAMBDA { store(io, set(0), d_x, j); });
      continue;
    }
    const Pair pair(a.rows[i].model, a.rows[i].ref);
    for_vectors(a.vocab, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      const Pair::At at = pair.at(io.load(x, j), io.load(ref, j));
      // p - p_ref = p_ref (e^d - 1) = p_ref (d + phi(d)), which does not cancel where the rows are
      // close.
      const VF near = hn::Mul(at.p_ref, hn::Add(at.d, at.phi_small));
      store(io, hn::Mul(hn::IfThenElse(at.small, near, hn::Sub(at.p, at.p_ref)), scale), d_x, j);
    });
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(xent_fwd);
HWY_EXPORT(kl_fwd);
HWY_EXPORT(kl_bwd);

void xent_fwd_hwy(const Xent& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(xent_fwd)(a, begin, end);
}
void kl_fwd_hwy(const Kl& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(kl_fwd)(a, begin, end);
}
void kl_bwd_hwy(const KlBwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(kl_bwd)(a, begin, end);
}

namespace {

XentRow score_ref(const float* x, int64_t n, int32_t target) {
  const int64_t top = argmax_row(x, n);
  XentRow row{log_sum_exp_row<double>(x, n), 0, x[top], static_cast<int32_t>(top)};
  if (target >= 0) row.log_p = static_cast<double>(x[target]) - row.log_sum_exp;
  return row;
}

}  // namespace

void xent_fwd_ref(const Xent& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i)
    a.rows[i] =
        score_ref(a.logits.data + i * a.logits.stride, a.vocab, a.targets ? a.targets[i] : -1);
}

void kl_fwd_ref(const Kl& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float *x = a.logits.data + i * a.logits.stride, *ref = a.ref.data + i * a.ref.stride;
    const int32_t target = a.targets ? a.targets[i] : -1;
    KlRow row{score_ref(x, a.vocab, target), score_ref(ref, a.vocab, target), 0};
    const double sums = row.model.log_sum_exp + row.ref.log_sum_exp;
    row.kl = std::isnan(sums)
                 ? sums
                 : kl_fwd_row(x, row.model.log_sum_exp, ref, row.ref.log_sum_exp, a.vocab);
    a.rows[i] = row;
  }
}

void kl_bwd_ref(const KlBwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float *x = a.logits.data + i * a.logits.stride, *ref = a.ref.data + i * a.ref.stride;
    const KlRow& row = a.rows[i];
    with_out(a.d_logits, i * a.d_logits.stride, [&](auto* d_x) {
      if (!a.mask || a.mask[i] != 0)
        return kl_bwd_row(x, row.model.log_sum_exp, ref, row.ref.log_sum_exp,
                          static_cast<double>(a.scale), a.vocab, d_x);
      for (int64_t j = 0; j < a.vocab; ++j) assign(d_x[j], 0.0f);
    });
  }
}

}  // namespace signround::kernels
#endif
