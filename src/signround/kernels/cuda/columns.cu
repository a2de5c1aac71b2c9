// Sums over rows, in two steps: of ranges of rows, then of those.
#include <vector>

#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"
#include "signround/tensor/buffer.h"

namespace signround::kernels::cuda {
namespace {

constexpr int kLanes = 32, kDeep = 8;  // threads of a block: packs of columns, rows

// parts (ranges, cols): sums of the rows of a range, or of their squares. Of squares, those of 4
// rows are added in f32.
template <bool kSquares, class T, int kW, bool kVector>
__global__ void __launch_bounds__(256)
    sum_range_kernel(RowsAny x, int64_t n, int64_t cols, int64_t range, double* parts) {
  constexpr int kRows = 4;
  __shared__ double sums[kDeep][kLanes * kW];
  const int64_t col = (static_cast<int64_t>(blockIdx.x) * kLanes + threadIdx.x) * kW;
  const int count = count_at<kW>(cols, col);
  const int64_t begin = blockIdx.y * range, end = min(n, begin + range);
  double sum[kW] = {};
  for (int64_t i = begin + threadIdx.y; i < end; i += kRows * kDeep) {
    Raw<T, kW> raw[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t row = i + u * kDeep;
      raw[u] = load<T, kW, kVector>(x, row * x.stride + col, row < end ? count : 0);
    }
    float squares[kW] = {};
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      float v[kW];
      decode(raw[u], x.dtype, v);
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        if constexpr (kSquares)
          squares[e] = fmaf(v[e], v[e], squares[e]);
        else
          sum[e] += static_cast<double>(v[e]);
      }
    }
    if constexpr (kSquares) {
#pragma unroll
      for (int e = 0; e < kW; ++e) sum[e] += static_cast<double>(squares[e]);
    }
  }
#pragma unroll
  for (int e = 0; e < kW; ++e) sums[threadIdx.y][threadIdx.x * kW + e] = sum[e];
  __syncthreads();
  const int mine = static_cast<int>(threadIdx.y) * kLanes + static_cast<int>(threadIdx.x);
  const int64_t to = static_cast<int64_t>(blockIdx.x) * kLanes * kW + mine;
  if (mine >= kLanes * kW || to >= cols) return;
  double all = 0;
#pragma unroll
  for (int k = 0; k < kDeep; ++k) all += sums[k][mine];
  parts[blockIdx.y * cols + to] = all;
}

template <class Part, class To>
__global__ void __launch_bounds__(256)
    add_parts_kernel(const Part* parts, int64_t n, int64_t cols, To* to) {
  constexpr int kRows = 4;
  __shared__ double sums[kDeep][kLanes];
  const int64_t col = static_cast<int64_t>(blockIdx.x) * kLanes + threadIdx.x;
  double sum = 0;
  for (int64_t i = threadIdx.y; i < n; i += kRows * kDeep) {
    Part v[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t row = i + u * kDeep;
      v[u] = row < n && col < cols ? parts[row * cols + col] : Part(0);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) sum += static_cast<double>(v[u]);
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || col >= cols) return;
  double all = 0;
#pragma unroll
  for (int k = 0; k < kDeep; ++k) all += sums[k][threadIdx.x];
  to[col] = static_cast<To>(static_cast<double>(to[col]) + all);
}

template <class Part, class To>
void finish(const Part* parts, int64_t n, int64_t cols, To* to) {
  launch(add_parts_kernel<Part, To>, grid_of(ceil_div(cols, kLanes)), grid_of(kLanes, kDeep), 0,
         parts, n, cols, to);
}

template <bool kSquares, class To>
void add_columns(int64_t n, int64_t cols, RowsAny x, To* to) {
  if (n * cols == 0) return;
  with_packs({x}, {}, cols, [&]<class T, int kW, bool kVector>() {
    const int64_t tiles = ceil_div(cols, kLanes * kW), wanted = ceil_div(1056, tiles);
    const int64_t most = ceil_div(n, 2 * 4 * kDeep);
    const int64_t range = ceil_div(n, wanted < most ? wanted : most), ranges = ceil_div(n, range);
    auto* parts = static_cast<double*>(column_scratch(ranges * cols * 8));
    launch(sum_range_kernel<kSquares, T, kW, kVector>, grid_of(tiles, ranges),
           grid_of(kLanes, kDeep), 0, x, n, cols, range, parts);
    finish(parts, ranges, cols, to);
  });
}

}  // namespace

void* column_scratch(int64_t bytes) {
  thread_local std::vector<Buffer> buffers;
  int64_t largest = 0;
  for (Buffer& b : buffers) {
    if (b.device() != current_device()) continue;
    if (b.bytes() >= bytes) return b.data();
    largest = b.bytes();
  }
  buffers.emplace_back(std::max(bytes, 2 * largest), current_device());
  return buffers.back().data();
}

void add_parts(const float* parts, int64_t n, int64_t d, float* to) { finish(parts, n, d, to); }

void bias_bwd(int64_t n, int64_t d, RowsAny d_y, float* d_b) { add_columns<false>(n, d, d_y, d_b); }

void second_moments(int64_t n, int64_t d, RowsAny x, double* sums) {
  add_columns<true>(n, d, x, sums);
}

}  // namespace signround::kernels::cuda
