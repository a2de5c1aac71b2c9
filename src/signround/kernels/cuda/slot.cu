#include <cmath>

#include "signround/base/error.h"
#include "signround/kernels/cuda/launch.h"
#include "signround/kernels/cuda/range_grid.cuh"
#include "signround/kernels/slot_cuda.h"

namespace signround::kernels::cuda {
namespace {

using namespace signround::cuda;

constexpr int kThreads = 256;
constexpr int kWide = 8;  // weights that a thread loads at once, where all is aligned to that

struct Shape {
  int64_t groups_all, in, group, groups;
};

// ---- values in registers ----
template <int kCount>
struct Values {
  float v[kCount];
};

__device__ __forceinline__ void load(const float* p, Values<1>& x) { x.v[0] = *p; }
__device__ __forceinline__ void load(const uint16_t* p, Values<1>& x) {
  x.v[0] = bf16_to_f32(*p);
}
__device__ __forceinline__ void load(const float* p, Values<8>& x) {
  const float4 a = reinterpret_cast<const float4*>(p)[0], b = reinterpret_cast<const float4*>(p)[1];
  x.v[0] = a.x, x.v[1] = a.y, x.v[2] = a.z, x.v[3] = a.w;
  x.v[4] = b.x, x.v[5] = b.y, x.v[6] = b.z, x.v[7] = b.w;
}
__device__ __forceinline__ void load(const uint16_t* p, Values<8>& x) {
  const uint4 a = *reinterpret_cast<const uint4*>(p);
  x.v[0] = low_bf16(a.x), x.v[1] = high_bf16(a.x), x.v[2] = low_bf16(a.y), x.v[3] = high_bf16(a.y);
  x.v[4] = low_bf16(a.z), x.v[5] = high_bf16(a.z), x.v[6] = low_bf16(a.w), x.v[7] = high_bf16(a.w);
}
__device__ __forceinline__ void store(float* p, const Values<1>& x) { *p = x.v[0]; }
__device__ __forceinline__ void store(uint16_t* p, const Values<1>& x) { *p = f32_to_bf16(x.v[0]); }
__device__ __forceinline__ void store(float* p, const Values<8>& x) {
  reinterpret_cast<float4*>(p)[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}
__device__ __forceinline__ void store(uint16_t* p, const Values<8>& x) {
  *reinterpret_cast<uint4*>(p) =
      make_uint4(pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3]), pack_bf16(x.v[4], x.v[5]),
                 pack_bf16(x.v[6], x.v[7]));
}

template <int kCount>
struct Offsets16 {
  int v[kCount];
};
__device__ __forceinline__ void load(const int16_t* p, Offsets16<1>& x) { x.v[0] = *p; }
__device__ __forceinline__ void load(const int16_t* p, Offsets16<8>& x) {
  const uint4 a = *reinterpret_cast<const uint4*>(p);
  const unsigned words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x.v[2 * i] = static_cast<int16_t>(words[i] & 0xffffu);
    x.v[2 * i + 1] = static_cast<int>(words[i]) >> 16;
  }
}
__device__ __forceinline__ void store(int16_t* p, const Offsets16<1>& x) {
  *p = static_cast<int16_t>(x.v[0]);
}
__device__ __forceinline__ void store(int16_t* p, const Offsets16<8>& x) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i)
    words[i] = (static_cast<unsigned>(x.v[2 * i]) & 0xffffu) |
               static_cast<unsigned>(x.v[2 * i + 1]) << 16;
  *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
}

// ---- grids (quant/grid.h) ----
// Gradients of alpha and beta from the sums of a group.
__device__ inline float2 range_grad(const RangeGridRule& r, float min, float max, float alpha,
                                    float beta, float d_scale, float d_clamped) {
  const Grid grid = range_grid(r, min, max, alpha, beta);
  const float max_code = static_cast<float>((1 << r.bits) - 1);
  const float lo = __fmul_rn(min, alpha), hi = __fmul_rn(max, beta);
  float d_lo = 0, d_hi = 0, d_larger = 0;
  if (!grid.zero_held) {
    d_lo += d_clamped;
    d_scale = __fadd_rn(d_scale, -__fmul_rn(d_clamped, __fdiv_rn(lo, grid.scale)));
  }
  if (grid.floored) d_scale = 0;
  if (r.rule == RangeRule::kFullRange) {
    d_larger = (hi < -lo ? d_scale : -d_scale) / static_cast<float>(1 << (r.bits - 1));
  } else if (r.rule == RangeRule::kAsym) {
    d_hi += d_scale / max_code;
    d_lo -= d_scale / max_code;
  } else {
    d_larger = (lo < 0 ? 2 * d_scale : d_scale) / max_code;
    if (!(lo < 0)) d_lo -= d_scale / max_code;
  }
  d_lo -= -lo == hi ? d_larger * 0.5f : -lo > hi ? d_larger : 0.0f;
  d_hi += -lo == hi ? d_larger * 0.5f : -lo > hi ? 0.0f : d_larger;
  return make_float2(min * d_lo, max * d_hi);
}

