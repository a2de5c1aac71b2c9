#include "signround/kernels/scale_tuner_cuda.h"

#include "signround/base/error.h"
#include "signround/device/device.h"

namespace signround::kernels::cuda {
namespace {

[[noreturn]] void none() { fail(ErrorKind::kDevice, "kernels", why_no_cuda()); }

}  // namespace

void codes_write(const Codes&, const float*, RowsOut) { none(); }
void codes_step(const Codes&, RowsAny, const CodesStep&) { none(); }
void factors_step(int64_t, const float*, const float*, float, double, ScaleMoments*, float*) {
  none();
}
void factors_apply(int64_t, const float*, float, float*) { none(); }

}  // namespace signround::kernels::cuda
