#include "signround/kernels/cpu/fake_quant.h"

#include "signround/kernels/dispatch.h"

namespace signround::kernels {
namespace {

constexpr FakeQuantKernel kKernels[] = {
    {"hwy", fake_quant_hwy_why_not, fake_quant_hwy_f32, fake_quant_hwy_bf16},
    {"ref", runs_always, fake_quant_ref_f32, fake_quant_ref_bf16},
};

}  // namespace

std::span<const FakeQuantKernel> fake_quant_kernels() { return kKernels; }

const FakeQuantKernel& fake_quant_kernel() { return pick_kernel("fake_quant", kKernels); }

}  // namespace signround::kernels
