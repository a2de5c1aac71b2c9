#include "signround/base/error.h"
#include "signround/device/device.h"
#include "signround/kernels/slot_cuda.h"

namespace signround::kernels::cuda {
namespace {

[[noreturn]] void none() { fail(ErrorKind::kDevice, "kernels", why_no_cuda()); }

}  // namespace

void slot_extent(const SlotWeights&, float*, float*) { none(); }
void slot_ranges(const RangeGridRule&, int64_t, const float*, const float*, const float*,
                 const float*, SlotGrid) {
  none();
}
void slot_scales(const ScaleLimits&, int64_t, const float*, const float*, float*) { none(); }
void slot_write(const SlotWeights&, const int16_t*, float, SlotGrid, RowsOut) { none(); }
void slot_codes(const SlotWeights&, const int16_t*, float, SlotGrid, uint8_t*) { none(); }
void slot_step(const SlotWeights&, const SlotStep&, SlotGrid, RowsAny, RowsOut) { none(); }

}  // namespace signround::kernels::cuda
