// The seam for GPUs. Built with CUDA, kernels/cuda defines these; built without, kernels/no_cuda
// says so.
#pragma once

#include <cstdint>
#include <memory>

#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels {

// nullptr: CUDA kernels can run here; else the reason.
const char* why_no_cuda() noexcept;
int cuda_device_count() noexcept;

// A product whose operands lie on a GPU. Error{kDevice} where there is none.
std::unique_ptr<MatmulPlan> matmul_cuda(const MatmulSpec& spec);

}  // namespace signround::kernels
