#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

// A row of up to kInRegisters values is read once. Its threads are blockDim.x neighbours: part of a
// warp, where blockDim.y rows share a block, or the whole block.
constexpr int kW = 4, kMaxThreads = 512, kMaxPacks = 4;
constexpr int64_t kInRegisters = int64_t{kMaxThreads} * kMaxPacks * kW;

__device__ __forceinline__ float sum_row(float v, float* scratch) {
  if (blockDim.x <= 32) return sum_lanes(v, static_cast<int>(blockDim.x));
  return sum_block(v, scratch);
}

// HeadShape::offset
__device__ __forceinline__ int64_t row_offset(const HeadShape& s, int64_t row, int64_t stride) {
  if (s.heads == 1) return row * stride;
  const auto r = static_cast<unsigned>(row), heads = static_cast<unsigned>(s.heads);
  return static_cast<int64_t>(r / heads) * stride + static_cast<int64_t>(r % heads) * s.dim;
}

template <bool kVector>
__device__ __forceinline__ void load_weights(const float* w, float offset, int64_t col, int count,
                                             float (&v)[kW]) {
  if (w == nullptr) {
#pragma unroll
    for (int e = 0; e < kW; ++e) v[e] = 1;
    return;
  }
  load_f32<kW, kVector>(w + col, count, v);
#pragma unroll
  for (int e = 0; e < kW; ++e) v[e] += offset;
}

__device__ __forceinline__ float rstd_of(float sum, int64_t dim, float eps) {
  return 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);
}

template <bool kVector>
__device__ __forceinline__ void norm_pack(const RmsNormFwd& a, const float (&x)[kW], float r,
                                          int64_t to, int64_t col, int count) {
  float w[kW];
  load_weights<kVector>(a.w, a.w_offset, col, count, w);
#pragma unroll
  for (int e = 0; e < kW; ++e) w[e] = w[e] * x[e] * r;
  store<kW, kVector>(a.y, to + col, count, w);
}

template <int kPacks, bool kVector>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_fwd_kernel(RmsNormFwd a, int64_t rows) {
  __shared__ float scratch[33];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  const bool mine = row < rows;
  const float* from = a.x.data + row_offset(a.shape, row, a.x.stride);
  float x[kPacks][kW];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int64_t col = (threadIdx.x + int64_t{k} * blockDim.x) * kW;
    load_f32<kW, kVector>(from + col, mine ? count_at<kW>(a.shape.dim, col) : 0, x[k]);
  }
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k)
#pragma unroll
    for (int e = 0; e < kW; ++e) sum = fmaf(x[k][e], x[k][e], sum);
  sum = sum_row(sum, scratch);
  if (!mine) return;
  const float r = rstd_of(sum, a.shape.dim, a.eps);
  const int64_t to = row_offset(a.shape, row, a.y.stride);
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int64_t col = (threadIdx.x + int64_t{k} * blockDim.x) * kW;
    norm_pack<kVector>(a, x[k], r, to, col, count_at<kW>(a.shape.dim, col));
  }
  if (a.rstd != nullptr && threadIdx.x == 0) a.rstd[row] = r;
}

// Rows that registers do not hold: read twice.
template <bool kVector>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_fwd_long_kernel(RmsNormFwd a) {
  __shared__ float scratch[33];
  const float* from = a.x.data + row_offset(a.shape, blockIdx.x, a.x.stride);
  const int64_t step = int64_t{kW} * blockDim.x, dim = a.shape.dim;
  float sum = 0, x[kW];
  for (int64_t col = int64_t{kW} * threadIdx.x; col < dim; col += step) {
    load_f32<kW, kVector>(from + col, count_at<kW>(dim, col), x);
#pragma unroll
    for (int e = 0; e < kW; ++e) sum = fmaf(x[e], x[e], sum);
  }
  sum = sum_block(sum, scratch);
  const float r = rstd_of(sum, dim, a.eps);
  const int64_t to = row_offset(a.shape, blockIdx.x, a.y.stride);
  for (int64_t col = int64_t{kW} * threadIdx.x; col < dim; col += step) {
    const int count = count_at<kW>(dim, col);
    load_f32<kW, kVector>(from + col, count, x);
    norm_pack<kVector>(a, x, r, to, col, count);
  }
  if (a.rstd != nullptr && threadIdx.x == 0) a.rstd[blockIdx.x] = r;
}

