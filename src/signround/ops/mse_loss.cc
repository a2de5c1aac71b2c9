#include "signround/ops/mse_loss.h"

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/mse_loss.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

using namespace detail;

struct MseLossKernel {
  std::string_view name;
  const char* (*why_not)();
  void (*run)(const kernels::MseLoss&, int64_t, int64_t) noexcept;
};
constexpr MseLossKernel kKernels[] = {{"hwy", runs_always, kernels::mse_loss_hwy},
                                      {"ref", runs_always, kernels::mse_loss_ref}};

MseLoss run(int64_t n, int64_t d, RowsIn pred, RowsAny ref, std::span<const uint8_t> mask,
            float scale, std::span<double> row_sums, RowsOut d_pred) {
  const char* op = "mse_loss";
  const HeadShape shape{n, 1, d};
  check_shape(op, shape);
  check_in(op, "pred", pred, shape);
  check_in(op, "ref", ref, shape);
  require(ref.dtype != DType::kF16, op, "ref is F16, expected F32 or BF16");
  check_size(op, "mask", mask.size(), n, true);
  check_size(op, "row_sums", row_sums.size(), n);
  if (d_pred) check_out(op, "d_pred", d_pred, shape);
  const kernels::MseLoss args{
      d, pred, ref, mask.empty() ? nullptr : mask.data(), scale, row_sums.data(), d_pred};
  MseLoss loss;
  if (on_cuda()) {
    kernels::cuda::mse_loss(args, n);
    return loss;
  }
  const auto& kernel = pick_kernel(op, kKernels);
  parallel_for(n, row_grain(d), [&](int64_t begin, int64_t end) { kernel.run(args, begin, end); });
  for (double sum : row_sums) loss.sum += sum;
  loss.count = count_valid_rows(mask, n) * d;
  return loss;
}

}  // namespace

int64_t count_valid_rows(std::span<const uint8_t> mask, int64_t n) {
  if (mask.empty()) return n;
  int64_t count = 0;
  for (uint8_t valid : mask) count += valid != 0;
  return count;
}

MseLoss mse_loss_fwd(int64_t n, int64_t d, RowsIn pred, RowsAny ref, std::span<const uint8_t> mask,
                     std::span<double> row_sums) {
  return run(n, d, pred, ref, mask, 0, row_sums, {});
}

MseLoss mse_loss_fwd_bwd(int64_t n, int64_t d, RowsIn pred, RowsAny ref,
                         std::span<const uint8_t> mask, float scale, std::span<double> row_sums,
                         RowsOut d_pred) {
  if (n * d > 0) require(static_cast<bool>(d_pred), "mse_loss", "d_pred has no data");
  return run(n, d, pred, ref, mask, scale, row_sums, d_pred);
}

}  // namespace signround
