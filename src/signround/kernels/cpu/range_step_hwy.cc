// kernels/cpu/range_step.h on Highway. Quotes are from quant/grid.h.
#include "signround/kernels/cpu/range_step.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/range_step_hwy.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/rounded_scale-inl.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

struct RangeVectors {
  VF lo, hi;
};
struct GridVectors {
  VF scale, zero;
  hn::Mask<DF> floored, zero_held;
};
struct FactorVectors {
  VF alpha, beta;
};

HWY_INLINE VF larger(VF a, VF b) {
  const VF other = hn::IfThenElse(hn::Lt(a, b), b, a);
  return hn::IfThenElse(hn::Eq(a, b), hn::Mul(hn::Add(a, b), set(0.5f)), other);
}

struct GridConstants {
  VF max_code, half, floor;
  ScaleLimits limits;
  explicit HWY_INLINE GridConstants(const RangeGridRule& rule)
      : max_code(set(static_cast<float>((1 << rule.bits) - 1))),
        half(set(static_cast<float>(1 << (rule.bits - 1)))),
        floor(set(rule.limits.smallest)),
        limits(rule.limits) {}
};

// ref: group_grid_fwd
template <RangeRule kRule>
HWY_INLINE GridVectors grid_of(const GridConstants& c, const RangeVectors& range) {
  const VF below = hn::Neg(range.lo), most = larger(below, range.hi);
  VF scale;
  if constexpr (kRule == RangeRule::kFullRange) {
    scale = hn::Div(most, c.half);  // ref: a product with its inverse, which is exact
    scale = hn::IfThenElse(hn::Lt(range.hi, below), scale, hn::Neg(scale));
  } else if constexpr (kRule == RangeRule::kAsym) {
    scale = hn::Div(hn::Sub(range.hi, range.lo), c.max_code);
  } else {
    const VF from = hn::IfThenElse(hn::Lt(range.lo, set(0)), hn::Neg(most), range.lo);
    scale = hn::Div(hn::Sub(most, from), c.max_code);
  }
  scale = rounded_scale(scale, c.limits.dtype);
  const auto negative = hn::Lt(scale, set(0));
  const auto floored = hn::Lt(hn::IfThenElse(negative, hn::Neg(scale), scale), c.floor);
  scale = hn::IfThenElse(floored, hn::IfThenElse(negative, hn::Neg(c.floor), c.floor), scale);
  if constexpr (kRule == RangeRule::kAsym) {
    const VF zero = hn::Round(hn::Div(below, scale));
    const auto held = hn::Gt(zero, c.max_code);
    return {scale, hn::IfThenElse(held, c.max_code, zero), floored, held};
  } else {
    return {scale, c.half, floored, hn::Eq(scale, scale)};
  }
}

// ref: group_grid_bwd
template <RangeRule kRule>
HWY_INLINE FactorVectors gradients_of(const GridConstants& c, const RangeVectors& range,
                                      const GridVectors& grid, VF min, VF max, VF d_scale,
                                      VF d_clamped) {
  const VF below = hn::Neg(range.lo);
  VF d_lo = set(0), d_hi = d_lo;
  if constexpr (kRule == RangeRule::kAsym) {
    const VF moved = hn::Sub(d_scale, hn::Mul(d_clamped, hn::Div(range.lo, grid.scale)));
    d_lo = hn::IfThenZeroElse(grid.zero_held, d_clamped);
    d_scale = hn::IfThenElse(grid.zero_held, d_scale, moved);
  }
  d_scale = hn::IfThenZeroElse(grid.floored, d_scale);
  if constexpr (kRule == RangeRule::kAsym) {
    const VF share = hn::Div(d_scale, c.max_code);
    d_hi = hn::Add(d_hi, share);
    d_lo = hn::Sub(d_lo, share);
  } else {
    VF d_larger;
    if constexpr (kRule == RangeRule::kFullRange) {
      d_larger =
          hn::Div(hn::IfThenElse(hn::Lt(range.hi, below), d_scale, hn::Neg(d_scale)), c.half);
    } else {
      const auto both = hn::Lt(range.lo, set(0));
      d_larger = hn::Div(hn::IfThenElse(both, hn::Mul(set(2), d_scale), d_scale), c.max_code);
      d_lo = hn::IfThenElse(both, d_lo, hn::Sub(d_lo, hn::Div(d_scale, c.max_code)));
    }
    const auto equal = hn::Eq(below, range.hi), above = hn::Gt(below, range.hi);
    const VF each = hn::Mul(d_larger, set(0.5f));
    d_lo = hn::Sub(d_lo, hn::IfThenElse(equal, each, hn::IfThenElseZero(above, d_larger)));
    d_hi = hn::Add(d_hi, hn::IfThenElse(equal, each, hn::IfThenZeroElse(above, d_larger)));
  }
  return {hn::Mul(min, d_lo), hn::Mul(max, d_hi)};
}

