#include "signround/kernels/packed_matmul.h"

#include "signround/base/error.h"

namespace signround::kernels {
namespace {

[[noreturn]] void none() { fail(ErrorKind::kDevice, "kernels", why_no_cuda()); }

}  // namespace

PackedWeight::PackedWeight(const PackedSpec&, const uint8_t*, const float*, const uint8_t*) {
  none();
}
PackedWeight PackedWeight::copy() const { none(); }
PackedPlan plan_packed_matmul(const PackedWeight&, int64_t) { none(); }
std::vector<PackedPlan> packed_matmul_plans(const PackedWeight&, int64_t) { none(); }
int64_t packed_matmul_scratch_bytes(const PackedWeight&, int64_t) { none(); }
int64_t packed_matmul_scratch_bytes(const PackedWeight&, const PackedPlan&, int64_t) { none(); }
void packed_matmul(const PackedWeight&, int64_t, RowsAny, RowsOut, void*, const PackedTerms&) {
  none();
}
void packed_matmul(const PackedWeight&, const PackedPlan&, int64_t, RowsAny, RowsOut, void*,
                   const PackedTerms&) {
  none();
}

}  // namespace signround::kernels
