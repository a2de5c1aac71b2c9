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

struct VectorGrid {
  VF scale, lo, hi;
};
HWY_INLINE VectorGrid vectors_of(CodeGrid g) { return {set(g.scale), set(g.lo), set(g.hi)}; }

// ref: round(w / scale + v)
HWY_INLINE VF rounded(VF scaled, VF v) { return hn::Round(hn::Add(scaled, v)); }
HWY_INLINE VF clamped(VF r, const VectorGrid& g) { return hn::Min(hn::Max(r, g.lo), g.hi); }

template <class Io>
HWY_INLINE VF load_offset(const Io& io, const float* v, int64_t j) {
  return v == nullptr ? set(0) : io.load(v, j);
}

struct ExtentVectors {
  VF min, max;
  hn::Vec<DI> bits;

  HWY_INLINE void add(VF x) {
    min = hn::Min(min, x);
    max = hn::Max(max, x);
    bits = hn::Max(bits, hn::And(hn::BitCast(DI(), x), hn::Set(DI(), 0x7fffffff)));
  }
};

template <class W>
HWY_ATTR Extent extent(const W* w, int64_t n) noexcept {
  const int64_t step = lanes();
  ExtentVectors a{set(0), set(0),
                  hn::Zero(DI())};  // two: the latency of one hides behind the other
  ExtentVectors b{set(0), set(0), hn::Zero(DI())};
  int64_t j = 0;
  for (; j + 2 * step <= n; j += 2 * step) {
    a.add(load(w + j));
    b.add(load(w + j + step));
  }
  for (; j + step <= n; j += step) a.add(load(w + j));
  if (j < n) b.add(Part{n - j}.load(w, j));
  const VF min = hn::MinOfLanes(DF(), hn::Min(a.min, b.min));
  const VF max = hn::MaxOfLanes(DF(), hn::Max(a.max, b.max));
  const auto not_finite = hn::Gt(hn::Max(a.bits, b.bits), hn::Set(DI(), 0x7f7fffff));
  return {hn::GetLane(min), hn::GetLane(max), hn::AllFalse(DI(), not_finite)};
}

template <class W, class Io>
HWY_INLINE VF quantized(const Io& io, const W* w, const float* v, int64_t j, const VectorGrid& g) {
  return clamped(rounded(hn::Div(io.load(w, j), g.scale), load_offset(io, v, j)), g);
}

HWY_INLINE void store_codes(VF code, uint8_t* codes) {
  hn::StoreU(hn::DemoteTo(DU8(), hn::ConvertTo(DI(), code)), DU8(), codes);
}

template <class W>
HWY_ATTR void codes(const W* w, const float* v, int64_t n, CodeGrid grid, float zero,
                    uint8_t* out) noexcept {
  const VectorGrid g = vectors_of(grid);
  const VF z = set(zero);
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + step <= n; j += step) store_codes(hn::Add(quantized(Full{}, w, v, j, g), z), out + j);
  if (j == n) return;
  HWY_ALIGN uint8_t last[hn::MaxLanes(DF())];
  store_codes(hn::Add(quantized(Part{n - j}, w, v, j, g), z), last);
  for (int64_t i = 0; j + i < n; ++i) out[j + i] = last[i];
}

template <class W, class Out>
HWY_ATTR void write(const W* w, const float* v, int64_t n, CodeGrid grid, Out* out) noexcept {
  const VectorGrid g = vectors_of(grid);
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + step <= n; j += step) store(hn::Mul(g.scale, quantized(Full{}, w, v, j, g)), out + j);
  if (j < n) {
    const Part part{n - j};
    part.store(hn::Mul(g.scale, quantized(part, w, v, j, g)), out, j);
  }
}

template <class W, class Io>
HWY_INLINE void descend_vector(const Io& io, const W* w, const float* d_w, int64_t j,
                               const VectorGrid& g, VF lr, VF momentum, float* v, float* buffer,
                               float* scale_sums, float* clamped_sums) {
  const VF x = hn::Div(io.load(w, j), g.scale);
  const VF offset = io.load(v, j);
  const VF r = rounded(x, offset);
  const VF q = clamped(r, g);
  const auto inside = hn::Eq(q, r);
  const VF d = io.load(d_w, j);
  // ref: d_scale += d_w * (q - (inside ? x : 0))     clamped += inside ? 0 : d_w
  const VF d_scale = hn::Mul(d, hn::Sub(q, hn::IfThenElseZero(inside, x)));
  add_at(d_scale, scale_sums, 0);
  const VF outside = hn::IfThenZeroElse(inside, d);
  add_at(outside, clamped_sums, 0);
  // ref: d_v = inside ? d_w * scale : 0, and with momentum: d_v = buffer = momentum * buffer + d_v
  VF d_v = hn::IfThenElseZero(inside, hn::Mul(d, g.scale));
  if (buffer != nullptr) {
    d_v = hn::Add(hn::Mul(momentum, io.load(buffer, j)), d_v);
    io.store(d_v, buffer, j);
  }
  // ref: v -= lr * sign(d_v). Two comparisons, so that a gradient that is not a number moves
  // nothing.
  const VF zero = set(0);
  const VF down = hn::IfThenElseZero(hn::Gt(d_v, zero), lr);
  const VF up = hn::IfThenElseZero(hn::Lt(d_v, zero), lr);
  io.store(hn::Sub(offset, hn::Sub(down, up)), v, j);
}

template <class W>
HWY_ATTR GroupGrad descend(const W* w, const float* d_w, int64_t n, CodeGrid grid, SignStep step,
                           float* v, float* buffer) noexcept {
  const VectorGrid g = vectors_of(grid);
  const VF lr = set(step.lr), momentum = set(step.momentum);
  const int64_t width = lanes();
  HWY_ALIGN float d_scale[kSums] = {};
  HWY_ALIGN float outside[kSums] = {};
  int64_t j = 0, sum = 0;  // sum = j mod kSums
  for (; j + width <= n; j += width) {
    descend_vector(Full{}, w, d_w, j, g, lr, momentum, v, buffer, d_scale + sum, outside + sum);
    sum = (sum + width) % kSums;
  }
  if (j < n)
    descend_vector(Part{n - j}, w, d_w, j, g, lr, momentum, v, buffer, d_scale + sum,
                   outside + sum);
  return {tree_sum(d_scale), tree_sum(outside)};
}

template <class W>
constexpr FakeQuantFunctions<W> kFunctions = {extent<W>, codes<W>, write<W, float>, write<W, BF16>,
                                              descend<W>};

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