// d_x = g r - x k with g = d_y w,  k = sum(g x) r^3 / dim
template <bool kVector>
__device__ __forceinline__ void grad_pack(const RmsNormBwd& a, const float (&x)[kW],
                                          const float (&g)[kW], float r, float k, int64_t at,
                                          int count) {
  float d_x[kW];
#pragma unroll
  for (int e = 0; e < kW; ++e) d_x[e] = fmaf(-x[e], k, g[e] * r);
  if (a.accumulate) {
    float before[kW];
    load_f32<kW, kVector>(static_cast<const float*>(a.d_x.data) + at, count, before);
#pragma unroll
    for (int e = 0; e < kW; ++e) d_x[e] += before[e];
  }
  store<kW, kVector>(a.d_x, at, count, d_x);
}

// kWeights: each group of threads that does rows adds up its share of d_w, in their order, and
// leaves it in parts (groups, dim).
template <int kPacks, bool kVector, bool kWeights>
__global__ void __launch_bounds__(kMaxThreads)
    rms_norm_bwd_kernel(RmsNormBwd a, int64_t rows, float* parts) {
  __shared__ float scratch[33];
  const int64_t dim = a.shape.dim, step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  float d_w[kWeights ? kPacks : 1][kW] = {};
  for (int64_t begin = static_cast<int64_t>(blockIdx.x) * blockDim.y; begin < rows; begin += step) {
    const int64_t row = begin + threadIdx.y;
    const bool mine = row < rows;
    const float r = mine ? a.rstd[row] : 0.0f;
    const float* from_x = a.x.data + row_offset(a.shape, row, a.x.stride);
    const float* from_d = a.d_y.data + row_offset(a.shape, row, a.d_y.stride);
    float x[kPacks][kW], g[kPacks][kW];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      const int count = mine ? count_at<kW>(dim, col) : 0;
      load_f32<kW, kVector>(from_x + col, count, x[k]);
      load_f32<kW, kVector>(from_d + col, count, g[k]);
    }
    float dot = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      float w[kW];
      load_weights<kVector>(a.w, a.w_offset, col, count_at<kW>(dim, col), w);
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        if constexpr (kWeights) d_w[k][e] = fmaf(g[k][e] * x[k][e], r, d_w[k][e]);
        g[k][e] *= w[e];
        dot = fmaf(g[k][e], x[k][e], dot);
      }
    }
    dot = sum_row(dot, scratch);
    if (!mine) continue;
    const float k_of_row = dot * r * r * r / static_cast<float>(dim);
    const int64_t to = row_offset(a.shape, row, a.d_x.stride);
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      grad_pack<kVector>(a, x[k], g[k], r, k_of_row, to + col, count_at<kW>(dim, col));
    }
  }
  if constexpr (kWeights) {
    const int64_t group = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      float* to = parts + group * dim + col;
#pragma unroll
      for (int e = 0; e < kW; ++e)
        if (col + e < dim) to[e] = d_w[k][e];
    }
  }
}

template <bool kVector>
__global__ void __launch_bounds__(kMaxThreads) rms_norm_bwd_long_kernel(RmsNormBwd a) {
  __shared__ float scratch[33];
  const int64_t dim = a.shape.dim, step = int64_t{kW} * blockDim.x;
  const float r = a.rstd[blockIdx.x];
  const float* from_x = a.x.data + row_offset(a.shape, blockIdx.x, a.x.stride);
  const float* from_d = a.d_y.data + row_offset(a.shape, blockIdx.x, a.d_y.stride);
  float dot = 0, k = 0, x[kW], g[kW], w[kW];
  const int64_t to = row_offset(a.shape, blockIdx.x, a.d_x.stride);
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t col = int64_t{kW} * threadIdx.x; col < dim; col += step) {
      const int count = count_at<kW>(dim, col);
      load_f32<kW, kVector>(from_x + col, count, x);
      load_f32<kW, kVector>(from_d + col, count, g);
      load_weights<kVector>(a.w, a.w_offset, col, count, w);
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        g[e] *= w[e];
        dot = fmaf(g[e], x[e], dot);
      }
      if (pass == 1) grad_pack<kVector>(a, x, g, r, k, to + col, count);
    }
    if (pass == 0) k = sum_block(dot, scratch) * r * r * r / static_cast<float>(dim);
  }
}

// parts (gridDim.y, dim): the share of d_w of ranges of rows; a thread has a column.
__global__ void __launch_bounds__(256)
    rms_norm_bwd_w_kernel(RmsNormBwd a, int64_t rows, int64_t range, float* parts) {
  const int64_t col = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (col >= a.shape.dim) return;
  const int64_t begin = blockIdx.y * range, end = min(rows, begin + range);
  float sum = 0;
#pragma unroll 4
  for (int64_t row = begin; row < end; ++row) {
    const float x = a.x.data[row_offset(a.shape, row, a.x.stride) + col];
    const float d = a.d_y.data[row_offset(a.shape, row, a.d_y.stride) + col];
    sum = fmaf(d * x, a.rstd[row], sum);
  }
  parts[blockIdx.y * a.shape.dim + col] = sum;
}

