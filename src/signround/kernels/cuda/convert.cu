#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

constexpr int kRows = 4;

template <class T, int kW, bool kVector>
__global__ void __launch_bounds__(256) convert_kernel(Convert a, int64_t n) {
  const int64_t first = first_row<kRows>();
  int64_t from[kRows];
#pragma unroll
  for (int u = 0; u < kRows; ++u) {
    const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
    from[u] = (a.ids == nullptr || i >= n ? i : a.ids[i]) * a.x.stride;
  }
  for (int64_t pack = first_pack(); pack * kW < a.cols; pack += pack_step()) {
    const int64_t col = pack * kW;
    const int count = count_at<kW>(a.cols, col);
    Raw<T, kW> raw[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      raw[u] = load<T, kW, kVector>(a.x, from[u] + col, i < n ? count : 0);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      if (i >= n) break;
      float v[kW];
      decode(raw[u], a.x.dtype, v);
      if (a.scale != 1.0f) {
#pragma unroll
        for (int e = 0; e < kW; ++e) v[e] *= a.scale;
      }
      store<kW, kVector>(a.y, i * a.y.stride + col, count, v);
    }
  }
}

}  // namespace

void convert(const Convert& a, int64_t n) {
  if (n * a.cols == 0) return;
  with_packs({a.x}, {a.y}, a.cols, [&]<class T, int kW, bool kVector>() {
    const Threads t = threads_for(n, ceil_div(a.cols, kW), kRows);
    launch(convert_kernel<T, kW, kVector>, t.grid, t.block, 0, a, n);
  });
}

}  // namespace signround::kernels::cuda
