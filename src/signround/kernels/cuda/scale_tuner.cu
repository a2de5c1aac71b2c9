#include "signround/kernels/scale_tuner_cuda.h"

#include <cmath>

#include "signround/kernels/cuda/launch.h"
#include "signround/kernels/cuda/range_grid.cuh"

namespace signround::kernels::cuda {
namespace {

using namespace signround::cuda;

constexpr int kThreads = 256;
constexpr int kWide = 8;   // weights that a thread writes at once, where all is aligned to that
constexpr int kSums = 16;  // partial sums of a group, as on the host

struct Shape {
  int64_t groups_all, in, group, groups;
};

// Where a thread is: one of `lanes` threads of a group.
struct Place {
  int64_t k, row, column;  // of the group; the row and the column where it begins
  int n, lane;             // its weights; 0 behind the last group
};
__device__ __forceinline__ Place place_of(const Shape& s, int lanes) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  Place p{};
  p.k = thread / lanes;
  p.lane = static_cast<int>(thread % lanes);
  const bool inside = p.k < s.groups_all;
  if (!inside) p.k = s.groups_all - 1;
  p.row = p.k / s.groups;
  p.column = p.k % s.groups * s.group;
  p.n = inside ? static_cast<int>(s.in - p.column < s.group ? s.in - p.column : s.group) : 0;
  return p;
}

__device__ __forceinline__ void store_wide(float* p, const float (&v)[kWide]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}
__device__ __forceinline__ void store_wide(uint16_t* p, const float (&v)[kWide]) {
  *reinterpret_cast<uint4*>(p) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                                            pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}
__device__ __forceinline__ void store_one(float* p, float v) { *p = v; }
__device__ __forceinline__ void store_one(uint16_t* p, float v) { *p = f32_to_bf16(v); }
__device__ __forceinline__ float value_of(float v) { return v; }
__device__ __forceinline__ float value_of(uint16_t v) { return bf16_to_f32(v); }

template <bool kAtOnce, class Out>
__global__ void __launch_bounds__(kThreads)
    write_kernel(Shape shape, int lanes, const uint8_t* codes, const uint8_t* zeros,
                 const float* scales, Out* out, int64_t stride) {
  const Place p = place_of(shape, lanes);
  const float scale = scales[p.k], zero = static_cast<float>(zeros[p.k]);
  const uint8_t* from = codes + p.row * shape.in + p.column;
  Out* to = out + p.row * stride + p.column;
  if constexpr (kAtOnce) {
    for (int i = p.lane * kWide; i < p.n; i += lanes * kWide) {
      const uint2 eight = *reinterpret_cast<const uint2*>(from + i);
      float v[kWide];
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const unsigned code = (j < 4 ? eight.x : eight.y) >> 8 * (j % 4) & 0xffu;
        v[j] = __fmul_rn(scale, __fadd_rn(static_cast<float>(code), -zero));
      }
      store_wide(to + i, v);
    }
  } else {
    for (int i = p.lane; i < p.n; i += lanes)
      store_one(to + i, __fmul_rn(scale, __fadd_rn(static_cast<float>(from[i]), -zero)));
  }
}

// Lane l of a group's kSums lanes has the sum of its elements l, l + kSums, ...
template <class D>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Shape shape, const uint8_t* codes, const uint8_t* zeros, const D* d_weight,
                int64_t stride, CodesStep step) {
  const Place p = place_of(shape, kSums);
  const float zero = static_cast<float>(zeros[p.k]);
  const uint8_t* q = codes + p.row * shape.in + p.column;
  const D* d = d_weight + p.row * stride + p.column;
  float sum = 0;
#pragma unroll 4
  for (int i = p.lane; i < p.n; i += kSums)
    sum = __fadd_rn(
        sum, __fmul_rn(value_of(d[i]), __fadd_rn(static_cast<float>(q[i]), -zero)));
  double all = 0;
#pragma unroll
  for (int l = 0; l < kSums; ++l)
    all += static_cast<double>(__shfl_sync(0xffffffffu, sum, l, kSums));
  if (p.n == 0 || p.lane != 0) return;
  ScaleMoments m = step.moments[p.k];
  const float t =
      __fadd_rn(step.t[p.k], adam_change_of(m, all * static_cast<double>(step.scale[p.k]), step.lr));
  step.moments[p.k] = m;
  step.t[p.k] = t;
  const float start = step.start[p.k];
  step.scale[p.k] = t == 0 ? start : limited(__fmul_rn(start, expf(t)), step.limits);
}

__global__ void __launch_bounds__(kThreads)
    factors_step_kernel(int64_t n, const float* gradient, const float* value, float offset,
                        double lr, ScaleMoments* moments, float* t) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n) return;
  ScaleMoments m = moments[i];
  const double by_log =
      static_cast<double>(gradient[i]) * static_cast<double>(__fadd_rn(value[i], offset));
  t[i] = __fadd_rn(t[i], adam_change_of(m, by_log, lr));
  moments[i] = m;
}

__global__ void __launch_bounds__(kThreads)
    factors_apply_kernel(int64_t n, const float* t, float offset, float* value) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < n)
    value[i] = __fadd_rn(__fmul_rn(__fadd_rn(value[i], offset), expf(t[i])), -offset);
}

Shape shape_of(const Codes& c) { return {c.all_groups(), c.in, c.group, c.groups()}; }

dim3 blocks_of(int64_t threads) { return grid_of(ceil_div(threads, kThreads)); }

bool aligned(const void* p, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

template <class Out>
void write(const Codes& c, const float* scale, Out* out, int64_t stride) {
  const bool at_once = c.group % kWide == 0 && c.in % kWide == 0 && stride % kWide == 0 &&
                       aligned(c.codes, kWide) && aligned(out, 16);
  const int64_t weights = std::min(c.group, c.in);
  int lanes = 1;  // as few as hold all of a group, at most a warp
  while (lanes < 32 && lanes * (at_once ? kWide : 1) < weights) lanes *= 2;
  launch(at_once ? write_kernel<true, Out> : write_kernel<false, Out>,
         blocks_of(c.all_groups() * lanes), dim3(kThreads), 0, shape_of(c), lanes, c.codes, c.zeros,
         scale, out, stride);
}

}  // namespace

void codes_write(const Codes& c, const float* scale, RowsOut weight) {
  if (weight.dtype == DType::kF32)
    write(c, scale, static_cast<float*>(weight.data), weight.stride);
  else
    write(c, scale, static_cast<uint16_t*>(weight.data), weight.stride);
}

void codes_step(const Codes& c, RowsAny d_weight, const CodesStep& step) {
  const auto run = [&]<class D>(const D* d) {
    launch(step_kernel<D>, blocks_of(c.all_groups() * kSums), dim3(kThreads), 0, shape_of(c),
           c.codes, c.zeros, d, d_weight.stride, step);
  };
  if (d_weight.dtype == DType::kF32)
    run(static_cast<const float*>(d_weight.data));
  else
    run(static_cast<const uint16_t*>(d_weight.data));
}

void factors_step(int64_t n, const float* gradient, const float* value, float offset, double lr,
                  ScaleMoments* moments, float* t) {
  launch(factors_step_kernel, blocks_of(n), dim3(kThreads), 0, n, gradient, value, offset, lr,
         moments, t);
}

void factors_apply(int64_t n, const float* t, float offset, float* value) {
  launch(factors_apply_kernel, blocks_of(n), dim3(kThreads), 0, n, t, offset, value);
}

}  // namespace signround::kernels::cuda
