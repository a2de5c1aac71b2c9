#include "signround/kernels/cpu/activation.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/activation.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/activation_ref.h"
#include "signround/kernels/cpu/exp-inl.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

struct Slopes {
  VF value, slope;
};

// 1 / x for x in [1, 2], to an ulp. On Intel's CPUs a division of 16 floats takes 16 cycles and
// nothing else is divided meanwhile; one step of Newton's doubles the 14 bits of an estimate.
HWY_INLINE VF inverse(VF x) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  const VF estimate = hn::ApproximateReciprocal(x);
  return hn::MulAdd(estimate, hn::NegMulAdd(x, estimate, set(1)), estimate);
#else
  return hn::Div(set(1), x);
#endif
}

// 1 / (1 + e^-z) and 1 minus that, both without cancellation: e = exp(-|z|) cannot overflow.
struct Sigmoid {
  VF s, rest;
};
HWY_INLINE Sigmoid sigmoid(VF z) {
  const VF e = exp_down(hn::Neg(hn::Abs(z)));
  const VF large = inverse(hn::Add(set(1), e));
  const VF small = hn::Mul(e, large);
  const auto positive = hn::Ge(z, set(0));
  return {hn::IfThenElse(positive, large, small), hn::IfThenElse(positive, small, large)};
}

struct Silu {
  static HWY_INLINE VF value(VF x) { return hn::Mul(x, sigmoid(x).s); }
  static HWY_INLINE Slopes slopes(VF x) {
    const Sigmoid g = sigmoid(x);
    const VF y = hn::Mul(x, g.s);
    return {y, hn::MulAdd(y, g.rest, g.s)};
  }
};

// (1 + tanh z) / 2 = 1 / (1 + e^-2z), so  y = x * sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)). From
// |x| = 11 on the sigmoid is 0 or 1 in f32; the clamp keeps x^3 from overflowing.
struct GeluTanh {
  static HWY_INLINE Sigmoid gate(VF clamped, VF square) {
    const VF scale = set(static_cast<float>(2 * kGeluScale));
    return sigmoid(hn::Mul(hn::Mul(scale, clamped),
                           hn::MulAdd(square, set(static_cast<float>(kGeluCube)), set(1))));
  }
  static HWY_INLINE VF clamp(VF x) { return hn::Min(hn::Max(x, set(-11)), set(11)); }
  static HWY_INLINE VF value(VF x) {
    const VF c = clamp(x);
    return hn::Mul(x, gate(c, hn::Mul(c, c)).s);
  }
  static HWY_INLINE Slopes slopes(VF x) {
    const VF c = clamp(x), square = hn::Mul(c, c);
    const Sigmoid g = gate(c, square);
    const VF d_inner = hn::MulAdd(square, set(static_cast<float>(6 * kGeluScale * kGeluCube)),
                                  set(static_cast<float>(2 * kGeluScale)));
    return {hn::Mul(x, g.s), hn::MulAdd(hn::Mul(hn::Mul(c, d_inner), g.rest), g.s, g.s)};
  }
};

// y = x Phi(x). With t = |x| / sqrt 2:  Phi(-|x|) = e^(-x^2/2) erfcx(t) / 2, and (1 + 2t) erfcx(t)
// is smooth in q = (t - 2) / (t + 2) (after Shepherd and Laframboise, Math. Comp. 36, 1981). The
// coefficients are our own Chebyshev fit on 0 <= t <= 10.7, relative error 0.6 ulp. From |x| = 15
// on Phi is 0 or 1 in f32.
struct GeluErf {
  struct Normal {
    VF phi, density;  // cumulative, and e^(-x^2/2)
  };
  static HWY_INLINE Normal normal(VF x) {
    const VF a = hn::Min(hn::Abs(x), set(15));
    const VF square = hn::Mul(a, a);
    // What rounding took from the square: the exponential would amplify it.
    const VF lost = hn::MulSub(a, a, square);
    const VF e = exp_down(hn::Mul(square, set(-0.5f)));
    const VF density = hn::NegMulAdd(hn::Mul(e, lost), set(0.5f), e);
    const VF t = hn::Mul(a, set(0.70710678f));
    // One division for both: 1 / ((t + 2) (1 + 2t)).
    const VF t2 = hn::Add(t, set(2)), t12 = hn::MulAdd(t, set(2), set(1));
    const VF inverse = hn::Div(set(1), hn::Mul(t2, t12));
    const VF q = hn::Mul(hn::Mul(hn::Sub(t, set(2)), t12), inverse);
    constexpr float kFit[] = {
        1.2769783735275269f,    -0.09276390075683594f,  -0.16603150963783264f,
        0.16405311226844788f,   -0.05420353636145592f,  -0.008043056353926659f,
        0.008633009158074856f,  0.0012656385079026222f, -0.0012494551483541727f,
        -0.000354061892721802f, 3.083126284764148e-05f};
    VF p = set(kFit[10]);
    for (int i = 9; i >= 0; --i) p = hn::MulAdd(p, q, set(kFit[i]));
    const VF tail = hn::Mul(hn::Mul(hn::Mul(density, set(0.5f)), hn::Mul(p, t2)), inverse);
    return {hn::IfThenElse(hn::Ge(x, set(0)), hn::Sub(set(1), tail), tail), density};
  }
  static HWY_INLINE VF value(VF x) { return hn::Mul(x, normal(x).phi); }
  static HWY_INLINE Slopes slopes(VF x) {
    const Normal n = normal(x);
    const VF c = hn::Min(hn::Max(x, set(-15)), set(15));
    return {hn::Mul(x, n.phi), hn::MulAdd(hn::Mul(c, n.density), set(0.39894228f), n.phi)};
  }
};

