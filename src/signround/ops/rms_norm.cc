#include "signround/ops/rms_norm.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/rms_norm.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct RmsNormKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*fwd)(const kernels::RmsNormFwd&, int64_t, int64_t) noexcept;
  void (*add_fwd)(const kernels::AddRmsNormFwd&, int64_t, int64_t) noexcept;
  void (*bwd)(const kernels::RmsNormBwd&, int64_t, int64_t) noexcept;
  void (*bwd_w)(const kernels::RmsNormBwd&, int64_t, int64_t) noexcept;
};
constexpr RmsNormKernel kKernels[] = {
    {"hwy", runs_always, kernels::rms_norm_fwd_hwy, kernels::add_rms_norm_fwd_hwy,
     kernels::rms_norm_bwd_hwy, kernels::rms_norm_bwd_w_hwy},
    {"ref", runs_always, kernels::rms_norm_fwd_ref, kernels::add_rms_norm_fwd_ref,
     kernels::rms_norm_bwd_ref, kernels::rms_norm_bwd_w_ref},
};

const float* data_or_null(std::span<const float> v) { return v.empty() ? nullptr : v.data(); }

kernels::RmsNormFwd fwd_args(const char* op, HeadShape shape, RowsIn x, std::span<const float> w,
                             RmsNormOptions options, RowsOut y, std::span<float> rstd) {
  check_shape(op, shape);
  check_in(op, "x", x, shape);
  check_out(op, "y", y, shape);
  check_size(op, "w", w.size(), shape.dim, true);
  check_size(op, "rstd", rstd.size(), shape.rows(), true);
  return {shape,
          x,
          data_or_null(w),
          options.weight_offset,
          options.eps,
          y,
          rstd.empty() ? nullptr : rstd.data()};
}

}  // namespace

void rms_norm_fwd(HeadShape shape, RowsIn x, std::span<const float> w, RmsNormOptions options,
                  RowsOut y, std::span<float> rstd) {
  const auto args = fwd_args("rms_norm", shape, x, w, options, y, rstd);
  if (on_cuda()) return kernels::cuda::rms_norm_fwd(args);
  const auto& kernel = pick_kernel("rms_norm", kKernels);
  parallel_for(shape.rows(), row_grain(shape.dim),
               [&](int64_t begin, int64_t end) { kernel.fwd(args, begin, end); });
}

void add_rms_norm_fwd(int64_t n, int64_t d, RowsIn x, RowsIn y, std::span<const float> w,
                      RmsNormOptions options, RowsOut z, RowsOut h, std::span<float> rstd) {
  const char* op = "add_rms_norm";
  const HeadShape shape{n, 1, d};
  const auto norm = fwd_args(op, shape, x, w, options, h, rstd);
  check_in(op, "the second summand", y, shape);
  check_out(op, "z", z, shape);
  require(z.dtype == DType::kF32, op, "z is ", name_of(z.dtype), ", expected F32");
  if (on_cuda()) {
    kernels::cuda::add({d, x, y, z}, n);
    auto of_sum = norm;
    of_sum.x = {static_cast<const float*>(z.data), z.stride};
    return kernels::cuda::rms_norm_fwd(of_sum);
  }
  const kernels::AddRmsNormFwd args{norm, y, static_cast<float*>(z.data), z.stride};
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(n, row_grain(d),
               [&](int64_t begin, int64_t end) { kernel.add_fwd(args, begin, end); });
}

void rms_norm_bwd(HeadShape shape, RowsIn x, std::span<const float> w, std::span<const float> rstd,
                  RowsIn d_y, RmsNormOptions options, RowsOut d_x, bool accumulate,
                  std::span<float> d_w) {
  const char* op = "rms_norm_bwd";
  check_shape(op, shape);
  check_in(op, "x", x, shape);
  check_in(op, "d_y", d_y, shape);
  check_grad(op, "d_x", d_x, shape, accumulate);
  check_size(op, "w", w.size(), shape.dim, true);
  check_size(op, "rstd", rstd.size(), shape.rows());
  check_size(op, "d_w", d_w.size(), shape.dim, true);
  const kernels::RmsNormBwd args{
      shape, x,          data_or_null(w), options.weight_offset, rstd.data(), d_y,
      d_x,   accumulate, d_w.data()};
  if (on_cuda()) return kernels::cuda::rms_norm_bwd(args);
  const auto& kernel = pick_kernel(op, kKernels);
  // d_w first: d_x may lie on d_y.
  if (!d_w.empty())
    parallel_for(shape.dim, 64,
                 [&](int64_t begin, int64_t end) { kernel.bwd_w(args, begin, end); });
  parallel_for(shape.rows(), row_grain(shape.dim),
               [&](int64_t begin, int64_t end) { kernel.bwd(args, begin, end); });
}

}  // namespace signround