// body.operator()<kPacks>(threads of a row, rows of a block)
template <class Body>
void with_row_threads(int64_t dim, int64_t rows, Body&& body) {
  const int64_t packs = ceil_div(dim, kW);
  if (dim > 512)
    return body.template operator()<kMaxPacks>(ceil_div(packs, kMaxPacks * 32) * 32, int64_t{1});
  const int64_t each = dim > 128 ? kMaxPacks : 1;
  int64_t lanes = 1;
  while (lanes * each < packs) lanes *= 2;
  const int64_t in_warp = 32 / lanes, most = 256 / lanes;
  const int64_t in_block = rows < most ? ceil_div(rows, in_warp) * in_warp : most;
  if (each == 1) return body.template operator()<1>(lanes, in_block);
  body.template operator()<kMaxPacks>(lanes, in_block);
}

bool fits(const float* p, int64_t stride) { return aligned(p, stride, DType::kF32, kW); }

}  // namespace

void rms_norm_fwd(const RmsNormFwd& a) {
  const int64_t rows = a.shape.rows(), dim = a.shape.dim;
  if (rows * dim == 0) return;
  const bool vector = dim % kW == 0 && fits(a.x.data, a.x.stride) && fits(a.w, 0) &&
                      aligned(a.y.data, a.y.stride, a.y.dtype, kW);
  if (dim > kInRegisters) {
    launch(vector ? rms_norm_fwd_long_kernel<true> : rms_norm_fwd_long_kernel<false>, grid_of(rows),
           grid_of(kMaxThreads), 0, a);
    return;
  }
  with_row_threads(dim, rows, [&]<int kPacks>(int64_t threads, int64_t in_block) {
    launch(vector ? rms_norm_fwd_kernel<kPacks, true> : rms_norm_fwd_kernel<kPacks, false>,
           grid_of(ceil_div(rows, in_block)), grid_of(threads, in_block), 0, a, rows);
  });
}

void rms_norm_bwd(const RmsNormBwd& a) {
  const int64_t rows = a.shape.rows(), dim = a.shape.dim;
  if (rows * dim == 0) return;
  const bool vector = dim % kW == 0 && fits(a.x.data, a.x.stride) && fits(a.w, 0) &&
                      fits(a.d_y.data, a.d_y.stride) &&
                      aligned(a.d_x.data, a.d_x.stride, a.d_x.dtype, kW);
  if (dim > kInRegisters) {
    if (a.d_w != nullptr) {  // first: d_x may lie on d_y
      const int64_t range = ceil_div(rows, rows < 64 ? rows : 64), ranges = ceil_div(rows, range);
      auto* parts = static_cast<float*>(column_scratch(ranges * dim * 4));
      launch(rms_norm_bwd_w_kernel, grid_of(ceil_div(dim, 256), ranges), grid_of(256), 0, a, rows,
             range, parts);
      add_parts(parts, ranges, dim, a.d_w);
    }
    launch(vector ? rms_norm_bwd_long_kernel<true> : rms_norm_bwd_long_kernel<false>, grid_of(rows),
           grid_of(kMaxThreads), 0, a);
    return;
  }
  with_row_threads(dim, rows, [&]<int kPacks>(int64_t threads, int64_t in_block) {
    const int64_t all = ceil_div(rows, in_block);
    const dim3 block = grid_of(threads, in_block);
    if (a.d_w == nullptr) {
      launch(vector ? rms_norm_bwd_kernel<kPacks, true, false>
                    : rms_norm_bwd_kernel<kPacks, false, false>,
             grid_of(all), block, 0, a, rows, nullptr);
      return;
    }
    // Enough blocks for all multiprocessors, few enough that their shares are cheap to add.
    const int64_t most = in_block == 1 ? 528 : 132, blocks = all < most ? all : most;
    const int64_t groups = blocks * in_block;
    auto* parts = static_cast<float*>(column_scratch(groups * dim * 4));
    launch(
        vector ? rms_norm_bwd_kernel<kPacks, true, true> : rms_norm_bwd_kernel<kPacks, false, true>,
        grid_of(blocks), block, 0, a, rows, parts);
    add_parts(parts, groups, dim, a.d_w);
  });
}

}  // namespace signround::kernels::cuda
