#include "signround/ops/layer_norm.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/layer_norm.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct LayerNormKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*fwd)(const kernels::LayerNormFwd&, int64_t, int64_t) noexcept;
  void (*bwd)(const kernels::LayerNormBwd&, int64_t, int64_t) noexcept;
  void (*bwd_w)(const kernels::LayerNormBwd&, int64_t, int64_t) noexcept;
};
constexpr LayerNormKernel kKernels[] = {
    {"hwy", runs_always, kernels::layer_norm_fwd_hwy, kernels::layer_norm_bwd_hwy,
     kernels::layer_norm_bwd_w_hwy},
    {"ref", runs_always, kernels::layer_norm_fwd_ref, kernels::layer_norm_bwd_ref,
     kernels::layer_norm_bwd_w_ref}};

template <class T>
T* data_or_null(std::span<T> v) {
  return v.empty() ? nullptr : v.data();
}

}  // namespace

void layer_norm_fwd(HeadShape shape, RowsIn x, std::span<const float> w, std::span<const float> b,
                    float eps, RowsOut y, std::span<float> mean, std::span<float> rstd) {
  const char* op = "layer_norm";
  check_shape(op, shape);
  check_in(op, "x", x, shape);
  check_out(op, "y", y, shape);
  check_size(op, "w", w.size(), shape.dim, true);
  check_size(op, "b", b.size(), shape.dim, true);
  check_size(op, "mean", mean.size(), shape.rows(), true);
  check_size(op, "rstd", rstd.size(), shape.rows(), true);
  const kernels::LayerNormFwd args{shape, x, data_or_null(w),    data_or_null(b),
                                   eps,   y, data_or_null(mean), data_or_null(rstd)};
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(shape.rows(), row_grain(shape.dim),
               [&](int64_t begin, int64_t end) { kernel.fwd(args, begin, end); });
}

void layer_norm_bwd(HeadShape shape, RowsIn x, std::span<const float> w,
                    std::span<const float> mean, std::span<const float> rstd, RowsIn d_y,
                    RowsOut d_x, bool accumulate, std::span<float> d_w, std::span<float> d_b) {
  const char* op = "layer_norm_bwd";
  check_shape(op, shape);
  check_in(op, "x", x, shape);
  check_in(op, "d_y", d_y, shape);
  check_grad(op, "d_x", d_x, shape, accumulate);
  check_size(op, "w", w.size(), shape.dim, true);
  check_size(op, "mean", mean.size(), shape.rows());
  check_size(op, "rstd", rstd.size(), shape.rows());
  check_size(op, "d_w", d_w.size(), shape.dim, true);
  check_size(op, "d_b", d_b.size(), shape.dim, true);
  const kernels::LayerNormBwd args{
      shape, x,   data_or_null(w), mean.data(),       rstd.data(),
      d_y,   d_x, accumulate,      data_or_null(d_w), data_or_null(d_b)};
  const auto& kernel = pick_kernel(op, kKernels);
  // d_w first: d_x may lie on d_y.
  if (!d_w.empty() || !d_b.empty())
    parallel_for(shape.dim, 64,
                 [&](int64_t begin, int64_t end) { kernel.bwd_w(args, begin, end); });
  parallel_for(shape.rows(), row_grain(shape.dim),
               [&](int64_t begin, int64_t end) { kernel.bwd(args, begin, end); });
}

}  // namespace signround
