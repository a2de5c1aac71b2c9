#include "signround/ops/matmul.h"

#include <chrono>

#include "signround/base/error.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/tensor/buffer.h"

namespace signround {
namespace {

struct MatmulKernel {
  std::string_view name;
  const char* (*why_not)();
  std::unique_ptr<MatmulPlan> (*make)(const MatmulSpec& spec);
};

constexpr MatmulKernel kKernels[] = {{"onednn", runs_always, kernels::matmul_onednn},
                                     {"ref", runs_always, kernels::matmul_ref}};

double rate_of(DType dtype) {
  constexpr int64_t m = 512, n = 1024, k = 1024;
  const MatmulSpec spec{
      .m = m, .n = n, .k = k, .in = dtype, .trans_b = true, .lda = k, .ldb = k, .ldc = n};
  const auto plan = make_matmul(spec);
  const Buffer a(m * k * size_of(dtype)), b(n * k * size_of(dtype));
  Buffer c(m * n * 4);
  double best = 1e30;
  for (int run = 0; run < 6; ++run) {
    const auto start = std::chrono::steady_clock::now();
    plan->run(a.data(), b.data(), nullptr, c.as<float>());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (run > 0) best = std::min(best, seconds.count());
  }
  return 2.0 * m * n * k / best;
}

}  // namespace

std::unique_ptr<MatmulPlan> make_matmul(const MatmulSpec& s) {
  require(s.m > 0 && s.n > 0 && s.k > 0, "matmul", "sizes ", s.m, " x ", s.k, " by ", s.k, " x ",
          s.n, " must be positive");
  require(s.in == DType::kF32 || s.in == DType::kBF16, "matmul", "operands of type ", name_of(s.in),
          "; expected F32 or BF16");
  require(s.lda >= (s.trans_a ? s.m : s.k) && s.ldb >= (s.trans_b ? s.k : s.n) && s.ldc >= s.n,
          "matmul", "strides ", s.lda, ", ", s.ldb, ", ", s.ldc, " are shorter than the rows of ",
          s.m, " x ", s.k, " by ", s.k, " x ", s.n);
  if (s.device.kind == Device::Kind::kCuda) return kernels::matmul_cuda(s);
  return pick_kernel("matmul", kKernels).make(s);
}

std::string matmul_kernel_name() { return std::string(pick_kernel("matmul", kKernels).name); }

const ComputeRates& compute_rates() {
  static const ComputeRates rates{.f32 = rate_of(DType::kF32), .bf16 = rate_of(DType::kBF16)};
  return rates;
}

DType fastest_compute_dtype() {
  return compute_rates().bf16 >= 1.2 * compute_rates().f32 ? DType::kBF16 : DType::kF32;
}

}  // namespace signround
