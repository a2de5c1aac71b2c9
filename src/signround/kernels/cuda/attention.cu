// Attention on a GPU: attention_decode.cu for few queries, the bf16 ones of
// attention_fast.cuh where the shape allows them, else plain f32 ones, which take any head_dim that
// fits shared memory.
#include "signround/base/error.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/cuda/attention_decode.h"
#include "signround/kernels/cuda/attention_fast.cuh"

namespace signround::kernels::cuda {
namespace {

// (rows, cols) to dense bf16, 8 columns a thread.
__global__ void attention_pack(In in, int64_t rows, int64_t cols, uint16_t* out) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, parts = cols / 8;
  if (n >= rows * parts) return;
  float v[8];
  in.load(v, n / parts * in.stride + n % parts * 8, 8);
  *reinterpret_cast<uint4*>(out + n * 8) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]),
                                                      pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
}

// 8 lanes for each query of each head, padding included.
__global__ void attention_stats(Mask mask, In y, In d_y, const float* lse, int64_t rows,
                                Stats stats) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 8;
  const int lane = static_cast<int>(threadIdx.x) % 8;
  // at = (batch, query, head), so that neighbours read neighbours
  const int64_t head = at % mask.heads, i = at / mask.heads % stats.stride,
                batch = at / mask.heads / stats.stride;
  const bool valid = at < rows, here = valid && i < mask.q_len;
  float sum = 0;
  if (here) {
    const int64_t row = batch * mask.q_len + i, column = head * mask.head_dim;
    for (int c = 8 * lane; c < mask.head_dim; c += 64) {
      float a[8], b[8];
      y.load(a, row * y.stride + column + c, mask.head_dim - c);
      d_y.load(b, row * d_y.stride + column + c, mask.head_dim - c);
#pragma unroll
      for (int n = 0; n < 8; ++n) sum += a[n] * b[n];
    }
  }
  sum = sum_lanes(sum, 8);
  if (lane != 0 || !valid) return;
  const int64_t to = (batch * mask.heads + head) * stats.stride + i;
  stats.dot[to] = sum;
  stats.lse2[to] = here ? lse[(batch * mask.heads + head) * mask.q_len + i] * kLog2e : INFINITY;
}

// ---- plain f32 ----
// A block takes kOwn rows of one head and kOthers rows of the other side at a time: each thread has
// one of those for the scores, then some columns for the sums.
constexpr int kOwn = 4, kOthers = 128;

__device__ __forceinline__ void load_own(float* to, const In& from, int64_t row, int rows,
                                         int64_t column, int dim) {
  for (int n = static_cast<int>(threadIdx.x); n < kOwn * dim; n += kOthers)
    to[n] = n / dim < rows ? from[(row + n / dim) * from.stride + column + n % dim] : 0.0f;
}

__device__ __forceinline__ void dots(float (&sums)[kOwn], const float* own, const In& in,
                                     int64_t at, int dim) {
#pragma unroll
  for (int r = 0; r < kOwn; ++r) sums[r] = 0;
  for (int d = 0; d < dim; ++d) {
    const float value = in[at + d];
#pragma unroll
    for (int r = 0; r < kOwn; ++r) sums[r] += own[r * dim + d] * value;
  }
}

__device__ __forceinline__ float score(const Mask& mask, float dot, float& slope) {
  const float s = dot * mask.scale;
  slope = 1.0f;
  if (mask.softcap == 0) return s;
  const float bent = tanhf(s / mask.softcap);
  slope = 1.0f - bent * bent;
  return mask.softcap * bent;
}

