// The scalar definition of kernels/cpu/fake_quant.h.
#include <algorithm>
#include <cmath>

#include "signround/kernels/cpu/fake_quant.h"

namespace signround::kernels {
namespace {

constexpr int64_t kSums = 16;

float value(float w) { return w; }
float value(BF16 w) { return to_f32(w); }

float offset(Offsets v, int64_t i) { return v.data == nullptr ? 0.0f : v.unit * v.data[i]; }

template <class W>
Extent extent(const W* w, int64_t n) noexcept {
  Extent e{0, 0, true, true};
  for (int64_t i = 0; i < n; ++i) {
    const float x = value(w[i]);
    e.min = std::min(e.min, x);
    e.max = std::max(e.max, x);
    if (!std::isfinite(x)) e.finite = false;
    if (x != 0 && !(std::fabs(x) >= kTiny && std::fabs(x) < kHuge)) e.ordinary = false;
  }
  return e;
}

float quantized(float w, float v, CodeGrid grid) {
  return std::min(std::max(std::nearbyint(w / grid.scale + v), grid.lo), grid.hi);
}

template <class W>
void codes(const W* w, Offsets v, int64_t n, CodeGrid grid, float zero, uint8_t* out) noexcept {
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<uint8_t>(quantized(value(w[i]), offset(v, i), grid) + zero);
}

template <class W>
void write_f32(const W* w, Offsets v, int64_t n, CodeGrid grid, float* weight) noexcept {
  for (int64_t i = 0; i < n; ++i)
    weight[i] = grid.scale * quantized(value(w[i]), offset(v, i), grid);
}

template <class W>
void write_bf16(const W* w, Offsets v, int64_t n, CodeGrid grid, BF16* weight) noexcept {
  for (int64_t i = 0; i < n; ++i)
    weight[i] = to_bf16(grid.scale * quantized(value(w[i]), offset(v, i), grid));
}

float tree_sum(float* sums) {
  for (int64_t half = kSums / 2; half > 0; half /= 2)
    for (int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  return sums[0];
}

template <class W, class D>
GroupGrad descend(const W* w, const D* d_w, int64_t n, CodeGrid grid, const Descent& a) noexcept {
  float d_scale[kSums] = {}, clamped[kSums] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float x = value(w[i]) / grid.scale, d = value(d_w[i]);
    const float r = std::nearbyint(x + offset(a.v, i));
    const float q = std::min(std::max(r, grid.lo), grid.hi);
    const bool inside = q == r;
    d_scale[i % kSums] += d * (q - (inside ? x : 0.0f));
    clamped[i % kSums] += inside ? 0.0f : d;
    float d_v = inside ? d * grid.scale : 0.0f;
    if (a.buffer != nullptr) d_v = a.buffer[i] = a.step.momentum * a.buffer[i] + d_v;
    const int move = d_v > 0 ? a.step.units : d_v < 0 ? -a.step.units : 0;
    a.next[i] = static_cast<int16_t>(std::clamp(a.v.data[i] - move, -32768, 32767));
  }
  return {tree_sum(d_scale), tree_sum(clamped)};
}

template <class W>
constexpr FakeQuantFunctions<W> kFunctions = {extent<W>,     codes<W>,          write_f32<W>,
                                              write_bf16<W>, descend<W, float>, descend<W, BF16>};

}  // namespace

const FakeQuantFunctions<float>& fake_quant_ref_f32() { return kFunctions<float>; }
const FakeQuantFunctions<BF16>& fake_quant_ref_bf16() { return kFunctions<BF16>; }

}  // namespace signround::kernels
