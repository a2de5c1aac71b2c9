#include "signround/kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/rope.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/rope_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

constexpr int64_t kRowsAhead = 4;

struct Turned {
  VF a, b;
};

HWY_INLINE Turned turn(VF a, VF b, VF cos, VF sin) {
  return {hn::NegMulAdd(b, sin, hn::Mul(a, cos)), hn::MulAdd(a, sin, hn::Mul(b, cos))};
}

HWY_INLINE void half_split(InRow x, const float* cos, const float* sin, VF sign, int64_t half,
                           OutRow y, bool accumulate) {
  for_vectors(half, [&](int64_t p, auto io) SIGNROUND_LAMBDA {
    const Turned t = turn(load(io, x, p), load(io, x, half + p), io.load(cos, p),
                          hn::Mul(io.load(sin, p), sign));
    put(io, t.a, y, p, accumulate);
    put(io, t.b, y, half + p, accumulate);
  });
}

// `count` pairs from p on. What is bf16 or ends before a vector does goes through a padded copy.
template <class Io>
HWY_INLINE void interleaved_pairs(const Io& io, InRow x, const float* cos, const float* sin,
                                  VF sign, int64_t p, int64_t count, OutRow y, bool accumulate) {
  HWY_ALIGN float pairs[2 * hn::MaxLanes(DF())] = {};
  const float* from = pairs;
  if (count == lanes() && x.dtype == DType::kF32)
    from = static_cast<const float*>(x.data) + 2 * p;
  else
    for_vectors(2 * count, [&](int64_t i, auto part) SIGNROUND_LAMBDA {
      part.store(load(part, x, 2 * p + i), pairs, i);
    });
  VF a, b;
  hn::LoadInterleaved2(DF(), from, a, b);
  const Turned t = turn(a, b, io.load(cos, p), hn::Mul(io.load(sin, p), sign));
  hn::StoreInterleaved2(t.a, t.b, DF(), pairs);
  for_vectors(2 * count, [&](int64_t i, auto part) SIGNROUND_LAMBDA {
    put(part, part.load(pairs, i), y, 2 * p + i, accumulate);
  });
}

HWY_INLINE void interleaved(InRow x, const float* cos, const float* sin, VF sign, int64_t half,
                            OutRow y, bool accumulate) {
  for_vectors(half, [&](int64_t p, auto io) SIGNROUND_LAMBDA {
    const int64_t count = half - p < lanes() ? half - p : lanes();
    interleaved_pairs(io, x, cos, sin, sign, p, count, y, accumulate);
  });
}

// All heads of a token in place, pairs half a head apart: as half_split, but what their type is was
// asked once.
template <class T>
HWY_INLINE void half_split_in_place(const Rope& a, const float* cos, const float* sin, T* row) {
  const int64_t half = a.rot_dim / 2, dim = a.shape.dim, heads = a.shape.heads;
  const VF sign = set(a.inverse ? -1.0f : 1.0f);
  for_vectors(half, [&](int64_t p, auto io) SIGNROUND_LAMBDA {
    const VF c = io.load(cos, p), s = hn::Mul(io.load(sin, p), sign);
    for (int64_t h = 0; h < heads; ++h) {
      T* at = row + h * dim + p;
      const Turned t = turn(io.load(at, 0), io.load(at, half), c, s);
      io.store(t.a, at, 0);
      io.store(t.b, at, half);
    }
  });
}

void rope(const Rope& a, int64_t begin, int64_t end) {
  const int64_t half = a.rot_dim / 2, dim = a.shape.dim;
  const VF sign = set(a.inverse ? -1.0f : 1.0f);
  const bool in_place = a.y.data == a.x.data && a.y.dtype == a.x.dtype &&
                        a.y.stride == a.x.stride && !a.accumulate &&
                        a.style == RopeStyle::kHalfSplit;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t position = a.offset + t % a.seq_len;
    const float *cos = a.cos + position * half, *sin = a.sin + position * half;
    if (t + kRowsAhead < end) fetch_row(row_of(a.x, t + kRowsAhead), a.shape.cols());
    if (in_place) {
      void* row = row_of(a.y, t).data;
      a.y.dtype == DType::kF32 ? half_split_in_place(a, cos, sin, static_cast<float*>(row))
                               : half_split_in_place(a, cos, sin, static_cast<BF16*>(row));
      continue;
    }
    for (int64_t h = 0; h < a.shape.heads; ++h) {
      const InRow x = at_value(row_of(a.x, t), h * dim);
      const OutRow y = out_at(a.y, t * a.y.stride + h * dim);
      if (a.style == RopeStyle::kHalfSplit)
        half_split(x, cos, sin, sign, half, y, a.accumulate);
      else
        interleaved(x, cos, sin, sign, half, y, a.accumulate);
      if (y.data == x.data && !a.accumulate) continue;
      for_vectors(dim - a.rot_dim, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
        put(io, load(io, x, a.rot_dim + j), y, a.rot_dim + j, a.accumulate);
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
    const WidenedRow row(a.x, t, a.shape.cols());
    for (int64_t h = 0; h < a.shape.heads; ++h) {
      with_out(a.y, t * a.y.stride + h * dim, [&](auto* y) {
        const float* x = row.data() + h * dim;
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