__global__ void __launch_bounds__(kOthers)
    attention_fwd_plain(Mask mask, In q, In k, In v, Out y, float* lse) {
  const int dim = mask.head_dim, thread = static_cast<int>(threadIdx.x);
  auto* q_own = dynamic_shared<float>();
  float *o = q_own + kOwn * dim, *p = o + kOwn * dim, *tops = p + kOwn * kOthers;
  const int tiles = (mask.q_len + kOwn - 1) / kOwn;
  const int i0 = static_cast<int>(blockIdx.x) % tiles * kOwn, rows = min(kOwn, mask.q_len - i0);
  const int64_t head = static_cast<int>(blockIdx.x) / tiles % mask.heads,
                batch = static_cast<int>(blockIdx.x) / tiles / mask.heads;
  const int64_t row = batch * mask.q_len + i0, kv_row = batch * mask.kv_len,
                kv_column = head / mask.group * dim;
  load_own(q_own, q, row, rows, head * dim, dim);
  for (int n = thread; n < kOwn * dim; n += kOthers) o[n] = 0;
  float top[kOwn], sum[kOwn];
#pragma unroll
  for (int r = 0; r < kOwn; ++r) top[r] = -INFINITY, sum[r] = 0;
  __syncthreads();

  const int end = mask.end_key(i0 + rows - 1);
  for (int j0 = mask.first_key(i0); j0 < end; j0 += kOthers) {
    const int j = j0 + thread;
    float s[kOwn];
    if (j < end) dots(s, q_own, k, (kv_row + j) * k.stride + kv_column, dim);
#pragma unroll
    for (int r = 0; r < kOwn; ++r) {
      float slope;
      s[r] = j < end && mask.sees(i0 + r, j) ? score(mask, s[r], slope) : -INFINITY;
      const float high = max_lanes(s[r]);
      if (thread % 32 == 0) tops[r * 4 + thread / 32] = high;
    }
    __syncthreads();
    float shrink[kOwn];
#pragma unroll
    for (int r = 0; r < kOwn; ++r) {
      const float* t = tops + 4 * r;
      const float high = fmaxf(top[r], fmaxf(fmaxf(t[0], t[1]), fmaxf(t[2], t[3])));
      const float base = high == -INFINITY ? 0.0f : high;
      shrink[r] = expf(top[r] - base);
      top[r] = high;
      s[r] = expf(s[r] - base);
      sum[r] = sum[r] * shrink[r] + s[r];
      p[r * kOthers + thread] = s[r];
    }
    __syncthreads();
    const int count = min(kOthers, end - j0);
    for (int d = thread; d < dim; d += kOthers) {
      float sums[kOwn];
#pragma unroll
      for (int r = 0; r < kOwn; ++r) sums[r] = o[r * dim + d] * shrink[r];
      for (int n = 0; n < count; ++n) {
        const float value = v[(kv_row + j0 + n) * v.stride + kv_column + d];
#pragma unroll
        for (int r = 0; r < kOwn; ++r) sums[r] += p[r * kOthers + n] * value;
      }
#pragma unroll
      for (int r = 0; r < kOwn; ++r) o[r * dim + d] = sums[r];
    }
  }
#pragma unroll
  for (int r = 0; r < kOwn; ++r) {
    __syncthreads();
    const float part = sum_lanes(sum[r]);
    if (thread % 32 == 0) tops[thread / 32] = part;
    __syncthreads();
    const float all = tops[0] + tops[1] + tops[2] + tops[3];
    if (r >= rows) continue;
    for (int d = thread; d < dim; d += kOthers)
      y.store((row + r) * y.stride + head * dim + d, o[r * dim + d] / all);
    if (lse != nullptr && thread == 0)
      lse[(batch * mask.heads + head) * mask.q_len + i0 + r] = top[r] + logf(all);
  }
}

// The weight and the gradient of a score, from its product, that of its weight, and the query's lse
// and row term.
__device__ __forceinline__ void gradient(const Mask& mask, float dot, float d_p, float lse,
                                         float mean, float& p, float& d_dot) {
  float slope;
  const float log_p = score(mask, dot, slope) - lse;
  p = log_p > 0 ? 1.0f : expf(log_p);
  d_dot = p * (d_p - mean) * slope * mask.scale;
}

