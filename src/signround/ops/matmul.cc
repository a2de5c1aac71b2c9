#include "signround/ops/matmul.h"

#include <chrono>

#include "signround/base/error.h"
#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/tensor/buffer.h"

namespace signround {
namespace {

int64_t no_workspace(const MatmulSpec&) { return 0; }

struct MatmulKernel {
  std::string_view name;
  const char* (*why_not)();
  std::unique_ptr<MatmulPlan> (*make)(const MatmulSpec& spec);
  int64_t (*workspace_bytes)(const MatmulSpec& spec) = no_workspace;
  // Of A, below which oneDNN is faster; as it lies, and where it is stored transposed.
  int64_t least_rows = 1, least_rows_transposed = 1;
};

using kernels::PanelUnit;

// Panels are packed, which takes as long as many rows of the product. Measured against oneDNN 2.6:
// tiles are faster from 1024 rows on (0.96 to 1.9 times), slower at 128 (0.6 to 1.1) and at 512 x
// 1024 x 1024 (0.6); vectors 1.0 to 1.2 times from 256 rows on, 0.8 to 1.2 at 128. Where A is
// stored transposed oneDNN packs too, and tiles are 1.25 to 2 times as fast from 576 rows on,
// vectors 1.03 to 1.1 within a block.
template <PanelUnit kUnit>
constexpr MatmulKernel panels_of(std::string_view name, int64_t least_rows) {
  return {.name = name,
          .why_not = [] { return kernels::why_not_matmul_panels(kUnit); },
          .make = [](const MatmulSpec& s) { return kernels::matmul_panels(kUnit, s); },
          .workspace_bytes = kernels::matmul_panels_workspace_bytes,
          .least_rows = least_rows,
          .least_rows_transposed = 512};
}
template <PanelUnit kUnit>
constexpr MatmulKernel int8_panels_of(std::string_view name) {
  return {name, [] { return kernels::why_not_matmul_panels_int8(kUnit); },
          [](const MatmulSpec& s) { return kernels::matmul_panels_int8(kUnit, s); },
          kernels::matmul_panels_int8_workspace_bytes};
}

constexpr MatmulKernel kOnednn = {"onednn", runs_always, kernels::matmul_onednn},
                       kOnednnInt8 = {"onednn", kernels::why_not_matmul_onednn_int8,
                                      kernels::matmul_onednn_int8,
                                      kernels::matmul_onednn_int8_workspace_bytes},
                       kRef = {"ref", runs_always, kernels::matmul_ref};
constexpr MatmulKernel kKernels[] = {kOnednn, kRef};
constexpr MatmulKernel kBf16Kernels[] = {panels_of<PanelUnit::kAmx>("amx", 1024),
                                         panels_of<PanelUnit::kAvx512>("avx512", 256), kOnednn,
                                         kRef};
constexpr MatmulKernel kInt8Kernels[] = {int8_panels_of<PanelUnit::kAmx>("amx"),
                                         int8_panels_of<PanelUnit::kAvx512>("avx512"), kOnednnInt8,
                                         kRef};
constexpr MatmulKernel kInt8KernelsFromF32[] = {kOnednnInt8, kRef};

const MatmulKernel& kernel_for(const MatmulSpec& s) {
  if (s.int8 && s.in == DType::kF32) return pick_kernel("matmul", kInt8KernelsFromF32);
  if (s.int8) return pick_kernel("matmul", kInt8Kernels);
  if (s.in == DType::kBF16) {
    const MatmulKernel& kernel = pick_kernel("matmul", kBf16Kernels);
    const int64_t least = s.trans_a ? kernel.least_rows_transposed : kernel.least_rows;
    if (s.m >= least || kernel_forced(kernel.name)) return kernel;
  }
  return pick_kernel("matmul", kKernels);
}

// A product by oneDNN whose rate is measured.
class Probe {
 public:
  explicit Probe(DType dtype)
      : plan_(kernels::matmul_onednn({.m = kM,
                                      .n = kN,
                                      .k = kK,
                                      .in = dtype,
                                      .trans_b = true,
                                      .lda = kK,
                                      .ldb = kK,
                                      .ldc = kN})),
        a_(kM * kK * size_of(dtype)),
        b_(kN * kK * size_of(dtype)),
        c_(kM * kN * 4) {
    fill(a_, dtype);
    fill(b_, dtype);
    plan_->run(a_.data(), b_.data(), nullptr, c_.as<float>());
  }
  void run() {
    const auto start = std::chrono::steady_clock::now();
    plan_->run(a_.data(), b_.data(), nullptr, c_.as<float>());
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best_ = std::min(best_, seconds.count());
  }
  double rate() const { return 2.0 * kM * kN * kK / best_; }