__device__ __forceinline__ float free_scale(float start, float t, const ScaleLimits& limits) {
  return t == 0 ? start : limited(__fmul_rn(start, expf(t)), limits);
}

// q of one weight, not clamped: round(w / scale + unit v).
__device__ __forceinline__ float quantized(float x, float unit, int v) {
  return rintf(__fadd_rn(x, __fmul_rn(unit, static_cast<float>(v))));
}

// ---- kernels: `lanes` threads of a warp for each group ----
struct Place {
  int64_t k;       // group
  int64_t at;      // its first weight
  int64_t row, column;
  int n, lane;
  bool inside;
};
__device__ __forceinline__ Place place_of(const Shape& s, int lanes) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  Place p{};
  p.k = thread / lanes;
  p.lane = static_cast<int>(thread % lanes);
  p.inside = p.k < s.groups_all;
  if (!p.inside) p.k = s.groups_all - 1;
  p.row = p.k / s.groups;
  p.column = p.k % s.groups * s.group;
  p.at = p.row * s.in + p.column;
  p.n = static_cast<int>(s.in - p.column < s.group ? s.in - p.column : s.group);
  if (!p.inside) p.n = 0;
  return p;
}

template <class W>
__global__ void __launch_bounds__(kThreads) extent_kernel(Shape shape, const W* w, float* min, float* max) {
  const Place p = place_of(shape, 32);
  float least = 0, most = 0;
  for (int i = p.lane; i < p.n; i += 32) {
    Values<1> x;
    load(w + p.at + i, x);
    least = fminf(least, x.v[0]);
    most = fmaxf(most, x.v[0]);
  }
  least = -max_lanes(-least);
  most = max_lanes(most);
  if (p.inside && p.lane == 0) min[p.k] = least, max[p.k] = most;
}

__global__ void __launch_bounds__(kThreads) ranges_kernel(RangeGridRule rule, int64_t n, const float* min, const float* max,
                              const float* alpha, const float* beta, float* scale, float* zero) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k >= n) return;
  const Grid grid = range_grid(rule, min[k], max[k], alpha[k], beta[k]);
  scale[k] = grid.scale;
  zero[k] = grid.zero;
}

__global__ void __launch_bounds__(kThreads) scales_kernel(ScaleLimits limits, int64_t n, const float* start, const float* t,
                              float* scale) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (k < n) scale[k] = free_scale(start[k], t[k], limits);
}

// kCodes: uint8_t codes instead of weights.
template <int kCount, bool kCodes, class W, class Out>
__global__ void __launch_bounds__(kThreads) write_kernel(Shape shape, int lanes, const W* w, const int16_t* v, float unit,
                             const float* scales, const float* zeros, float max_code, Out* out,
                             int64_t stride) {
  const Place p = place_of(shape, lanes);
  const float scale = scales[p.k], zero = zeros[p.k];
  const float lo = __fadd_rn(0.0f, -zero), hi = __fadd_rn(max_code, -zero);
  for (int i = p.lane * kCount; i < p.n; i += lanes * kCount) {
    Values<kCount> x;
    Offsets16<kCount> offset{};
    load(w + p.at + i, x);
    if (v != nullptr) load(v + p.at + i, offset);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float q =
          fminf(fmaxf(quantized(__fdiv_rn(x.v[j], scale), unit, offset.v[j]), lo), hi);
      if constexpr (kCodes)
        out[p.at + i + j] = static_cast<uint8_t>(__fadd_rn(q, zero));
      else
        x.v[j] = __fmul_rn(scale, q);
    }
    if constexpr (!kCodes) store(out + p.row * stride + p.column + i, x);
  }
}