__global__ void __launch_bounds__(kOthers)
    attention_d_q_plain(Mask mask, In q, In k, In v, In d_y, const float* lse, Stats stats,
                        Out d_q) {
  const int dim = mask.head_dim, thread = static_cast<int>(threadIdx.x);
  auto* q_own = dynamic_shared<float>();
  float *dy_own = q_own + kOwn * dim, *sum = dy_own + kOwn * dim, *ds = sum + kOwn * dim;
  const int tiles = (mask.q_len + kOwn - 1) / kOwn;
  const int i0 = static_cast<int>(blockIdx.x) % tiles * kOwn, rows = min(kOwn, mask.q_len - i0);
  const int64_t head = static_cast<int>(blockIdx.x) / tiles % mask.heads,
                batch = static_cast<int>(blockIdx.x) / tiles / mask.heads;
  const int64_t row = batch * mask.q_len + i0, kv_row = batch * mask.kv_len,
                kv_column = head / mask.group * dim, at = batch * mask.heads + head;
  load_own(q_own, q, row, rows, head * dim, dim);
  load_own(dy_own, d_y, row, rows, head * dim, dim);
  for (int n = thread; n < kOwn * dim; n += kOthers) sum[n] = 0;
  __syncthreads();

  const int end = mask.end_key(i0 + rows - 1);
  for (int j0 = mask.first_key(i0); j0 < end; j0 += kOthers) {
    const int j = j0 + thread;
    float s[kOwn], d_p[kOwn];
    if (j < end) {
      dots(s, q_own, k, (kv_row + j) * k.stride + kv_column, dim);
      dots(d_p, dy_own, v, (kv_row + j) * v.stride + kv_column, dim);
    }
#pragma unroll
    for (int r = 0; r < kOwn; ++r) {
      float p = 0, d_dot = 0;
      if (j < end && r < rows && mask.sees(i0 + r, j))
        gradient(mask, s[r], d_p[r], lse[at * mask.q_len + i0 + r],
                 stats.dot[at * stats.stride + i0 + r], p, d_dot);
      ds[r * kOthers + thread] = d_dot;
    }
    __syncthreads();
    const int count = min(kOthers, end - j0);
    for (int d = thread; d < dim; d += kOthers) {
      float sums[kOwn];
#pragma unroll
      for (int r = 0; r < kOwn; ++r) sums[r] = sum[r * dim + d];
      for (int n = 0; n < count; ++n) {
        const float value = k[(kv_row + j0 + n) * k.stride + kv_column + d];
#pragma unroll
        for (int r = 0; r < kOwn; ++r) sums[r] += ds[r * kOthers + n] * value;
      }
#pragma unroll
      for (int r = 0; r < kOwn; ++r) sum[r * dim + d] = sums[r];
    }
    __syncthreads();
  }
  for (int d = thread; d < dim; d += kOthers)
    for (int r = 0; r < rows; ++r)
      d_q.store((row + r) * d_q.stride + head * dim + d, sum[r * dim + d]);
}

__global__ void __launch_bounds__(kOthers)
    attention_d_kv_plain(Mask mask, In q, In k, In v, In d_y, const float* lse, Stats stats,
                         Out d_k, Out d_v) {
  const int dim = mask.head_dim, thread = static_cast<int>(threadIdx.x);
  auto* k_own = dynamic_shared<float>();
  float *v_own = k_own + kOwn * dim, *sum_k = v_own + kOwn * dim, *sum_v = sum_k + kOwn * dim,
        *ps = sum_v + kOwn * dim, *ds = ps + kOwn * kOthers;
  const int tiles = (mask.kv_len + kOwn - 1) / kOwn, kv_heads = mask.heads / mask.group;
  const int j0 = static_cast<int>(blockIdx.x) % tiles * kOwn, rows = min(kOwn, mask.kv_len - j0);
  const int64_t kv_head = static_cast<int>(blockIdx.x) / tiles % kv_heads,
                batch = static_cast<int>(blockIdx.x) / tiles / kv_heads;
  const int64_t row = batch * mask.kv_len + j0, q_row = batch * mask.q_len;
  load_own(k_own, k, row, rows, kv_head * dim, dim);
  load_own(v_own, v, row, rows, kv_head * dim, dim);
  for (int n = thread; n < kOwn * dim; n += kOthers) sum_k[n] = sum_v[n] = 0;
  __syncthreads();

  const int first = mask.first_query(j0), end = mask.end_query(j0 + rows);
  for (int64_t head = kv_head * mask.group; head < (kv_head + 1) * mask.group; ++head) {
    const int64_t at = batch * mask.heads + head;
    for (int i0 = first; i0 < end; i0 += kOthers) {
      const int i = i0 + thread;
      float s[kOwn], d_p[kOwn], lse_i = 0, mean = 0;
      if (i < end) {
        dots(s, k_own, q, (q_row + i) * q.stride + head * dim, dim);
        dots(d_p, v_own, d_y, (q_row + i) * d_y.stride + head * dim, dim);
        lse_i = lse[at * mask.q_len + i];
        mean = stats.dot[at * stats.stride + i];
      }
#pragma unroll
      for (int r = 0; r < kOwn; ++r) {
        float p = 0, d_dot = 0;
        if (i < end && mask.sees(i, j0 + r)) gradient(mask, s[r], d_p[r], lse_i, mean, p, d_dot);
        ps[r * kOthers + thread] = p;
        ds[r * kOthers + thread] = d_dot;
      }
      __syncthreads();
      const int count = min(kOthers, end - i0);
      for (int d = thread; d < dim; d += kOthers) {
        float sums_k[kOwn], sums_v[kOwn];
#pragma unroll
        for (int r = 0; r < kOwn; ++r)
          sums_k[r] = sum_k[r * dim + d], sums_v[r] = sum_v[r * dim + d];
        for (int n = 0; n < count; ++n) {
          const float q_n = q[(q_row + i0 + n) * q.stride + head * dim + d];
          const float dy_n = d_y[(q_row + i0 + n) * d_y.stride + head * dim + d];
#pragma unroll
          for (int r = 0; r < kOwn; ++r) {
            sums_k[r] += ds[r * kOthers + n] * q_n;
            sums_v[r] += ps[r * kOthers + n] * dy_n;
          }
        }
#pragma unroll
        for (int r = 0; r < kOwn; ++r)
          sum_k[r * dim + d] = sums_k[r], sum_v[r * dim + d] = sums_v[r];
      }
      __syncthreads();
    }
  }
  for (int d = thread; d < dim; d += kOthers)
    for (int r = 0; r < rows; ++r) {
      const int64_t column = kv_head * dim + d;
      if (d_k.data != nullptr) d_k.store((row + r) * d_k.stride + column, sum_k[r * dim + d]);
      if (d_v.data != nullptr) d_v.store((row + r) * d_v.stride + column, sum_v[r * dim + d]);
    }
}

