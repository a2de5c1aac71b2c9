#include <numeric>

#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

constexpr int kRows = 2;

// What a token consists of: each head has `turning` units of kW pairs, then `copied` packs.
struct Units {
  int turning, copied;
  int64_t count;  // of all heads
};

__device__ __forceinline__ void turn(float& p, float& q, float cos, float sin) {
  const float was = p;
  p = fmaf(was, cos, -(q * sin));
  q = fmaf(q, cos, was * sin);
}

template <class T, int kW, bool kVector>
__global__ void __launch_bounds__(256) rope_kernel(Rope a, Units units, unsigned seq_len) {
  const bool split = a.style == RopeStyle::kHalfSplit;
  const int per_head = units.turning + units.copied;
  const int half = static_cast<int>(a.rot_dim / 2);
  for (int64_t unit = first_pack(); unit < units.count; unit += pack_step()) {
    const unsigned head = static_cast<unsigned>(unit) / static_cast<unsigned>(per_head);
    const int part = static_cast<int>(unit - int64_t{head} * per_head);
    const bool turns = part < units.turning;
    // Of the pairs of this unit: the packs of a head at first and second, with so many values.
    const int pair = part * kW;
    int first, second, count, second_count;
    if (!turns) {
      first = static_cast<int>(a.rot_dim) + (part - units.turning) * kW, second = 0;
      count = count_at<kW>(a.shape.dim, first), second_count = 0;
    } else if (split) {
      first = pair, second = pair + half;
      count = second_count = count_at<kW>(half, pair);
    } else {
      first = 2 * pair, second = first + kW;
      count = count_at<kW>(2 * half, first), second_count = count_at<kW>(2 * half, second);
    }
    const int64_t base = head * a.shape.dim;
    Raw<T, kW> raw_1[kRows], raw_2[kRows];
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t t = first_row<kRows>() + u * static_cast<int64_t>(blockDim.y);
      const bool inside = t < a.shape.tokens;
      const int64_t at = t * a.x.stride + base;
      raw_1[u] = load<T, kW, kVector>(a.x, at + first, inside ? count : 0);
      raw_2[u] = load<T, kW, kVector>(a.x, at + second, inside ? second_count : 0);
    }
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      const int64_t t = first_row<kRows>() + u * static_cast<int64_t>(blockDim.y);
      if (t >= a.shape.tokens) break;
      float v[kW], w[kW];
      decode(raw_1[u], a.x.dtype, v);
      decode(raw_2[u], a.x.dtype, w);
      if (turns) {
        const int64_t row = (a.offset + static_cast<unsigned>(t) % seq_len) * half + pair;
        float cos[kW], sin[kW];
        load_f32<kW, kVector>(a.cos + row, count_at<kW>(half, pair), cos);
        load_f32<kW, kVector>(a.sin + row, count_at<kW>(half, pair), sin);
        const float sign = a.inverse ? -1.0f : 1.0f;
        if (split) {
#pragma unroll
          for (int e = 0; e < kW; ++e) turn(v[e], w[e], cos[e], sign * sin[e]);
        } else {
#pragma unroll
          for (int e = 0; e < kW / 2; ++e) {
            turn(v[2 * e], v[2 * e + 1], cos[e], sign * sin[e]);
            turn(w[2 * e], w[2 * e + 1], cos[e + kW / 2], sign * sin[e + kW / 2]);
          }
        }
      }
      const int64_t at = t * a.y.stride + base;
      if (a.accumulate) {
        float before[kW];
        load_f32<kW, kVector>(static_cast<const float*>(a.y.data) + at + first, count, before);
#pragma unroll
        for (int e = 0; e < kW; ++e) v[e] += before[e];
        load_f32<kW, kVector>(static_cast<const float*>(a.y.data) + at + second, second_count,
                              before);
#pragma unroll
        for (int e = 0; e < kW; ++e) w[e] += before[e];
      }
      store<kW, kVector>(a.y, at + first, count, v);
      store<kW, kVector>(a.y, at + second, second_count, w);
    }
  }
}

}  // namespace

void rope(const Rope& a) {
  if (a.shape.tokens * a.shape.dim == 0) return;
  const int64_t half = a.rot_dim / 2, dim = a.shape.dim;
  const bool tables_fit =
      aligned(a.cos, half, DType::kF32, 4) && aligned(a.sin, half, DType::kF32, 4);
  const bool in_place =
      a.x.data == a.y.data && a.x.dtype == a.y.dtype && a.x.stride == a.y.stride && !a.accumulate;
  const int64_t period = a.seq_len < a.shape.tokens ? a.seq_len : a.shape.tokens;
  with_packs({a.x}, {a.y}, half == 0 || tables_fit ? std::gcd(half, dim) : 1,
             [&]<class T, int kW, bool kVector>() {
               Units units{static_cast<int>(ceil_div(half, kW)),
                           static_cast<int>(in_place ? 0 : ceil_div(dim - a.rot_dim, kW)), 0};
               units.count = a.shape.heads * (units.turning + units.copied);
               if (units.count == 0) return;
               const Threads t = threads_for(a.shape.tokens, units.count, kRows);
               launch(rope_kernel<T, kW, kVector>, t.grid, t.block, 0, a, units,
                      static_cast<unsigned>(period));
             });
}

}  // namespace signround::kernels::cuda