// kHeldInRegisters: a group's weights and offsets, at most kCount for each lane, are read once.
template <int kCount, bool kHeldInRegisters, class W, class D, class Out>
__global__ void __launch_bounds__(kThreads)
    step_kernel(Shape shape, int lanes, const W* w, SlotStep s, float* scales, float* zeros,
                float max_code, const D* d_weight, int64_t d_stride, Out* out, int64_t stride) {
  const Place p = place_of(shape, lanes);
  float scale = scales[p.k], zero = zeros[p.k];
  float lo = __fadd_rn(0.0f, -zero), hi = __fadd_rn(max_code, -zero);
  float d_scale = 0, d_clamped = 0;
  Values<kCount> x{}, d{};
  Offsets16<kCount> offset{};
  for (int i = p.lane * kCount; i < p.n; i += lanes * kCount) {
    load(w + p.at + i, x);
    load(s.v + p.at + i, offset);
    load(d_weight + p.row * d_stride + p.column + i, d);
#pragma unroll
    for (int j = 0; j < kCount; ++j) {
      const float at = __fdiv_rn(x.v[j], scale);
      const float r = quantized(at, s.unit, offset.v[j]);
      const float q = fminf(fmaxf(r, lo), hi);
      const bool inside = q == r;
      d_scale = __fadd_rn(d_scale, __fmul_rn(d.v[j], __fadd_rn(q, inside ? -at : 0.0f)));
      d_clamped = __fadd_rn(d_clamped, inside ? 0.0f : d.v[j]);
      float d_v = inside ? __fmul_rn(d.v[j], scale) : 0.0f;
      if (s.buffer != nullptr) {
        float& buffer = s.buffer[p.at + i + j];
        d_v = buffer = __fadd_rn(__fmul_rn(s.momentum, buffer), d_v);
      }
      const int moved = offset.v[j] - (d_v > 0 ? s.units : d_v < 0 ? -s.units : 0);
      offset.v[j] = moved < -32768 ? -32768 : moved > 32767 ? 32767 : moved;
    }
    store(s.next + p.at + i, offset);
  }
  d_scale = sum_lanes(d_scale, lanes);
  d_clamped = sum_lanes(d_clamped, lanes);
  // Every lane computes the same; the first one stores it.
  if (s.scales == SlotStep::Scales::kFree) {
    float t = s.t[p.k];
    ScaleMoments m = s.moments[p.k];
    t = __fadd_rn(t, adam_change_of(m, static_cast<double>(d_scale) * static_cast<double>(scale),
                                    s.scale_lr));
    scale = free_scale(s.start[p.k], t, s.limits);
    __syncwarp();
    if (p.inside && p.lane == 0) s.t_next[p.k] = t, s.moments[p.k] = m, scales[p.k] = scale;
  } else if (s.scales == SlotStep::Scales::kRange) {
    const float min = s.min[p.k], max = s.max[p.k];
    float alpha = s.alpha[p.k], beta = s.beta[p.k];
    const float2 g = range_grad(s.rule, min, max, alpha, beta, d_scale, d_clamped);
    float d_alpha = g.x, d_beta = g.y;
    if (s.alpha_buffer != nullptr) {
      d_alpha = __fadd_rn(__fmul_rn(s.momentum, s.alpha_buffer[p.k]), d_alpha);
      d_beta = __fadd_rn(__fmul_rn(s.momentum, s.beta_buffer[p.k]), d_beta);
    }
    const float move_a = d_alpha > 0 ? s.factor_lr : d_alpha < 0 ? -s.factor_lr : 0.0f;
    const float move_b = d_beta > 0 ? s.factor_lr : d_beta < 0 ? -s.factor_lr : 0.0f;
    alpha = fminf(fmaxf(__fadd_rn(alpha, -move_a), 0.0f), 1.0f);
    beta = fminf(fmaxf(__fadd_rn(beta, -move_b), 0.0f), 1.0f);
    const Grid grid = range_grid(s.rule, min, max, alpha, beta);
    scale = grid.scale;
    zero = grid.zero;
    __syncwarp();
    if (p.inside && p.lane == 0) {
      s.alpha_next[p.k] = alpha, s.beta_next[p.k] = beta;
      scales[p.k] = scale, zeros[p.k] = zero;
      if (s.alpha_buffer != nullptr) s.alpha_buffer[p.k] = d_alpha, s.beta_buffer[p.k] = d_beta;
    }
  }
  lo = __fadd_rn(0.0f, -zero), hi = __fadd_rn(max_code, -zero);
  for (int i = p.lane * kCount; i < p.n; i += lanes * kCount) {
    if constexpr (!kHeldInRegisters) {
      load(w + p.at + i, x);
      load(s.next + p.at + i, offset);
    }
#pragma unroll
    for (int j = 0; j < kCount; ++j)
      d.v[j] = __fmul_rn(
          scale, fminf(fmaxf(quantized(__fdiv_rn(x.v[j], scale), s.unit, offset.v[j]), lo), hi));
    store(out + p.row * stride + p.column + i, d);
  }
}

Shape shape_of(const SlotWeights& s) { return {s.all_groups(), s.in, s.group, s.groups()}; }

bool aligned(const void* p, int64_t bytes) {
  return p == nullptr || reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}
// Can threads load kWide weights at once?
bool wide(const SlotWeights& s) {
  return s.group % kWide == 0 && s.in % kWide == 0 && aligned(s.w, 16);
}
bool wide(const void* data, int64_t stride) { return stride % kWide == 0 && aligned(data, 16); }

