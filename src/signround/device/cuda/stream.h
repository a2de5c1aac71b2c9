// For those who call CUDA's libraries.
#pragma once

#include <cuda_runtime.h>

namespace signround::cuda {

cudaStream_t stream();  // of the current device
void check(cudaError_t status, const char* what);  // Error{kDevice}, or kMemory
void launched(const char* what);                   // after a launch: did it begin?

}  // namespace signround::cuda