struct Relu {
  static HWY_INLINE VF value(VF x) { return hn::IfThenElseZero(hn::Gt(x, set(0)), x); }
  static HWY_INLINE Slopes slopes(VF x) {
    return {value(x), hn::IfThenElseZero(hn::Gt(x, set(0)), set(1))};
  }
};

struct ReluSquared {
  static HWY_INLINE VF value(VF x) { return hn::Mul(x, Relu::value(x)); }
  static HWY_INLINE Slopes slopes(VF x) {
    const VF positive = Relu::value(x);
    return {hn::Mul(x, positive), hn::Add(positive, positive)};
  }
};

// The gated activations of a row where all is bf16, as far as whole pairs of vectors go: where that
// was.
#if SIGNROUND_HAS_HALVES
template <class Act>
HWY_INLINE int64_t fwd_halves(InRow x, InRow up, OutRow y, int64_t n) {
  if (x.dtype != DType::kBF16 || up.dtype != DType::kBF16 || y.dtype != DType::kBF16) return 0;
  const auto *from = static_cast<const BF16*>(x.data), *by = static_cast<const BF16*>(up.data);
  auto* to = static_cast<BF16*>(y.data);
  int64_t j = 0;
  for (; j + 2 * lanes() <= n; j += 2 * lanes()) {
    fetch_ahead(from + j);
    fetch_ahead(by + j);
    fetch_ahead(to + j);
    const Halves a = load_halves(from + j), b = load_halves(by + j);
    store_halves({hn::Mul(Act::value(a.even), b.even), hn::Mul(Act::value(a.odd), b.odd)}, to + j);
  }
  return j;
}

template <class Act>
HWY_INLINE int64_t bwd_halves(InRow x, InRow up, InRow d_y, OutRow d_x, OutRow d_up, int64_t n) {
  for (DType dtype : {x.dtype, up.dtype, d_y.dtype, d_x.dtype, d_up.dtype})
    if (dtype != DType::kBF16) return 0;
  const auto *from = static_cast<const BF16*>(x.data), *by = static_cast<const BF16*>(up.data),
             *given = static_cast<const BF16*>(d_y.data);
  auto *to = static_cast<BF16*>(d_x.data), *to_up = static_cast<BF16*>(d_up.data);
  int64_t j = 0;
  for (; j + 2 * lanes() <= n; j += 2 * lanes()) {
    fetch_ahead(from + j);
    fetch_ahead(by + j);
    fetch_ahead(given + j);
    fetch_ahead(to + j);
    fetch_ahead(to_up + j);
    const Halves a = load_halves(from + j), b = load_halves(by + j), d = load_halves(given + j);
    const Slopes even = Act::slopes(a.even), odd = Act::slopes(a.odd);
    store_halves(
        {hn::Mul(hn::Mul(d.even, b.even), even.slope), hn::Mul(hn::Mul(d.odd, b.odd), odd.slope)},
        to + j);
    store_halves({hn::Mul(d.even, even.value), hn::Mul(d.odd, odd.value)}, to_up + j);
  }
  return j;
}
#else
template <class Act>
HWY_INLINE int64_t fwd_halves(InRow, InRow, OutRow, int64_t) {
  return 0;
}
template <class Act>
HWY_INLINE int64_t bwd_halves(InRow, InRow, InRow, OutRow, OutRow, int64_t) {
  return 0;
}
#endif