struct FactorMove {
  VF lr, momentum;
};

template <class Io>
HWY_INLINE VF moved(const Io& io, const FactorMove& move, VF gradient, VF factor, float* buffer,
                    int64_t k) {
  if (buffer != nullptr) {
    gradient = hn::Add(hn::Mul(move.momentum, io.load(buffer, k)), gradient);
    io.store(gradient, buffer, k);
  }
  const VF down = hn::IfThenElseZero(hn::Gt(gradient, set(0)), move.lr),
           up = hn::IfThenElseZero(hn::Lt(gradient, set(0)), move.lr);
  return hn::Min(hn::Max(hn::Add(hn::Sub(factor, down), up), set(0)), set(1));
}

template <RangeRule kRule>
HWY_INLINE void step_all(const RangeGridRule& rule, int64_t n, float lr, float momentum,
                         const RangeArrays& a) {
  const GridConstants c(rule);
  const FactorMove move{set(lr), set(momentum)};
  for_vectors(n, [&](int64_t k, auto io) SIGNROUND_LAMBDA {
    const VF min = io.load(a.min, k), max = io.load(a.max, k);
    VF alpha = io.load(a.alpha, k), beta = io.load(a.beta, k);
    const RangeVectors before{hn::Mul(min, alpha), hn::Mul(max, beta)};
    const FactorVectors d = gradients_of<kRule>(c, before, grid_of<kRule>(c, before), min, max,
                                                io.load(a.d_scale, k), io.load(a.d_clamped, k));
    alpha = moved(io, move, d.alpha, alpha, a.alpha_buffer, k);
    beta = moved(io, move, d.beta, beta, a.beta_buffer, k);
    io.store(alpha, a.alpha, k);
    io.store(beta, a.beta, k);
    const GridVectors grid = grid_of<kRule>(c, {hn::Mul(min, alpha), hn::Mul(max, beta)});
    io.store(grid.scale, a.scale, k);
    io.store(grid.zero, a.zero, k);
  });
}

void range_step(const RangeGridRule& rule, int64_t n, float lr, float momentum,
                const RangeArrays& arrays) {
  switch (rule.rule) {
    case RangeRule::kFullRange:
      return step_all<RangeRule::kFullRange>(rule, n, lr, momentum, arrays);
    case RangeRule::kAsym:
      return step_all<RangeRule::kAsym>(rule, n, lr, momentum, arrays);
    case RangeRule::kClassic:
      return step_all<RangeRule::kClassic>(rule, n, lr, momentum, arrays);
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(range_step);

void range_step_hwy(const RangeGridRule& rule, int64_t n, float lr, float momentum,
                    const RangeArrays& arrays) noexcept {
  HWY_DYNAMIC_DISPATCH(range_step)(rule, n, lr, momentum, arrays);
}

}  // namespace signround::kernels
#endif
