#include "signround/kernels/cpu/layer_norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/layer_norm.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/layer_norm_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

template <class Io>
HWY_INLINE VF times_weight(const Io& io, VF v, const float* w, int64_t j) {
  return w ? hn::Mul(v, io.load(w, j)) : v;
}

void layer_norm_fwd(const LayerNormFwd& a, int64_t begin, int64_t end) {
  const int64_t d = a.shape.dim;
  const float count = static_cast<float>(d);
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const OutRow y = out_at(a.y, a.shape.offset(i, a.y.stride));
    const float mean =
        sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA { return io.load(x, j); }) / count;
    const VF center = set(mean);
    const float squares = sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      const VF v = io.inside(hn::Sub(io.load(x, j), center));
      return hn::Mul(v, v);
    });
    const float r = 1.0f / std::sqrt(squares / count + a.eps);
    const VF scale = set(r);
    for_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      VF v = times_weight(io, hn::Mul(hn::Sub(io.load(x, j), center), scale), a.w, j);
      if (a.b) v = hn::Add(v, io.load(a.b, j));
      store(io, v, y, j);
    });
    if (a.mean) a.mean[i] = mean;
    if (a.rstd) a.rstd[i] = r;
  }
}

void layer_norm_bwd(const LayerNormBwd& a, int64_t begin, int64_t end) {
  const int64_t d = a.shape.dim;
  const float count = static_cast<float>(d);
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
    const OutRow d_x = out_at(a.d_x, a.shape.offset(i, a.d_x.stride));
    const VF center = set(a.mean[i]), r = set(a.rstd[i]);
    // Lanes outside of the row load d_y = 0, so their terms vanish.
    const float sum_g = sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      return times_weight(io, io.load(d_y, j), a.w, j);
    });
    const float sum_gh = sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      const VF h = hn::Mul(hn::Sub(io.load(x, j), center), r);
      return hn::Mul(times_weight(io, io.load(d_y, j), a.w, j), h);
    });
    const VF mean_g = set(sum_g / count), mean_gh = set(sum_gh / count);
    for_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      const VF h = hn::Mul(hn::Sub(io.load(x, j), center), r);
      const VF g = hn::Sub(times_weight(io, io.load(d_y, j), a.w, j), mean_g);
      put(io, hn::Mul(hn::NegMulAdd(h, mean_gh, g), r), d_x, j, a.accumulate);
    });
  }
}

// Runs of rows are summed up on their own, so that the rounding of a sum over n rows grows with n /
// kRun + kRun.
void layer_norm_bwd_w(const LayerNormBwd& a, int64_t begin, int64_t end) {
  constexpr int64_t kRun = 64;
  const int64_t rows = a.shape.rows();
  for_vectors(end - begin, [&](int64_t at, auto io) SIGNROUND_LAMBDA {
    const int64_t j = begin + at;
    VF total_w = set(0), total_b = set(0);
    for (int64_t run = 0; run < rows; run += kRun) {
      VF sum_w = set(0), sum_b = set(0);
      const int64_t stop = run + kRun < rows ? run + kRun : rows;
      for (int64_t i = run; i < stop; ++i) {
        const float* x = a.x.data + a.shape.offset(i, a.x.stride);
        const VF d_y = io.load(a.d_y.data + a.shape.offset(i, a.d_y.stride), j);
        const VF h = hn::Mul(hn::Sub(io.load(x, j), set(a.mean[i])), set(a.rstd[i]));
        sum_w = hn::MulAdd(d_y, h, sum_w);
        sum_b = hn::Add(sum_b, d_y);
      }
      total_w = hn::Add(total_w, sum_w);
      total_b = hn::Add(total_b, sum_b);
    }
    if (a.d_w) io.store(hn::Add(total_w, io.load(a.d_w, j)), a.d_w, j);
    if (a.d_b) io.store(hn::Add(total_b, io.load(a.d_b, j)), a.d_b, j);
  });
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(layer_norm_fwd);
HWY_EXPORT(layer_norm_bwd);
HWY_EXPORT(layer_norm_bwd_w);

void layer_norm_fwd_hwy(const LayerNormFwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(layer_norm_fwd)(a, begin, end);
}
void layer_norm_bwd_hwy(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(layer_norm_bwd)(a, begin, end);
}
void layer_norm_bwd_w_hwy(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(layer_norm_bwd_w)(a, begin, end);
}

void layer_norm_fwd_ref(const LayerNormFwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    with_out(a.y, a.shape.offset(i, a.y.stride), [&](auto* y) {
      const auto saved = layer_norm_fwd_row(x, a.w, a.b, a.eps, a.shape.dim, y);
      if (a.mean) a.mean[i] = saved.mean;
      if (a.rstd) a.rstd[i] = saved.rstd;
    });
  }
}

void layer_norm_bwd_ref(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
    with_out(a.d_x, a.shape.offset(i, a.d_x.stride), [&](auto* d_x) {
      layer_norm_bwd_row(x, a.w, a.mean[i], a.rstd[i], d_y, a.shape.dim, a.accumulate, d_x);
    });
  }
}

void layer_norm_bwd_w_ref(const LayerNormBwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = 0; i < a.shape.rows(); ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
    layer_norm_bwd_w_row(x, a.mean[i], a.rstd[i], d_y, begin, end, a.d_w, a.d_b);
  }
}

}  // namespace signround::kernels
#endif
