#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

// A block does a row. 16 squares are added in f32, the rest in double.
template <class T, bool kVector>
__global__ void __launch_bounds__(256) mse_loss_kernel(RowsAny pred, MseLoss a) {
  constexpr int kW = 4, kPacks = 4;
  __shared__ double scratch[33];
  const int64_t i = blockIdx.x;
  const bool valid = a.mask == nullptr || a.mask[i] != 0;
  double sum = 0;
  for (int64_t begin = 0; begin < a.cols; begin += int64_t{kPacks * kW} * blockDim.x) {
    Raw<float, kW> raw_p[kPacks];
    Raw<T, kW> raw_r[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      const int count = valid ? count_at<kW>(a.cols, col) : 0;
      raw_p[k] = load<float, kW, kVector>(pred, i * pred.stride + col, count);
      raw_r[k] = load<T, kW, kVector>(a.ref, i * a.ref.stride + col, count);
    }
    float squares = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      float p[kW], r[kW];
      decode(raw_p[k], DType::kF32, p);
      decode(raw_r[k], a.ref.dtype, r);
#pragma unroll
      for (int e = 0; e < kW; ++e) p[e] -= r[e];
      squares += fmaf(p[0], p[0], p[1] * p[1]) + fmaf(p[2], p[2], p[3] * p[3]);
      if (a.d_pred.data == nullptr) continue;
#pragma unroll
      for (int e = 0; e < kW; ++e) p[e] = 2 * p[e] * a.scale;
      store<kW, kVector>(a.d_pred, i * a.d_pred.stride + col, count_at<kW>(a.cols, col), p);
    }
    sum += static_cast<double>(squares);
  }
  sum = sum_block(sum, scratch);
  if (threadIdx.x == 0) a.row_sums[i] = sum;
}

__global__ void __launch_bounds__(1024) total_kernel(const double* values, int64_t n, double* sum) {
  constexpr int kEach = 8;
  __shared__ double scratch[33];
  double mine = 0;
  for (int64_t begin = 0; begin < n; begin += int64_t{kEach} * blockDim.x) {
    double v[kEach];
#pragma unroll
    for (int k = 0; k < kEach; ++k) {
      const int64_t i = begin + threadIdx.x + int64_t{k} * blockDim.x;
      v[k] = i < n ? values[i] : 0.0;
    }
#pragma unroll
    for (int k = 0; k < kEach; ++k) mine += v[k];
  }
  mine = sum_block(mine, scratch);
  if (threadIdx.x == 0) *sum = mine;
}

}  // namespace

void mse_loss(const MseLoss& a, int64_t n) {
  if (n == 0) return;
  const RowsAny pred = a.pred;
  const bool vector = a.cols % 4 == 0 && aligned(pred.data, pred.stride, DType::kF32, 4) &&
                      aligned(a.ref.data, a.ref.stride, a.ref.dtype, 4) &&
                      aligned(a.d_pred.data, a.d_pred.stride, a.d_pred.dtype, 4);
  const int64_t warps = ceil_div(a.cols, 16 * 32);
  const dim3 block = grid_of(32 * (warps < 1 ? 1 : warps < 8 ? warps : 8));
  if (a.ref.dtype == DType::kF32)
    launch(vector ? mse_loss_kernel<float, true> : mse_loss_kernel<float, false>, grid_of(n), block,
           0, pred, a);
  else
    launch(vector ? mse_loss_kernel<BF16, true> : mse_loss_kernel<BF16, false>, grid_of(n), block,
           0, pred, a);
}

void total(const double* values, int64_t n, double* sum) {
  const int64_t warps = ceil_div(n, 8 * 32);
  launch(total_kernel, grid_of(1),
         grid_of(32 * (warps < 1    ? 1
                       : warps < 32 ? warps
                                    : 32)),
         0, values, n, sum);
}

}  // namespace signround::kernels::cuda