template <class Act>
void fwd_rows(const ActFwd& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const InRow x = row_of(a.x, i);
    const OutRow y = row_of(a.y, i);
    if (!a.up.data) {
      for_vectors(a.cols, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
        fetch_ahead(x, j);
        store(io, Act::value(load(io, x, j)), y, j);
      });
      continue;
    }
    const InRow up = row_of(a.up, i);
    const int64_t begun = fwd_halves<Act>(x, up, y, a.cols);
    for_vectors(a.cols - begun, [&](int64_t k, auto io) SIGNROUND_LAMBDA {
      const int64_t j = begun + k;
      fetch_ahead(x, j);
      fetch_ahead(up, j);
      fetch_ahead(y, j);
      store(io, hn::Mul(Act::value(load(io, x, j)), load(io, up, j)), y, j);
    });
  }
}

template <class Act>
void bwd_rows(const ActBwd& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const InRow x = row_of(a.x, i), d_y = row_of(a.d_y, i);
    const OutRow d_x = row_of(a.d_x, i);
    if (!a.up.data) {
      for_vectors(a.cols, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
        fetch_ahead(x, j);
        fetch_ahead(d_y, j);
        put(io, hn::Mul(load(io, d_y, j), Act::slopes(load(io, x, j)).slope), d_x, j, a.accumulate);
      });
      continue;
    }
    const InRow up = row_of(a.up, i);
    const OutRow d_up = row_of(a.d_up, i);
    const int64_t begun = a.accumulate ? 0 : bwd_halves<Act>(x, up, d_y, d_x, d_up, a.cols);
    for_vectors(a.cols - begun, [&](int64_t k, auto io) SIGNROUND_LAMBDA {
      const int64_t j = begun + k;
      fetch_ahead(x, j);
      fetch_ahead(up, j);
      fetch_ahead(d_y, j);
      fetch_ahead(d_x, j);
      fetch_ahead(d_up, j);
      const Slopes f = Act::slopes(load(io, x, j));
      const VF d = load(io, d_y, j), u = load(io, up, j);
      put(io, hn::Mul(hn::Mul(d, u), f.slope), d_x, j, a.accumulate);
      put(io, hn::Mul(d, f.value), d_up, j, a.accumulate);
    });
  }
}

template <class Args, class Run>
void with_activation(const Args& a, Run run) {
  switch (a.kind) {
    case Activation::kSilu:
      return run(Silu());
    case Activation::kGeluTanh:
      return run(GeluTanh());
    case Activation::kGeluErf:
      return run(GeluErf());
    case Activation::kRelu:
      return run(Relu());
    case Activation::kReluSquared:
      return run(ReluSquared());
  }
}

void act_fwd(const ActFwd& a, int64_t begin, int64_t end) {
  with_activation(a, [&](auto act) HWY_ATTR { fwd_rows<decltype(act)>(a, begin, end); });
}

void act_bwd(const ActBwd& a, int64_t begin, int64_t end) {
  with_activation(a, [&](auto act) HWY_ATTR { bwd_rows<decltype(act)>(a, begin, end); });
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(act_fwd);
HWY_EXPORT(act_bwd);

void act_fwd_hwy(const ActFwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(act_fwd)(a, begin, end);
}
void act_bwd_hwy(const ActBwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(act_bwd)(a, begin, end);
}

void act_fwd_ref(const ActFwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const WidenedRow x(a.x, i, a.cols), up(a.up, i, a.cols);
    with_out(a.y, i * a.y.stride,
             [&](auto* y) { act_fwd_row(a.kind, x.data(), up.data(), a.cols, y); });
  }
}

void act_bwd_ref(const ActBwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const WidenedRow x(a.x, i, a.cols), up(a.up, i, a.cols), d_y(a.d_y, i, a.cols);
    with_out(a.d_x, i * a.d_x.stride, [&]<class Out>(Out* d_x) {
      Out* d_up = up.data() ? static_cast<Out*>(a.d_up.data) + i * a.d_up.stride : nullptr;
      act_bwd_row(a.kind, x.data(), up.data(), d_y.data(), a.cols, a.accumulate, d_x, d_up);
    });
  }
}

}  // namespace signround::kernels
#endif
