#include "signround/kernels/cpu/mse_loss.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/mse_loss.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/mse_loss_ref.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

void mse_loss(const MseLoss& a, int64_t begin, int64_t end) {
  const VF scale = set(2.0f * a.scale), zero = set(0);
  const bool wanted = static_cast<bool>(a.d_pred);
  for (int64_t i = begin; i < end; ++i) {
    const float* pred = row_of(a.pred, i);
    const InRow ref = row_of(a.ref, i);
    const OutRow d_pred = wanted ? row_of(a.d_pred, i) : OutRow{};
    if (a.mask && a.mask[i] == 0) {
      a.row_sums[i] = 0;
      if (wanted)
        for_vectors(a.cols,
                    [&](int64_t j, auto io) SIGNROUND_LAMBDA { store(io, zero, d_pred, j); });
      continue;
    }
    a.row_sums[i] = sum_vectors_double(a.cols, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      const VF e = hn::Sub(io.load(pred, j), load(io, ref, j));
      if (wanted) store(io, hn::Mul(e, scale), d_pred, j);
      return hn::Mul(e, e);
    });
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(mse_loss);

void mse_loss_hwy(const MseLoss& a, int64_t begin, int64_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(mse_loss)(a, begin, end);
}

namespace {

template <class In>
void mse_loss_row_ref(const MseLoss& a, int64_t i, const In* ref) {
  const float* pred = a.pred.data + i * a.pred.stride;
  const bool valid = !a.mask || a.mask[i] != 0;
  a.row_sums[i] = valid ? mse_loss_fwd_row<double>(pred, ref, a.cols) : 0;
  if (!a.d_pred) return;
  with_out(a.d_pred, i * a.d_pred.stride, [&](auto* d_pred) {
    if (valid) return mse_loss_bwd_row(pred, ref, a.scale, a.cols, d_pred);
    for (int64_t j = 0; j < a.cols; ++j) assign(d_pred[j], 0.0f);
  });
}

}  // namespace

void mse_loss_ref(const MseLoss& a, int64_t begin, int64_t end) noexcept {
  for (int64_t i = begin; i < end; ++i) {
    if (a.ref.dtype == DType::kF32)
      mse_loss_row_ref(a, i, static_cast<const float*>(a.ref.data) + i * a.ref.stride);
    else
      mse_loss_row_ref(a, i, static_cast<const BF16*>(a.ref.data) + i * a.ref.stride);
  }
}

}  // namespace signround::kernels
#endif
