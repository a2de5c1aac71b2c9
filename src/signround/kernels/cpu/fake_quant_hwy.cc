// kernels/cpu/fake_quant.h on Highway. Each loop quotes the reference line that it replaces.
#include "signround/kernels/cpu/fake_quant.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/fake_quant_hwy.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/ordered_sum-inl.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

using DU8 = hn::Rebind<uint8_t, DF>;

// Whether a quotient is cheaper as a product with the inverse that is then corrected: a division
// takes 16 cycles for 16 floats on Intel's cores, 10 on AMD's; elsewhere it hides behind the rest.
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
constexpr bool kCorrectedQuotient = true;
#else
constexpr bool kCorrectedQuotient = false;
#endif

struct VectorGrid {
  VF scale, lo, hi;
  VF inverse, most;  // 1 / scale; the weights that `quotient` need not divide are below `most`
};
HWY_INLINE bool ordinary_scale(float scale) {
  const float size = scale < 0 ? -scale : scale;
  return kCorrectedQuotient && size >= 0x1p-27f && size < kHuge;
}
HWY_INLINE VectorGrid vectors_of(const CodeGrid& g) {
  const bool ordinary = ordinary_scale(g.scale);
  return {set(g.scale), set(g.lo), set(g.hi), set(ordinary ? 1 / g.scale : 0),
          set(ordinary ? kHuge : 0)};
}
// Whether no weight of the group needs a division.
HWY_INLINE bool all_ordinary(const CodeGrid& g) { return g.ordinary && ordinary_scale(g.scale); }

// ref: w / scale, with the same bits, except that a zero may come out positive.
//
// With a = w, b = scale, y = RN(1/b), RN for rounding to nearest: q0 = RN(a y) misses a/b by less
// than 2 ulp, and q = RN(q0 + (a - b q0) y) is RN(a/b). Take a and b as whole numbers of 24 bits
// and the ulp of a/b as unit. |b y - 1| <= b 2^-48, and the remainder a - b q0, a whole number of
// 1/b, is rounded by at most one of them, so q before its rounding misses a/b by less than (4 b^2
// 2^-48 + 2) / 2b < 6 / 2b. The midpoint of two floats is |N| / 2b from a/b, with a whole number N
// that is not 0, so only |N| < 6 could go wrong. Those are few for each b, and a test divides all
// of them.
//
// It holds where nothing overflows and no remainder is too small for a float: |a| from 2^-100 to
// 2^100 or a = 0, and |b| from 2^-27 (the smallest scale is 1e-8) to 2^100. Other vectors divide.
HWY_INLINE VF corrected_quotient(VF w, const VectorGrid& g) {
  const VF q = hn::Mul(w, g.inverse);
  return hn::MulAdd(hn::NegMulAdd(q, g.scale, w), g.inverse, q);
}
template <bool kOrdinary>
HWY_INLINE VF quotient(VF w, const VectorGrid& g) {
  if constexpr (kOrdinary && kCorrectedQuotient) {
    return corrected_quotient(w, g);
  } else if constexpr (kCorrectedQuotient) {
    const DU du;
    const VF magnitude = hn::Abs(w);
    const auto tiny =
        hn::Lt(hn::Sub(hn::BitCast(du, magnitude), hn::Set(du, 1u)), hn::Set(du, (27u << 23) - 1));
    const auto large = hn::Not(hn::Lt(magnitude, g.most));
    if (HWY_LIKELY(hn::AllFalse(DF(), hn::Or(hn::RebindMask(DF(), tiny), large))))
      return corrected_quotient(w, g);
  }
  return hn::Div(w, g.scale);
}

// ref: round(w / scale + unit * v)
HWY_INLINE VF rounded(VF scaled, VF v) { return hn::Round(hn::Add(scaled, v)); }
HWY_INLINE VF clamped(VF r, const VectorGrid& g) { return hn::Min(hn::Max(r, g.lo), g.hi); }

template <class Io>
HWY_INLINE VF load_offset(const Io& io, const Offsets& v, int64_t j) {
  return v.data == nullptr ? set(0) : hn::Mul(set(v.unit), io.load(v.data, j));
}

struct ExtentVectors {
  VF min, max;
  hn::Vec<DI> bits;     // of the largest magnitude
  hn::Vec<DU> nonzero;  // of the smallest one that is not 0, less 1

  HWY_INLINE void add(VF x) {
    min = hn::Min(min, x);
    max = hn::Max(max, x);
    const auto magnitude = hn::And(hn::BitCast(DI(), x), hn::Set(DI(), 0x7fffffff));
    bits = hn::Max(bits, magnitude);
    nonzero = hn::Min(nonzero, hn::Sub(hn::BitCast(DU(), magnitude), hn::Set(DU(), 1u)));
  }
};
HWY_INLINE hn::Vec<DI> magnitude_bits(float x) { return hn::BitCast(DI(), set(x)); }

