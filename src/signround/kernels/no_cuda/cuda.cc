#include "signround/kernels/cuda.h"

#include "signround/base/error.h"

namespace signround::kernels::cuda {
namespace {

[[noreturn]] void none() { fail(ErrorKind::kDevice, "kernels", why_no_cuda()); }

}  // namespace

void act_fwd(const ActFwd&, int64_t) { none(); }
void act_bwd(const ActBwd&, int64_t) { none(); }
void add(const Add&, int64_t) { none(); }
void convert(const Convert&, int64_t) { none(); }
void rms_norm_fwd(const RmsNormFwd&) { none(); }
void rms_norm_bwd(const RmsNormBwd&) { none(); }
void rope(const Rope&) { none(); }
void mse_loss(const MseLoss&, int64_t) { none(); }
void xent_fwd(const Xent&, int64_t) { none(); }
void kl_fwd(const Kl&, int64_t) { none(); }
void kl_bwd(const KlBwd&, int64_t) { none(); }
void bias_bwd(int64_t, int64_t, RowsAny, float*) { none(); }
void add_bias(int64_t, int64_t, const float*, RowsOut) { none(); }
void second_moments(int64_t, int64_t, RowsAny, double*) { none(); }
void total(const double*, int64_t, double*) { none(); }
int64_t attention_scratch_bytes(const AttentionShape&, bool) { none(); }
void attention_fwd(const AttentionShape&, RowsAny, RowsAny, RowsAny, RowsOut, float*, void*) {
  none();
}
void attention_bwd(const AttentionShape&, RowsAny, RowsAny, RowsAny, RowsAny, const float*, RowsAny,
                   RowsOut, RowsOut, RowsOut, void*) {
  none();
}
std::unique_ptr<MatmulPlan> matmul(const MatmulSpec&) { none(); }

}  // namespace signround::kernels::cuda
