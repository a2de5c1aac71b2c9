// See kernels/cpu/xent.cc for why these are accurate.
#include <cmath>

#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/rows.cuh"

namespace signround::kernels::cuda {
namespace {

constexpr int kW = 4, kMaxThreads = 512;

struct LargerOf {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct SmallerOf {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

// v of all threads of a block, combined; all get it.
template <class T, class Combine>
__device__ __forceinline__ T combine_block(T v, T none, Combine combine, T* scratch) {
  const int warps = static_cast<int>(blockDim.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int mask = 16; mask > 0; mask /= 2) v = combine(v, __shfl_xor_sync(0xffffffffu, v, mask));
  __syncthreads();
  if (lane == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  v = lane < warps ? scratch[lane] : none;
  for (int mask = 16; mask > 0; mask /= 2) v = combine(v, __shfl_xor_sync(0xffffffffu, v, mask));
  return v;
}

struct Scratch {
  double sums[33];
  float floats[33];
  int ints[33];
};

// All threads of the block get what the row says; it is read once. Each thread has the largest of
// its logits so far and the sum of the exponentials relative to that.
template <bool kVector>
__device__ XentRow score(const float* x, int64_t vocab, int64_t target, Scratch& scratch) {
  constexpr int kPacks = 4;
  constexpr int kNone = 0x7fffffff;
  float largest = -INFINITY;
  int place = kNone, bad_place = kNone;
  double sum = 0;
  for (int64_t begin = 0; begin < vocab; begin += int64_t{kPacks * kW} * blockDim.x) {
    float v[kPacks][kW];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      const int count = count_at<kW>(vocab, col);
      load_f32<kW, kVector>(x + col, count, v[k]);
#pragma unroll
      for (int e = 0; e < kW; ++e)
        if (e >= count) v[k][e] = -INFINITY;
    }
    bool bad = false;
    float top = -INFINITY;
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        bad |= !(v[k][e] < INFINITY);
        top = fmaxf(top, v[k][e]);
      }
    if (bad || top > largest) {
      int first = kNone;
#pragma unroll
      for (int k = kPacks - 1; k >= 0; --k)
#pragma unroll
        for (int e = kW - 1; e >= 0; --e) {
          const int at = static_cast<int>(begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW) + e;
          if (bad ? !(v[k][e] < INFINITY) : v[k][e] == top) first = at;
        }
      if (bad && bad_place == kNone) bad_place = first;
      if (!bad) {
        sum *= exp(static_cast<double>(largest) - static_cast<double>(top));
        largest = top, place = first;
      }
    }
    if (bad || largest == -INFINITY) continue;
    float terms = 0;
#pragma unroll
    for (int k = 0; k < kPacks; ++k)
      terms += (expf(v[k][0] - largest) + expf(v[k][1] - largest)) +
               (expf(v[k][2] - largest) + expf(v[k][3] - largest));
    sum += static_cast<double>(terms);
  }
  const float max = combine_block(largest, -INFINITY, LargerOf(), scratch.floats);
  bad_place = combine_block(bad_place, kNone, SmallerOf(), scratch.ints);
  XentRow row;
  if (bad_place != kNone || max == -INFINITY) {
    row.log_sum_exp = row.log_p = NAN;
    row.max = NAN;
    row.argmax = bad_place == kNone ? 0 : bad_place;
  } else {
    place = combine_block(largest == max ? place : kNone, kNone, SmallerOf(), scratch.ints);
    if (largest != max)
      sum = largest == -INFINITY
                ? 0.0
                : sum * exp(static_cast<double>(largest) - static_cast<double>(max));
    sum = sum_block(sum, scratch.sums);
    row.max = max;
    row.argmax = place;
    row.log_sum_exp = static_cast<double>(max) + log(sum);
    // A target outside of the vocabulary has no probability that could be told.
    row.log_p = target < 0       ? 0.0
                : target < vocab ? static_cast<double>(x[target]) - row.log_sum_exp
                                 : static_cast<double>(NAN);
  }
  if (target < 0) row.log_p = 0;
  return row;
}

template <bool kVector>
__global__ void __launch_bounds__(kMaxThreads) xent_fwd_kernel(Xent a) {
  __shared__ Scratch scratch;
  const int64_t i = blockIdx.x, target = a.targets == nullptr ? -1 : a.targets[i];
  const XentRow row = score<kVector>(a.logits.data + i * a.logits.stride, a.vocab, target, scratch);
  if (threadIdx.x == 0) a.rows[i] = row;
}

struct Pair {
  float shift, scale, ref_shift, ref_scale, hi, lo;
};
struct PairAt {
  float d, p, p_ref, series;  // phi(d) = d^2 series where |d| < 1/2
  __device__ bool small() const { return fabsf(d) < 0.5f; }
};

__device__ __forceinline__ Pair pair_of(const XentRow& model, const XentRow& ref) {
  const double offset = ref.log_sum_exp - model.log_sum_exp;
  Pair p;
  p.shift = model.max, p.ref_shift = ref.max;
  p.scale = static_cast<float>(exp(static_cast<double>(model.max) - model.log_sum_exp));
  p.ref_scale = static_cast<float>(exp(static_cast<double>(ref.max) - ref.log_sum_exp));
  p.hi = static_cast<float>(offset);
  p.lo = static_cast<float>(offset - static_cast<double>(p.hi));
  return p;
}
__device__ __forceinline__ PairAt at(const Pair& pair, float x, float ref) {
  const float s = x - ref, z = s - x;
  const float lost = fabsf(s) < 1e30f ? (x - (s - z)) - (ref + z) : 0.0f;
  PairAt a;
  a.d = (s + pair.hi) + (lost + pair.lo);
  a.p = expf(x - pair.shift) * pair.scale;
  a.p_ref = expf(ref - pair.ref_shift) * pair.ref_scale;
  constexpr float kTerms[] = {1.0f / 2,    1.0f / 6,     1.0f / 24,     1.0f / 120,    1.0f / 720,
                              1.0f / 5040, 1.0f / 40320, 1.0f / 362880, 1.0f / 3628800};
  a.series = kTerms[8];
#pragma unroll
  for (int i = 7; i >= 0; --i) a.series = fmaf(a.series, a.d, kTerms[i]);
  return a;
}

template <bool kVector>
__global__ void __launch_bounds__(kMaxThreads) kl_fwd_kernel(Kl a) {
  constexpr int kPacks = 2;
  __shared__ Scratch scratch;
  const int64_t i = blockIdx.x, target = a.targets == nullptr ? -1 : a.targets[i];
  const float *x = a.logits.data + i * a.logits.stride, *ref = a.ref.data + i * a.ref.stride;
  KlRow row;
  row.model = score<kVector>(x, a.vocab, target, scratch);
  row.ref = score<kVector>(ref, a.vocab, target, scratch);
  row.kl = row.model.log_sum_exp + row.ref.log_sum_exp;
  if (row.kl == row.kl) {
    const Pair pair = pair_of(row.model, row.ref);
    double sum = 0;
    for (int64_t begin = 0; begin < a.vocab; begin += int64_t{kPacks * kW} * blockDim.x) {
      float v[kPacks][kW], r[kPacks][kW];
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
        load_f32<kW, kVector>(x + col, count_at<kW>(a.vocab, col), v[k]);
        load_f32<kW, kVector>(ref + col, count_at<kW>(a.vocab, col), r[k]);
      }
      float terms = 0;
#pragma unroll
      for (int k = 0; k < kPacks; ++k) {
        const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
        const int count = count_at<kW>(a.vocab, col);
#pragma unroll
        for (int e = 0; e < kW; ++e) {
          const PairAt t = at(pair, v[k][e], r[k][e]);
          float term = t.p_ref > 0 ? t.p - t.p_ref - t.p_ref * t.d : t.p;  // d may be infinite
          if (t.small()) term = t.p_ref * (t.d * t.d * t.series);
          if (e < count) terms += term;
        }
      }
      sum += static_cast<double>(terms);
    }
    row.kl = sum_block(sum, scratch.sums);
  }
  if (threadIdx.x == 0) a.rows[i] = row;
}

template <bool kVector>
__global__ void __launch_bounds__(kMaxThreads) kl_bwd_kernel(KlBwd a) {
  constexpr int kPacks = 2;
  const int64_t i = blockIdx.x;
  const bool valid = a.mask == nullptr || a.mask[i] != 0;
  const float *x = a.logits.data + i * a.logits.stride, *ref = a.ref.data + i * a.ref.stride;
  const Pair pair = pair_of(a.rows[i].model, a.rows[i].ref);
  for (int64_t begin = 0; begin < a.vocab; begin += int64_t{kPacks * kW} * blockDim.x) {
    float v[kPacks][kW], r[kPacks][kW];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
      const int count = valid ? count_at<kW>(a.vocab, col) : 0;
      load_f32<kW, kVector>(x + col, count, v[k]);
      load_f32<kW, kVector>(ref + col, count, r[k]);
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t col = begin + (threadIdx.x + int64_t{k} * blockDim.x) * kW;
#pragma unroll
      for (int e = 0; e < kW; ++e) {
        // p - p_ref = p_ref (d + phi(d)) where the rows are close
        const PairAt t = at(pair, v[k][e], r[k][e]);
        const float near = t.p_ref * fmaf(t.d * t.d, t.series, t.d);
        v[k][e] = valid ? (t.small() ? near : t.p - t.p_ref) * a.scale : 0.0f;
      }
      store<kW, kVector>(a.d_logits, i * a.d_logits.stride + col, count_at<kW>(a.vocab, col), v[k]);
    }
  }
}

dim3 block_for(int64_t vocab) {
  const int64_t threads = ceil_div(ceil_div(vocab, kW), 32) * 32;
  return grid_of(threads < kMaxThreads ? threads : kMaxThreads);
}
bool fits(RowsIn rows, int64_t vocab) {
  return vocab % kW == 0 && aligned(rows.data, rows.stride, DType::kF32, kW);
}

}  // namespace

void xent_fwd(const Xent& a, int64_t n) {
  launch(fits(a.logits, a.vocab) ? xent_fwd_kernel<true> : xent_fwd_kernel<false>, grid_of(n),
         block_for(a.vocab), 0, a);
}

void kl_fwd(const Kl& a, int64_t n) {
  const bool vector = fits(a.logits, a.vocab) && fits(a.ref, a.vocab);
  launch(vector ? kl_fwd_kernel<true> : kl_fwd_kernel<false>, grid_of(n), block_for(a.vocab), 0, a);
}

void kl_bwd(const KlBwd& a, int64_t n) {
  const bool vector = fits(a.logits, a.vocab) && fits(a.ref, a.vocab) &&
                      aligned(a.d_logits.data, a.d_logits.stride, a.d_logits.dtype, kW);
  launch(vector ? kl_bwd_kernel<true> : kl_bwd_kernel<false>, grid_of(n), block_for(a.vocab), 0, a);
}

}  // namespace signround::kernels::cuda
