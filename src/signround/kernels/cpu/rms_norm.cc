#include "signround/kernels/cpu/rms_norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/rms_norm.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/rms_norm_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

struct Weight {
  const float* w;
  VF offset;
  template <class Io>
  HWY_INLINE VF at(const Io& io, int64_t j) const {
    return w ? hn::Add(io.load(w, j), offset) : set(1);
  }
};

HWY_INLINE float rstd_of(float sum, int64_t d, float eps) {
  return 1.0f / std::sqrt(sum / static_cast<float>(d) + eps);
}

HWY_INLINE void scale_row(const float* x, Weight weight, float r, int64_t d, OutRow y) {
  const VF rv = set(r);
  for_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
    store(io, hn::Mul(hn::Mul(weight.at(io, j), io.load(x, j)), rv), y, j);
  });
}

void rms_norm_fwd(const RmsNormFwd& a, int64_t begin, int64_t end) {
  const int64_t d = a.shape.dim;
  const Weight weight{a.w, set(a.w_offset)};
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float sum = sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      fetch_ahead(x + j);
      const VF v = io.load(x, j);
      return hn::Mul(v, v);
    });
    const float r = rstd_of(sum, d, a.eps);
    scale_row(x, weight, r, d, out_at(a.y, a.shape.offset(i, a.y.stride)));
    if (a.rstd) a.rstd[i] = r;
  }
}

void add_rms_norm_fwd(const AddRmsNormFwd& args, int64_t begin, int64_t end) {
  const RmsNormFwd& a = args.norm;
  const int64_t d = a.shape.dim;
  const Weight weight{a.w, set(a.w_offset)};
  for (int64_t i = begin; i < end; ++i) {
    const float *x = row_of(a.x, i), *add = row_of(args.add, i);
    float* z = args.z + i * args.z_stride;
    const float sum = sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      fetch_ahead(x + j);
      fetch_ahead(add + j);
      const VF v = hn::Add(io.load(x, j), io.load(add, j));
      io.store(v, z, j);
      return hn::Mul(v, v);
    });
    const float r = rstd_of(sum, d, a.eps);
    scale_row(z, weight, r, d, row_of(a.y, i));
    if (a.rstd) a.rstd[i] = r;
  }
}

void rms_norm_bwd(const RmsNormBwd& a, int64_t begin, int64_t end) {
  const int64_t d = a.shape.dim;
  const Weight weight{a.w, set(a.w_offset)};
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
    const OutRow d_x = out_at(a.d_x, a.shape.offset(i, a.d_x.stride));
    const float dot = sum_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      fetch_ahead(d_y + j);
      fetch_ahead(x + j);
      return hn::Mul(hn::Mul(io.load(d_y, j), weight.at(io, j)), io.load(x, j));
    });
    const float r = a.rstd[i];
    const VF rv = set(r), k = set(dot * r * r * r / static_cast<float>(d));
    for_vectors(d, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      const VF direct = hn::Mul(hn::Mul(io.load(d_y, j), weight.at(io, j)), rv);
      put(io, hn::NegMulAdd(io.load(x, j), k, direct), d_x, j, a.accumulate);
    });
  }
}

// Runs of rows are summed up on their own, so that the rounding of a sum over n rows grows with n /
// kRun + kRun.
void rms_norm_bwd_w(const RmsNormBwd& a, int64_t begin, int64_t end) {
  constexpr int64_t kRun = 64;
  const int64_t rows = a.shape.rows();
  for_vectors(end - begin, [&](int64_t at, auto io) SIGNROUND_LAMBDA {
    const int64_t j = begin + at;
    VF total = set(0);
    for (int64_t run = 0; run < rows; run += kRun) {
      VF sum = set(0);
      const int64_t stop = run + kRun < rows ? run + kRun : rows;
      for (int64_t i = run; i < stop; ++i) {
        const float* x = a.x.data + a.shape.offset(i, a.x.stride);
        const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
        sum = hn::MulAdd(hn::Mul(io.load(d_y, j), io.load(x, j)), set(a.rstd[i]), sum);
      }
      total = hn::Add(total, sum);
    }
    io.store(hn::Add(total, io.load(a.d_w, j)), a.d_w, j);
  });
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(rms_norm_fwd);
HWY_EXPORT(add_rms_norm_fwd);
HWY_EXPORT(rms_norm_bwd);
HWY_EXPORT(rms_norm_bwd_w);

void rms_norm_fwd_hwy(const RmsNormFwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(rms_norm_fwd)(a, begin, end);
}
void add_rms_norm_fwd_hwy(const AddRmsNormFwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(add_rms_norm_fwd)(a, begin, end);
}
void rms_norm_bwd_hwy(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(rms_norm_bwd)(a, begin, end);
}
void rms_norm_bwd_w_hwy(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(rms_norm_bwd_w)(a, begin, end);
}

void rms_norm_fwd_ref(const RmsNormFwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    with_out(a.y, a.shape.offset(i, a.y.stride), [&](auto* y) {
      const float r = rms_norm_fwd_row(x, a.w, a.w_offset, a.eps, a.shape.dim, y);
      if (a.rstd) a.rstd[i] = r;
    });
  }
}

void add_rms_norm_fwd_ref(const AddRmsNormFwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float *x = a.norm.x.data + i * a.norm.x.stride, *add = a.add.data + i * a.add.stride;
    for (int64_t j = 0; j < a.norm.shape.dim; ++j) a.z[i * a.z_stride + j] = x[j] + add[j];
  }
  RmsNormFwd of_z = a.norm;
  of_z.x = {a.z, a.z_stride};
  rms_norm_fwd_ref(of_z, begin, end);
}

void rms_norm_bwd_ref(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
    with_out(a.d_x, a.shape.offset(i, a.d_x.stride), [&](auto* d_x) {
      rms_norm_bwd_row(x, a.w, a.w_offset, a.rstd[i], d_y, a.shape.dim, a.accumulate, d_x);
    });
  }
}

void rms_norm_bwd_w_ref(const RmsNormBwd& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = 0; i < a.shape.rows(); ++i) {
    const float* x = a.x.data + a.shape.offset(i, a.x.stride);
    const float* d_y = a.d_y.data + a.shape.offset(i, a.d_y.stride);
    rms_norm_bwd_w_row(x, a.rstd[i], d_y, begin, end, a.d_w);
  }
}

}  // namespace signround::kernels
#endif
