#include "signround/kernels/search_cuda.h"

#include "signround/base/error.h"
#include "signround/device/device.h"

namespace signround::kernels::cuda {

void search_scales(const SearchWeights&, const SearchRule&, const float*, float*, float*) {
  fail(ErrorKind::kDevice, "kernels", why_no_cuda());
}

}  // namespace signround::kernels::cuda
