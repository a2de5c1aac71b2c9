#include "signround/kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/rope.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/rope_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

struct Turned {
  VF a, b;
};

HWY_INLINE Turned turn(VF a, VF b, VF cos, VF sin) {
  return {hn::NegMulAdd(b, sin, hn::Mul(a, cos)), hn::MulAdd(a, sin, hn::Mul(b, cos))};
}

HWY_INLINE void half_split(const float* x, const float* cos, const float* sin, VF sign,
                           int64_t half, OutRow y, bool accumulate) {
  for_vectors(half, [&](int64_t p, auto io) SIGNROUND_LAMBDA {
    const Turned t =
        turn(io.load(x, p), io.load(x, half + p), io.load(cos, p), hn::Mul(io.load(sin, p), sign));
    put(io, t.a, y, p, accumulate);
    put(io, t.b, y, half + p, accumulate);
  });
}

// `count` pairs from p on; pairs that end before a vector does go through a padded copy.
template <class Io>
HWY_INLINE void interleaved_pairs(const Io& io, const float* x, const float* cos, const float* sin,
                                  VF sign, int64_t p, int64_t count, OutRow y, bool accumulate) {
  HWY_ALIGN float pairs[2 * hn::MaxLanes(DF())] = {};
  const float* from = x + 2 * p;
  if (count < lanes()) {
    for (int64_t i = 0; i < 2 * count; ++i) pairs[i] = from[i];
    from = pairs;
  }
  VF a, b;
  hn::LoadInterleaved2(DF(), from, a, b);
  const Turned t = turn(a, b, io.load(cos, p), hn::Mul(io.load(sin, p), sign));
  hn::StoreInterleaved2(t.a, t.b, DF(), pairs);
  for_vectors(2 * count, [&](int64_t i, auto part) SIGNROUND_LAMBDA {
    put(part, part.load(pairs, i), y, 2 * p + i, accumulate);
  });
}

HWY_INLINE void interleaved(const float* x, const float* cos, const float* sin, VF sign,
                            int64_t half, OutRow y, bool accumulate) {
  for_vectors(half, [&](int64_t p, auto io) SIGNROUND_LAMBDA {
    const int64_t count = half - p < lanes() ? half - p : lanes();
    interleaved_pairs(io, x, cos, sin, sign, p, count, y, accumulate);
  });
}

void rope(const Rope& a, int64_t begin, int64_t end) {
  const int64_t half = a.rot_dim / 2, dim = a.shape.dim;
  const VF sign = set(a.inverse ? -1.0f : 1.0f);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t position = a.offset + t % a.seq_len;
    const float *cos = a.cos + position * half, *sin = a.sin + position * half;
    for (int64_t h = 0; h < a.shape.heads; ++h) {
      const float* x = row_of(a.x, t) + h * dim;
      const OutRow y = out_at(a.y, t * a.y.stride + h * dim);
      if (a.style == RopeStyle::kHalfSplit)
        half_split(x, cos, sin, sign, half, y, a.accumulate);
      else
        interleaved(x, cos, sin, sign, half, y, a.accumulate);
      if (y.data == x && !a.accumulate) continue;
      for_vectors(dim - a.rot_dim, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
        put(io, io.load(x, a.rot_dim + j), y, a.rot_dim + j, a.accumulate);
      });
    }
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(rope);

void rope_hwy(const Rope& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(rope)(a, begin, end);
}

void rope_ref(const Rope& a, int64_t begin, int64_t end) noexcept {
  const int64_t half = a.rot_dim / 2, dim = a.shape.dim;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t position = a.offset + t % a.seq_len;
    const float *cos = a.cos + position * half, *sin = a.sin + position * half;
    for (int64_t h = 0; h < a.shape.heads; ++h) {
      const float* x = a.x.data + t * a.x.stride + h * dim;
      with_out(a.y, t * a.y.stride + h * dim, [&](auto* y) {
        if (a.inverse)
          rope_bwd_head(x, cos, sin, a.style, a.rot_dim, dim, a.accumulate, y);
        else
          rope_fwd_head(x, cos, sin, a.style, a.rot_dim, dim, y);
      });
    }
  }
}

}  // namespace signround::kernels
#endif