// ---- which, and where what lies ----
// Few queries would leave most of a tile empty.
bool is_fast(const AttentionShape& s) {
  return s.bf16_products && s.head_dim % 16 == 0 && s.head_dim <= 128 && s.q_len >= 16;
}

// Bytes of dynamic shared memory of the plain kernels, `own` times kOwn rows.
int64_t plain_bytes(const AttentionShape& s, int own, int weights) {
  return 4 * (kOwn * (own * s.head_dim + weights * kOthers) + 4 * kOwn);
}

// Takes pieces of the scratch memory; without memory, counts them.
struct Scratch {
  unsigned char* data;
  int64_t used = 0;
  template <class T>
  T* take(int64_t n) {
    const int64_t at = used;
    used += ceil_div(n * static_cast<int64_t>(sizeof(T)), 256) * 256;
    return data != nullptr ? reinterpret_cast<T*>(data + at) : nullptr;
  }
  Stats stats(const AttentionShape& s) {
    const int64_t stride = ceil_div(s.q_len, kQueryTile) * kQueryTile;
    const int64_t n = s.batch * s.heads * stride;
    float* lse2 = take<float>(n);
    return {lse2, take<float>(n), stride};
  }
  // `in` as aligned bf16 rows: itself where it is that.
  Rows16 bf16(RowsAny in, int64_t rows, int64_t cols) {
    auto* to = take<uint16_t>(rows * cols);
    const In from(in);
    if (from.bf16 && from.vectors) return {static_cast<const uint16_t*>(in.data), in.stride};
    launch(attention_pack, grid_of(ceil_div(rows * (cols / 8), 256)), 256, 0, from, rows, cols, to);
    return {to, cols};
  }
};

void check_head(const AttentionShape& s) {
  require(s.head_dim <= 1024, "attention", "heads have ", s.head_dim,
          " values, expected at most 1024 on a GPU");
}

template <class Body>
void for_dim(const AttentionShape& s, const Body& body) {
  const auto with = [&](auto dim) {
    if (s.softcap > 0)
      body(dim, std::true_type{});
    else
      body(dim, std::false_type{});
  };
  if (s.head_dim <= 32)
    with(std::integral_constant<int, 32>{});
  else if (s.head_dim <= 64)
    with(std::integral_constant<int, 64>{});
  else if (s.head_dim <= 96)
    with(std::integral_constant<int, 96>{});
  else
    with(std::integral_constant<int, 128>{});
}

}  // namespace

