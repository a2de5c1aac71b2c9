// The seam for GPUs. Built with CUDA, kernels/cuda defines these; built without, kernels/no_cuda
// says so. All work is queued on the current device (device/device.h), where all pointers lie; the
// operations of ops/ have checked the arguments. Results are the same to the bit from run to run.
#pragma once

#include <cstdint>
#include <memory>

#include "signround/device/device.h"
#include "signround/kernels/attention_shape.h"
#include "signround/kernels/cpu/activation.h"
#include "signround/kernels/cpu/add.h"
#include "signround/kernels/cpu/convert.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/mse_loss.h"
#include "signround/kernels/cpu/rms_norm.h"
#include "signround/kernels/cpu/rope.h"
#include "signround/kernels/cpu/xent.h"

namespace signround::kernels::cuda {

// ---- rows: what the structs of kernels/cpu say, of n rows ----
void act_fwd(const ActFwd& a, int64_t n);
void act_bwd(const ActBwd& a, int64_t n);
void add(const Add& a, int64_t n);
void convert(const Convert& a, int64_t n);
void rms_norm_fwd(const RmsNormFwd& a);
void rms_norm_bwd(const RmsNormBwd& a);  // d_w too, where it is wanted
void rope(const Rope& a);                // cos and sin lie on the device as well
void mse_loss(const MseLoss& a, int64_t n);
void xent_fwd(const Xent& a, int64_t n);
void kl_fwd(const Kl& a, int64_t n);
void kl_bwd(const KlBwd& a, int64_t n);
// d_b[j] += sum of column j of d_y (n, d), summed in double.
void bias_bwd(int64_t n, int64_t d, RowsAny d_y, float* d_b);
// y[i][j] += bias[j], y (n, d) f32 or bf16.
void add_bias(int64_t n, int64_t d, const float* bias, RowsOut y);
// sums[j] += sum over rows of x[i][j]^2, x (n, d).
void second_moments(int64_t n, int64_t d, RowsAny x, double* sums);
// sum = values[0] + ... + values[n - 1], in double, in a fixed order.
void total(const double* values, int64_t n, double* sum);

// ---- attention (ops/attention.h) ----
// scratch: as many bytes as the next function says.
int64_t attention_scratch_bytes(const AttentionShape& shape, bool backward);
void attention_fwd(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                   float* lse, void* scratch);
void attention_bwd(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                   const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                   void* scratch);

// ---- products ----
constexpr int64_t kProductWorkspace = int64_t{32} << 20;  // that a thread keeps for all of them
std::unique_ptr<MatmulPlan> matmul(const MatmulSpec& spec);

}  // namespace signround::kernels::cuda
