#include "signround/ops/activation.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct ActivationKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*fwd)(const kernels::ActFwd&, int64_t, int64_t) noexcept;
  void (*bwd)(const kernels::ActBwd&, int64_t, int64_t) noexcept;
};
constexpr ActivationKernel kKernels[] = {
    {"hwy", runs_always, kernels::act_fwd_hwy, kernels::act_bwd_hwy},
    {"ref", runs_always, kernels::act_fwd_ref, kernels::act_bwd_ref}};

void run_fwd(const char* op, const kernels::ActFwd& args, int64_t n) {
  const HeadShape shape{n, 1, args.cols};
  check_shape(op, shape);
  check_in(op, "x", args.x, shape);
  check_out(op, "y", args.y, shape);
  if (on_cuda()) return kernels::cuda::act_fwd(args, n);
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(n, row_grain(args.cols),
               [&](int64_t begin, int64_t end) { kernel.fwd(args, begin, end); });
}

void run_bwd(const char* op, const kernels::ActBwd& args, int64_t n) {
  const HeadShape shape{n, 1, args.cols};
  check_shape(op, shape);
  check_in(op, "x", args.x, shape);
  check_in(op, "d_y", args.d_y, shape);
  check_grad(op, "d_x", args.d_x, shape, args.accumulate);
  if (on_cuda()) return kernels::cuda::act_bwd(args, n);
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(n, row_grain(args.cols),
               [&](int64_t begin, int64_t end) { kernel.bwd(args, begin, end); });
}

}  // namespace

void activation_fwd(Activation kind, int64_t n, int64_t d, RowsAny x, RowsOut y) {
  run_fwd("activation", {kind, d, x, {}, y}, n);
}

void activation_bwd(Activation kind, int64_t n, int64_t d, RowsAny x, RowsAny d_y, RowsOut d_x,
                    bool accumulate) {
  run_bwd("activation_bwd", {kind, d, x, {}, d_y, d_x, {}, accumulate}, n);
}

void glu_fwd(Activation kind, int64_t n, int64_t d, RowsAny gate, RowsAny up, RowsOut y) {
  check_shape("glu", {n, 1, d});
  if (n * d == 0) return;
  check_in("glu", "up", up, {n, 1, d});
  run_fwd("glu", {kind, d, gate, up, y}, n);
}

void glu_bwd(Activation kind, int64_t n, int64_t d, RowsAny gate, RowsAny up, RowsAny d_y,
             RowsOut d_gate, RowsOut d_up, bool accumulate) {
  const char* op = "glu_bwd";
  check_shape(op, {n, 1, d});
  if (n * d == 0) return;
  check_in(op, "up", up, {n, 1, d});
  check_grad(op, "d_up", d_up, {n, 1, d}, accumulate);
  require(d_up.dtype == d_gate.dtype, op, "d_gate is ", name_of(d_gate.dtype), ", d_up is ",
          name_of(d_up.dtype), ", expected one type");
  run_bwd(op, {kind, d, gate, up, d_y, d_gate, d_up, accumulate}, n);
}

}  // namespace signround