 private:
  // Values of many bits: zeros that nobody wrote are one page of memory, and need less power.
  static void fill(Buffer& buffer, DType dtype) {
    uint32_t state = 1;
    for (int64_t i = 0; i < buffer.bytes() / size_of(dtype); ++i) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
      if (dtype == DType::kF32)
        buffer.as<float>()[i] = value;
      else
        buffer.as<BF16>()[i] = to_bf16(value);
    }
  }

  static constexpr int64_t kM = 512, kN = 1024, kK = 1024;
  std::unique_ptr<MatmulPlan> plan_;
  Buffer a_, b_, c_;
  double best_ = 1e30;
};

// The best of runs that take turns: whatever else the machine does slows both. New threads may
// share a processor for tens of milliseconds before the system moves one of them: in half of the
// processes on a machine of two, eight turns saw half of its rate.
ComputeRates measure_rates() {
  constexpr std::chrono::milliseconds kLeast(200);
  Probe f32(DType::kF32), bf16(DType::kBF16);
  const auto start = std::chrono::steady_clock::now();
  for (int turn = 0; turn < 8 || std::chrono::steady_clock::now() - start < kLeast; ++turn) {
    f32.run();
    bf16.run();
  }
  return {.f32 = f32.rate(), .bf16 = bf16.rate()};
}

}  // namespace

std::unique_ptr<MatmulPlan> make_matmul(const MatmulSpec& s) {
  require(s.m > 0 && s.n > 0 && s.k > 0, "matmul", "sizes ", s.m, " x ", s.k, " by ", s.k, " x ",
          s.n, " must be positive");
  require(s.in == DType::kF32 || s.in == DType::kBF16, "matmul", "operands of type ", name_of(s.in),
          "; expected F32 or BF16");
  require(s.out == DType::kF32 || (s.out == DType::kBF16 && s.in == s.out && !s.accumulate),
          "matmul", "C of type ", name_of(s.out), " from ", name_of(s.in),
          "; expected F32, or BF16 from BF16 where it is not added to");
  require(!s.int8 || !s.bias, "matmul", "operands that are rounded to 8 bits have no bias");
  require(!s.int8 || s.out == DType::kF32 || s.k <= kernels::kInt8StepValues, "matmul",
          "operands of 8 bits give BF16 for at most ", kernels::kInt8StepValues,
          " values along k, found ", s.k);
  require(s.lda >= (s.trans_a ? s.m : s.k) && s.ldb >= (s.trans_b ? s.k : s.n) && s.ldc >= s.n,
          "matmul", "strides ", s.lda, ", ", s.ldb, ", ", s.ldc, " are shorter than the rows of ",
          s.m, " x ", s.k, " by ", s.k, " x ", s.n);
  if (s.device.is_cuda() || on_cuda()) {
    require(!s.int8, "matmul", "products of 8-bit integers are for CPUs");
    return kernels::cuda::matmul(s);
  }
  return kernel_for(s).make(s);
}

std::string matmul_kernel_name(const MatmulSpec& s) { return std::string(kernel_for(s).name); }

int64_t matmul_workspace_bytes(const MatmulSpec& s) { return kernel_for(s).workspace_bytes(s); }

const char* why_no_int8_products(DType in) {
  if (in == DType::kBF16)
    for (PanelUnit unit : {PanelUnit::kAmx, PanelUnit::kAvx512})
      if (kernels::why_not_matmul_panels_int8(unit) == nullptr) return nullptr;
  return kernels::why_not_matmul_onednn_int8();
}

const ComputeRates& compute_rates() {
  static const ComputeRates rates = measure_rates();
  return rates;
}

DType fastest_compute_dtype() {
  return compute_rates().bf16 >= 1.2 * compute_rates().f32 ? DType::kBF16 : DType::kF32;
}

}  // namespace signround
