#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

constexpr int kRows = 4;  // of a thread: eight loads are on their way

template <bool kVector>
__global__ void __launch_bounds__(256)
    add_kernel(RowsAny x, RowsAny y, RowsOut z, int64_t cols, int64_t n) {
  constexpr int kW = 4;
  for (int64_t pack = first_pack(); pack * kW < cols; pack += pack_step()) {
    const int64_t col = pack * kW, first = first_row<kRows>();
    const int count = count_at<kW>(cols, col);
    Raw<float, kW> raw_x[kRows], raw_y[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      const int of_row = i < n ? count : 0;
      raw_x[u] = load<float, kW, kVector>(x, i * x.stride + col, of_row);
      raw_y[u] = load<float, kW, kVector>(y, i * y.stride + col, of_row);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      if (i >= n) break;
      float a[kW], b[kW];
      decode(raw_x[u], DType::kF32, a);
      decode(raw_y[u], DType::kF32, b);
#pragma unroll
      for (int e = 0; e < kW; ++e) a[e] += b[e];
      store<kW, kVector>(z, i * z.stride + col, count, a);
    }
  }
}

template <class T, int kW, bool kVector>
__global__ void __launch_bounds__(256)
    add_bias_kernel(RowsAny from, const float* bias, RowsOut y, int64_t cols, int64_t n) {
  for (int64_t pack = first_pack(); pack * kW < cols; pack += pack_step()) {
    const int64_t col = pack * kW, first = first_row<kRows>();
    const int count = count_at<kW>(cols, col);
    Raw<T, kW> raw[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      raw[u] = load<T, kW, kVector>(from, i * from.stride + col, i < n ? count : 0);
    }
    float b[kW];
    load_f32<kW, kVector>(bias + col, count, b);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      if (i >= n) break;
      float v[kW];
      decode(raw[u], from.dtype, v);
#pragma unroll
      for (int e = 0; e < kW; ++e) v[e] += b[e];
      store<kW, kVector>(y, i * y.stride + col, count, v);
    }
  }
}

}  // namespace

void add(const Add& a, int64_t n) {
  if (n * a.cols == 0) return;
  const RowsAny x = a.x, y = a.y;
  const Threads t = threads_for(n, ceil_div(a.cols, 4), kRows);
  const bool vector = a.cols % 4 == 0 && aligned(x.data, x.stride, DType::kF32, 4) &&
                      aligned(y.data, y.stride, DType::kF32, 4) &&
                      aligned(a.z.data, a.z.stride, a.z.dtype, 4);
  launch(vector ? add_kernel<true> : add_kernel<false>, t.grid, t.block, 0, x, y, a.z, a.cols, n);
}

void add_bias(int64_t n, int64_t d, const float* bias, RowsOut y) {
  if (n * d == 0) return;
  const RowsAny from{y.data, y.dtype, y.stride};
  const bool bias_fits = aligned(bias, 0, DType::kF32, 4);
  with_packs({from}, {y}, bias_fits ? d : 1, [&]<class T, int kW, bool kVector>() {
    const Threads t = threads_for(n, ceil_div(d, kW), kRows);
    launch(add_bias_kernel<T, kW, kVector>, t.grid, t.block, 0, from, bias, y, d, n);
  });
}

}  // namespace signround::kernels::cuda