template <class W>
HWY_ATTR Extent extent(const W* w, int64_t n) noexcept {
  const int64_t step = lanes();
  const auto none = hn::Set(DU(), 0xffffffffu);
  // Two: the latency of one hides behind the other.
  ExtentVectors a{set(0), set(0), hn::Zero(DI()), none}, b = a;
  int64_t j = 0;
  for (; j + 2 * step <= n; j += 2 * step) {
    a.add(load(w + j));
    b.add(load(w + j + step));
  }
  for (; j + step <= n; j += step) a.add(load(w + j));
  if (j < n) b.add(Part{n - j}.load(w, j));
  const VF min = hn::MinOfLanes(DF(), hn::Min(a.min, b.min));
  const VF max = hn::MaxOfLanes(DF(), hn::Max(a.max, b.max));
  const auto most = hn::Max(a.bits, b.bits);
  const auto not_finite = hn::Gt(most, hn::Set(DI(), 0x7f7fffff));
  const auto huge = hn::Not(hn::Gt(magnitude_bits(kHuge), most));
  const auto least = hn::Min(a.nonzero, b.nonzero);
  const auto tiny =
      hn::Lt(least, hn::BitCast(DU(), hn::Sub(magnitude_bits(kTiny), hn::Set(DI(), 1))));
  return {hn::GetLane(min), hn::GetLane(max), hn::AllFalse(DI(), not_finite),
          hn::AllFalse(DI(), huge) && hn::AllFalse(DU(), tiny)};
}

template <bool kOrdinary, class W, class Io>
HWY_INLINE VF quantized(const Io& io, const W* w, const Offsets& v, int64_t j,
                        const VectorGrid& g) {
  return clamped(rounded(quotient<kOrdinary>(io.load(w, j), g), load_offset(io, v, j)), g);
}

HWY_INLINE void store_codes(VF code, uint8_t* codes) {
  hn::StoreU(hn::DemoteTo(DU8(), hn::ConvertTo(DI(), code)), DU8(), codes);
}

template <class W>
HWY_ATTR void codes(const W* w, Offsets v, int64_t n, CodeGrid grid, float zero,
                    uint8_t* out) noexcept {
  const VectorGrid g = vectors_of(grid);
  const VF z = set(zero);
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + step <= n; j += step)
    store_codes(hn::Add(quantized<false>(Full{}, w, v, j, g), z), out + j);
  if (j == n) return;
  HWY_ALIGN uint8_t last[hn::MaxLanes(DF())];
  store_codes(hn::Add(quantized<false>(Part{n - j}, w, v, j, g), z), last);
  for (int64_t i = 0; j + i < n; ++i) out[j + i] = last[i];
}

// Pairs of vectors from the first weight on; where they end.
template <bool kOrdinary, class W, class Out>
HWY_INLINE int64_t write_halves(const W*, const Offsets&, int64_t, const VectorGrid&, Out*) {
  return 0;
}
#if SIGNROUND_HAS_HALVES
template <bool kOrdinary>
HWY_INLINE int64_t write_halves(const BF16* w, const Offsets& v, int64_t n, const VectorGrid& g,
                                BF16* out) {
  if (v.data == nullptr) return 0;
  const VF unit = set(v.unit);
  const auto weight = [&](VF x, VF offset) SIGNROUND_LAMBDA {
    const VF q = clamped(rounded(quotient<kOrdinary>(x, g), hn::Mul(unit, offset)), g);
    return hn::Mul(g.scale, q);
  };
  int64_t j = 0;
  for (; j + 2 * lanes() <= n; j += 2 * lanes()) {
    fetch_ahead(out + j);
    const Halves x = load_halves(w + j), offset = load_halves(v.data + j);
    store_finite_halves({weight(x.even, offset.even), weight(x.odd, offset.odd)}, out + j);
  }
  return j;
}
#endif

template <bool kOrdinary, class W, class Out>
HWY_INLINE void write_group(const W* w, const Offsets& v, int64_t n, const CodeGrid& grid,
                            Out* out) {
  const VectorGrid g = vectors_of(grid);
  const int64_t step = lanes();
  int64_t j = write_halves<kOrdinary>(w, v, n, g, out);
  for (; j + step <= n; j += step) {
    fetch_ahead(out + j);
    store_finite(hn::Mul(g.scale, quantized<kOrdinary>(Full{}, w, v, j, g)), out + j);
  }
  if (j < n) {
    const Part part{n - j};
    part.store(hn::Mul(g.scale, quantized<kOrdinary>(part, w, v, j, g)), out, j);
  }
}
template <class W, class Out>
HWY_ATTR void write(const W* w, Offsets v, int64_t n, CodeGrid grid, Out* out) noexcept {
  all_ordinary(grid) ? write_group<true>(w, v, n, grid, out)
                     : write_group<false>(w, v, n, grid, out);
}

template <class W, class D>
struct GroupDescent {
  const W* w;
  const D* d_w;
  VectorGrid grid;
  VF unit;
  hn::Vec<DI> units;
  VF momentum;
  const int16_t* v;
  int16_t* next;
  float* buffer;
};