int64_t attention_scratch_bytes(const AttentionShape& s, bool backward) {
  if (!backward && is_decode(s)) return decode_scratch_bytes(s);
  Scratch scratch{nullptr};
  if (backward) scratch.stats(s);
  if (is_fast(s)) {
    const int64_t q = s.batch * s.q_len * s.heads * s.head_dim;
    const int64_t kv = s.batch * s.kv_len * s.kv_heads * s.head_dim;
    for (int64_t n : {q, kv, kv, backward ? q : 0}) scratch.take<uint16_t>(n);
  }
  return scratch.used;
}

void attention_fwd(const AttentionShape& s, RowsAny q, RowsAny k, RowsAny v, RowsOut y, float* lse,
                   void* memory) {
  if (is_decode(s)) return attention_decode(s, q, k, v, y, lse, memory);
  check_head(s);
  const Mask mask(s);
  if (!is_fast(s)) {
    launch(attention_fwd_plain, grid_of(s.batch * s.heads * ceil_div(s.q_len, kOwn)), kOthers,
           plain_bytes(s, 2, 1), mask, In(q), In(k), In(v), Out(y), lse);
    return;
  }
  Scratch scratch{static_cast<unsigned char*>(memory)};
  const Rows16 q16 = scratch.bf16(q, s.batch * s.q_len, s.heads * s.head_dim);
  const Rows16 k16 = scratch.bf16(k, s.batch * s.kv_len, s.kv_heads * s.head_dim);
  const Rows16 v16 = scratch.bf16(v, s.batch * s.kv_len, s.kv_heads * s.head_dim);
  for_dim(s, [&](auto dim, auto softcap) {
    launch(attention_fwd_fast<dim(), softcap()>,
           grid_of(s.batch * s.heads * ceil_div(s.q_len, kQueryTile)), kFastThreads,
           Fwd<dim(), softcap()>::kBytes, mask, q16, k16, v16, Out(y), lse);
  });
}

void attention_bwd(const AttentionShape& s, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                   const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v,
                   void* memory) {
  check_head(s);
  const Mask mask(s);
  Scratch scratch{static_cast<unsigned char*>(memory)};
  const Stats stats = scratch.stats(s);
  const int64_t rows = s.batch * s.heads * stats.stride;
  launch(attention_stats, grid_of(ceil_div(rows * 8, 256)), 256, 0, mask, In(y, s.head_dim),
         In(d_y, s.head_dim), lse, rows, stats);
  if (!is_fast(s)) {
    if (d_q)
      launch(attention_d_q_plain, grid_of(s.batch * s.heads * ceil_div(s.q_len, kOwn)), kOthers,
             plain_bytes(s, 3, 1), mask, In(q), In(k), In(v), In(d_y), lse, stats, Out(d_q));
    if (d_k || d_v)
      launch(attention_d_kv_plain, grid_of(s.batch * s.kv_heads * ceil_div(s.kv_len, kOwn)),
             kOthers, plain_bytes(s, 4, 2), mask, In(q), In(k), In(v), In(d_y), lse, stats,
             Out(d_k), Out(d_v));
    return;
  }
  const Rows16 q16 = scratch.bf16(q, s.batch * s.q_len, s.heads * s.head_dim);
  const Rows16 k16 = scratch.bf16(k, s.batch * s.kv_len, s.kv_heads * s.head_dim);
  const Rows16 v16 = scratch.bf16(v, s.batch * s.kv_len, s.kv_heads * s.head_dim);
  const Rows16 dy16 = scratch.bf16(d_y, s.batch * s.q_len, s.heads * s.head_dim);
  for_dim(s, [&](auto dim, auto softcap) {
    if (d_k || d_v)
      launch(attention_d_kv_fast<dim(), softcap()>,
             grid_of(s.batch * s.kv_heads * ceil_div(s.kv_len, kKeyTile)), kFastThreads,
             DKv<dim()>::kBytes, mask, q16, k16, v16, dy16, stats, Out(d_k), Out(d_v));
    if (d_q)
      launch(attention_d_q_fast<dim(), softcap()>,
             grid_of(s.batch * s.heads * ceil_div(s.q_len, kQueryTile)), kFastThreads,
             DQ<dim()>::kBytes, mask, q16, k16, v16, dy16, stats, Out(d_q));
  });
}

}  // namespace signround::kernels::cuda
