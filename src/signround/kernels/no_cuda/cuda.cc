#include "signround/kernels/cuda.h"

#include "signround/base/error.h"

namespace signround::kernels {

const char* why_no_cuda() noexcept {
  return "this program was built without CUDA; use --device cpu";
}

int cuda_device_count() noexcept { return 0; }

std::unique_ptr<MatmulPlan> matmul_cuda(const MatmulSpec&) {
  fail(ErrorKind::kDevice, "matmul", why_no_cuda());
}

}  // namespace signround::kernels