template <bool kMomentum, bool kOrdinary, class W, class D, class Io>
HWY_INLINE void descend_vector(const Io& io, const GroupDescent<W, D>& a, int64_t j,
                               float* scale_sums, float* clamped_sums) {
  const VectorGrid& g = a.grid;
  const VF x = quotient<kOrdinary>(io.load(a.w, j), g);
  const auto v = io.load_int(a.v, j);
  const VF r = rounded(x, hn::Mul(a.unit, hn::ConvertTo(DF(), v)));
  const VF q = clamped(r, g);
  const auto inside = hn::Eq(q, r);
  const VF d = io.load(a.d_w, j);
  // ref: d_scale += d_w * (q - (inside ? x : 0))     clamped += inside ? 0 : d_w
  add_at(hn::Mul(d, hn::IfThenElse(inside, hn::Sub(q, x), q)), scale_sums, 0);
  const VF clamped_sum = hn::Load(DF(), clamped_sums);
  hn::Store(hn::IfThenElse(inside, clamped_sum, hn::Add(clamped_sum, d)), DF(), clamped_sums);
  // ref: d_v = inside ? d_w * scale : 0, and with momentum: d_v = buffer = momentum * buffer + d_v
  VF d_v = hn::IfThenElseZero(inside, hn::Mul(d, g.scale));
  if constexpr (kMomentum) {
    d_v = hn::Add(hn::Mul(a.momentum, io.load(a.buffer, j)), d_v);
    io.store(d_v, a.buffer, j);
  }
  // ref: v -= d_v > 0 ? units : d_v < 0 ? -units : 0
  const auto down = hn::RebindMask(DI(), hn::Gt(d_v, set(0)));
  const auto up = hn::RebindMask(DI(), hn::Lt(d_v, set(0)));
  const auto lower = hn::IfThenElse(down, hn::Sub(v, a.units), v);
  io.store_int(hn::IfThenElse(up, hn::Add(lower, a.units), lower), a.next, j);
}

template <bool kMomentum, bool kOrdinary, class W, class D>
HWY_INLINE GroupGrad descend_group(const GroupDescent<W, D>& a, int64_t n) {
  const int64_t width = lanes();
  HWY_ALIGN float d_scale[kSums] = {};
  HWY_ALIGN float outside[kSums] = {};
  int64_t j = 0;
  for (; j + kSums <= n; j += kSums) {
    fetch_ahead(a.w + j);
    fetch_ahead(a.d_w + j);
    fetch_ahead(a.v + j);
    for (int64_t sum = 0; sum < kSums; sum += width)
      descend_vector<kMomentum, kOrdinary>(Full{}, a, j + sum, d_scale + sum, outside + sum);
  }
  int64_t sum = 0;  // j mod kSums
  for (; j + width <= n; j += width, sum += width)
    descend_vector<kMomentum, kOrdinary>(Full{}, a, j, d_scale + sum, outside + sum);
  if (j < n) descend_vector<kMomentum, kOrdinary>(Part{n - j}, a, j, d_scale + sum, outside + sum);
  return {tree_sum(d_scale), tree_sum(outside)};
}

template <class W, class D>
HWY_ATTR GroupGrad descend(const W* w, const D* d_w, int64_t n, CodeGrid grid,
                           const Descent& d) noexcept {
  const GroupDescent<W, D> a{w,
                             d_w,
                             vectors_of(grid),
                             set(d.v.unit),
                             hn::Set(DI(), d.step.units),
                             set(d.step.momentum),
                             d.v.data,
                             d.next,
                             d.buffer};
  if (d.buffer != nullptr) return descend_group<true, false>(a, n);
  return all_ordinary(grid) ? descend_group<false, true>(a, n) : descend_group<false, false>(a, n);
}

template <class W>
constexpr FakeQuantFunctions<W> kFunctions = {extent<W>,      codes<W>,          write<W, float>,
                                              write<W, BF16>, descend<W, float>, descend<W, BF16>};

const FakeQuantFunctions<float>* functions_f32() { return &kFunctions<float>; }
const FakeQuantFunctions<BF16>* functions_bf16() { return &kFunctions<BF16>; }
bool fake_quant_fits() { return vectors_fit(); }

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(functions_f32);
HWY_EXPORT(functions_bf16);
HWY_EXPORT(fake_quant_fits);

const FakeQuantFunctions<float>& fake_quant_hwy_f32() {
  return *HWY_DYNAMIC_DISPATCH(functions_f32)();
}
const FakeQuantFunctions<BF16>& fake_quant_hwy_bf16() {
  return *HWY_DYNAMIC_DISPATCH(functions_bf16)();
}
const char* fake_quant_hwy_why_not() {
  return HWY_DYNAMIC_DISPATCH(fake_quant_fits)() ? nullptr : "vectors are longer than 16 floats";
}

}  // namespace signround::kernels
#endif