// Threads for a group: as few as hold all of it, at most a warp.
int lanes_of(const SlotWeights& s, int count) {
  const int64_t group = std::min(s.group, s.in);
  int lanes = 1;
  while (lanes < 32 && lanes * count < group) lanes *= 2;
  return lanes;
}

dim3 blocks_of(const SlotWeights& s, int lanes) {
  return grid_of(ceil_div(s.all_groups() * lanes, kThreads));
}

// body(pointer) with the element type that the data has.
template <class Body>
void with_type(DType dtype, const void* data, Body&& body) {
  if (dtype == DType::kF32)
    body(static_cast<const float*>(data));
  else
    body(static_cast<const uint16_t*>(data));
}
template <class Body>
void with_type(DType dtype, void* data, Body&& body) {
  if (dtype == DType::kF32)
    body(static_cast<float*>(data));
  else
    body(static_cast<uint16_t*>(data));
}

}  // namespace

void slot_extent(const SlotWeights& s, float* min, float* max) {
  with_type(s.dtype, s.w, [&](const auto* w) {
    using W = std::remove_cvref_t<decltype(*w)>;
    launch(extent_kernel<W>, blocks_of(s, 32), dim3(kThreads), 0, shape_of(s), w, min, max);
  });
}

void slot_ranges(const RangeGridRule& rule, int64_t n, const float* min, const float* max,
                 const float* alpha, const float* beta, SlotGrid grid) {
  launch(ranges_kernel, grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, rule, n, min, max, alpha,
         beta, grid.scale, grid.zero);
}

void slot_scales(const ScaleLimits& limits, int64_t n, const float* start, const float* t,
                 float* scale) {
  launch(scales_kernel, grid_of(ceil_div(n, kThreads)), dim3(kThreads), 0, limits, n, start, t,
         scale);
}

void slot_write(const SlotWeights& s, const int16_t* v, float unit, SlotGrid grid, RowsOut weight) {
  const float max_code = static_cast<float>(grid.max_code);
  with_type(s.dtype, s.w, [&](const auto* w) {
    using W = std::remove_cvref_t<decltype(*w)>;
    with_type(weight.dtype, weight.data, [&](auto* out) {
      using Out = std::remove_cvref_t<decltype(*out)>;
      const bool at_once = wide(s) && aligned(v, 16) && wide(weight.data, weight.stride);
      const int lanes = lanes_of(s, at_once ? kWide : 1);
      launch(at_once ? write_kernel<kWide, false, W, Out> : write_kernel<1, false, W, Out>,
             blocks_of(s, lanes), dim3(kThreads), 0, shape_of(s), lanes, w, v, unit, grid.scale,
             grid.zero, max_code, out, weight.stride);
    });
  });
}

void slot_codes(const SlotWeights& s, const int16_t* v, float unit, SlotGrid grid, uint8_t* codes) {
  const float max_code = static_cast<float>(grid.max_code);
  with_type(s.dtype, s.w, [&](const auto* w) {
    using W = std::remove_cvref_t<decltype(*w)>;
    const int lanes = lanes_of(s, 1);
    launch(write_kernel<1, true, W, uint8_t>, blocks_of(s, lanes), dim3(kThreads), 0, shape_of(s),
           lanes, w, v, unit, grid.scale, grid.zero, max_code, codes, s.in);
  });
}

void slot_step(const SlotWeights& s, const SlotStep& step, SlotGrid grid, RowsAny d_weight,
               RowsOut weight) {
  const float max_code = static_cast<float>(grid.max_code);
  const bool at_once = wide(s) && aligned(step.v, 16) && aligned(step.next, 16) &&
                       wide(weight.data, weight.stride) && wide(d_weight.data, d_weight.stride);
  const int count = at_once ? kWide : 1, lanes = lanes_of(s, count);
  const bool held = lanes * count >= std::min(s.group, s.in);
  with_type(s.dtype, s.w, [&](const auto* w) {
    using W = std::remove_cvref_t<decltype(*w)>;
    with_type(d_weight.dtype, d_weight.data, [&](const auto* d) {
      using D = std::remove_cvref_t<decltype(*d)>;
      with_type(weight.dtype, weight.data, [&](auto* out) {
        using Out = std::remove_cvref_t<decltype(*out)>;
        const auto kernel = at_once ? held ? step_kernel<kWide, true, W, D, Out>
                                           : step_kernel<kWide, false, W, D, Out>
                            : held  ? step_kernel<1, true, W, D, Out>
                                    : step_kernel<1, false, W, D, Out>;
        launch(kernel, blocks_of(s, lanes), dim3(kThreads), 0, shape_of(s), lanes, w, step,
               grid.scale, grid.zero, max_code, d, d_weight.stride, out, weight.stride);
      });
    });
  });
}

}  // namespace signround::kernels::cuda
