#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

template <bool kVector>
constexpr int kRowsEach = kVector ? 2 : 1;  // more would not fit into registers

struct ValueAndSlope {
  float value, slope;
};

// kernels/cpu/activation_ref.h. Products that are added to are written as fmaf, so that the
// compiler has no choice: all instances of a kernel give the same bits.
struct Sigmoid {
  float s, rest;
};
__device__ __forceinline__ Sigmoid sigmoid(float z) {
  const float e = expf(-fabsf(z)), inverse = __fdividef(1.0f, __fadd_rn(1.0f, e)),
              small = e * inverse;
  return z >= 0 ? Sigmoid{inverse, small} : Sigmoid{small, inverse};
}

template <Activation kKind>
__device__ __forceinline__ ValueAndSlope activate(float x) {
  if constexpr (kKind == Activation::kSilu) {
    const Sigmoid f = sigmoid(x);
    return {x * f.s, f.s * fmaf(x, f.rest, 1.0f)};
  }
  if constexpr (kKind == Activation::kGeluTanh) {
    constexpr float kScale = 2 * 0.79788456080286535588f, kCube = 0.044715f;
    if (x > 30) return {x, 1};
    if (x < -30) return {0, 0};
    const float square = x * x;
    const Sigmoid f = sigmoid(kScale * x * fmaf(kCube, square, 1.0f));
    const float d_inner = kScale * fmaf(3 * kCube, square, 1.0f);
    return {x * f.s, f.s * fmaf(x * f.rest, d_inner, 1.0f)};
  }
  if constexpr (kKind == Activation::kGeluErf) {
    const float phi = 0.5f * erfcf(-x * 0.70710678118654752440f);
    const float density = expf(-0.5f * x * x) * 0.39894228040143267794f;
    return {x * phi, fmaf(x, density, phi)};
  }
  if constexpr (kKind == Activation::kRelu) return {x > 0 ? x : 0.0f, x > 0 ? 1.0f : 0.0f};
  return {x > 0 ? x * x : 0.0f, x > 0 ? x + x : 0.0f};
}

template <Activation kKind, class T, int kW, bool kVector>
__global__ void __launch_bounds__(256) act_fwd_kernel(ActFwd a, int64_t n) {
  constexpr int kRows = kRowsEach<kVector>;
  const bool gated = a.up.data != nullptr;
  for (int64_t pack = first_pack(); pack * kW < a.cols; pack += pack_step()) {
    const int64_t col = pack * kW;
    const int count = count_at<kW>(a.cols, col);
    const int64_t first = first_row<kRows>();
    Raw<T, kW> raw_x[kRows], raw_up[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      const int of_row = i < n ? count : 0;
      raw_x[u] = load<T, kW, kVector>(a.x, i * a.x.stride + col, of_row);
      raw_up[u] = load<T, kW, kVector>(a.up, i * a.up.stride + col, gated ? of_row : 0);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      if (i >= n) break;
      float x[kW], up[kW], y[kW];
      decode(raw_x[u], a.x.dtype, x);
      decode(raw_up[u], a.up.dtype, up);
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        const float f = activate<kKind>(x[e]).value;
        y[e] = gated ? f * up[e] : f;
      }
      store<kW, kVector>(a.y, i * a.y.stride + col, count, y);
    }
  }
}

template <Activation kKind, class T, int kW, bool kVector>
__global__ void __launch_bounds__(256) act_bwd_kernel(ActBwd a, int64_t n) {
  constexpr int kRows = kRowsEach<kVector>;
  const bool gated = a.up.data != nullptr;
  for (int64_t pack = first_pack(); pack * kW < a.cols; pack += pack_step()) {
    const int64_t col = pack * kW;
    const int count = count_at<kW>(a.cols, col);
    const int64_t first = first_row<kRows>();
    Raw<T, kW> raw_x[kRows], raw_up[kRows], raw_d[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      const int of_row = i < n ? count : 0;
      raw_x[u] = load<T, kW, kVector>(a.x, i * a.x.stride + col, of_row);
      raw_d[u] = load<T, kW, kVector>(a.d_y, i * a.d_y.stride + col, of_row);
      raw_up[u] = load<T, kW, kVector>(a.up, i * a.up.stride + col, gated ? of_row : 0);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t i = first + u * static_cast<int64_t>(blockDim.y);
      if (i >= n) break;
      float x[kW], up[kW], d[kW], d_x[kW];
      decode(raw_x[u], a.x.dtype, x);
      decode(raw_up[u], a.up.dtype, up);
      decode(raw_d[u], a.d_y.dtype, d);
      // fwd: y = f(x) up. d becomes the gradient of up.
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        const ValueAndSlope f = activate<kKind>(x[e]);
        d_x[e] = d[e] * (gated ? up[e] : 1.0f) * f.slope;
        d[e] *= f.value;
      }
      const int64_t at_x = i * a.d_x.stride + col, at_up = i * a.d_up.stride + col;
      if (a.accumulate) {
        float before[kW];
        load_f32<kW, kVector>(static_cast<const float*>(a.d_x.data) + at_x, count, before);
#pragma unroll
        for (int e = 0; e < kW; ++e) d_x[e] += before[e];
        if (gated) {
          load_f32<kW, kVector>(static_cast<const float*>(a.d_up.data) + at_up, count, before);
#pragma unroll
          for (int e = 0; e < kW; ++e) d[e] += before[e];
        }
      }
      store<kW, kVector>(a.d_x, at_x, count, d_x);
      if (gated) store<kW, kVector>(a.d_up, at_up, count, d);
    }
  }
}

// body.operator()<kind>()
template <class Body>
void with_kind(Activation kind, Body&& body) {
  switch (kind) {
    case Activation::kSilu:
      return body.template operator()<Activation::kSilu>();
    case Activation::kGeluTanh:
      return body.template operator()<Activation::kGeluTanh>();
    case Activation::kGeluErf:
      return body.template operator()<Activation::kGeluErf>();
    case Activation::kRelu:
      return body.template operator()<Activation::kRelu>();
    case Activation::kReluSquared:
      return body.template operator()<Activation::kReluSquared>();
  }
}

}  // namespace

void act_fwd(const ActFwd& a, int64_t n) {
  if (n * a.cols == 0) return;
  with_kind(a.kind, [&]<Activation kKind>() {
    with_packs({a.x, a.up}, {a.y}, a.cols, [&]<class T, int kW, bool kVector>() {
      const Threads t = threads_for(n, ceil_div(a.cols, kW), kRowsEach<kVector>);
      launch(act_fwd_kernel<kKind, T, kW, kVector>, t.grid, t.block, 0, a, n);
    });
  });
}

void act_bwd(const ActBwd& a, int64_t n) {
  if (n * a.cols == 0) return;
  with_kind(a.kind, [&]<Activation kKind>() {
    with_packs({a.x, a.up, a.d_y}, {a.d_x, a.d_up}, a.cols, [&]<class T, int kW, bool kVector>() {
      const Threads t = threads_for(n, ceil_div(a.cols, kW), kRowsEach<kVector>);
      launch(act_bwd_kernel<kKind, T, kW, kVector>, t.grid, t.block, 0, a, n);
    });
  });
}

}  // namespace signround::kernels::cuda
