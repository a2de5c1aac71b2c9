#include "signround/kernels/cpu/grid_loss.h"

#include "signround/kernels/dispatch.h"

namespace signround::kernels {
namespace {

constexpr GridLossKernel kKernels[] = {
    {"hwy", grid_loss_hwy_why_not, grid_losses_hwy, grid_fit_hwy},
    {"ref", runs_always, grid_losses_ref, grid_fit_ref},
};

}  // namespace

std::span<const GridLossKernel> grid_loss_kernels() { return kKernels; }

const GridLossKernel& grid_loss_kernel() { return pick_kernel("grid_loss", kKernels); }

}  // namespace signround::kernels
