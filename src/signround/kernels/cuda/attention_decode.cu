// Attention of few queries over many keys. What is read of keys and values bounds the time, so all
// query heads of a kv head share a read, and the keys are split among blocks: each leaves its
// largest score, the sum of its weights and their sum of values, which a second kernel adds up in
// the order of the keys. Products and sums are f32 for all types.
#include "signround/kernels/cuda/attention_decode.h"

#include <algorithm>
#include <type_traits>

#include "signround/kernels/cuda/attention_fast.cuh"

namespace signround::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWholeKeys = 256;  // that one block takes: a second kernel costs as much
constexpr int64_t kFewestKeys = 64;  // of a block otherwise
constexpr int64_t kBlocks = 512;     // more do not make a GPU read faster
constexpr int64_t kMostSplits = 64;

// What blocks leave: of each query of each head (as in lse), of each split.
struct Partial {
  float *top, *sum, *values;  // values: head_dim each
  int splits, keys;           // of a split
};

// The rows of a kv head are its queries: all heads of its group for the first token, and so on.
struct QueryRow {
  int i, head;
  __device__ __forceinline__ QueryRow(const Mask& mask, int kv_head, int row)
      : i(row / mask.group), head(kv_head * mask.group + row % mask.group) {}
};

__device__ __forceinline__ float weight_of(float top, float base) {
  return expf(top - (base == -INFINITY ? 0.0f : base));
}

// A block has kRows rows of a kv head; kLanes threads, 8 columns each, work on a key, and keep what
// they saw: they are put together at the end. kFast: keys and values are aligned bf16.
template <int kLanes, int kRows, bool kFast>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(Mask mask, In q, In k, In v, Out y, float* lse, Partial part) {
  constexpr int kTeams = kThreads / kLanes, kAtOnce = kRows > 4 ? 2 : 4, kWidth = kLanes * 8;
  const int dim = mask.head_dim, thread = static_cast<int>(threadIdx.x);
  const int team = thread / kLanes, lane = thread % kLanes, column = lane * 8;
  const int kv_heads = mask.heads / mask.group, rows = mask.q_len * mask.group;
  const int kv_head = static_cast<int>(blockIdx.x) % kv_heads;
  const int64_t batch = static_cast<int>(blockIdx.x) / kv_heads;
  const int first_row = static_cast<int>(blockIdx.y) * kRows;
  const int split = static_cast<int>(blockIdx.z);
  const int last = mask.end_key(mask.q_len - 1);
  const int begin = mask.first_key(0) + split * part.keys, end = min(last, begin + part.keys);
  const bool used = column < dim;

  float q_own[kRows][8] = {}, sum_own[kRows][8] = {}, top[kRows], sum[kRows];
  int last_key[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    top[r] = -INFINITY, sum[r] = 0;
    last_key[r] = -1;
    if (first_row + r >= rows) continue;
    const QueryRow row(mask, kv_head, first_row + r);
    last_key[r] = mask.last_key(row.i);
    if (used)
      q.load(
          q_own[r],
          (batch * mask.q_len + row.i) * q.stride + static_cast<int64_t>(row.head) * dim + column,
          dim - column);
  }
  const int64_t first_k = batch * mask.kv_len * k.stride + static_cast<int64_t>(kv_head) * dim;
  const int64_t first_v = batch * mask.kv_len * v.stride + static_cast<int64_t>(kv_head) * dim;

  for (int j0 = begin; j0 < end; j0 += kTeams * kAtOnce) {
    uint4 raw_k[kAtOnce] = {}, raw_v[kAtOnce] = {};  // all on their way together
    if constexpr (kFast) {
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) {
        const int j = j0 + u * kTeams + team;
        if (!used || j >= end) continue;
        raw_k[u] = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(k.data) + first_k +
                                                   j * k.stride + column);
        raw_v[u] = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(v.data) + first_v +
                                                   j * v.stride + column);
      }
    }
    const auto values_of = [&](float(&to)[8], const uint4& raw, const In& in, int64_t first,
                               int j) {
      if constexpr (kFast) {
        to[0] = low_bf16(raw.x), to[1] = high_bf16(raw.x);
        to[2] = low_bf16(raw.y), to[3] = high_bf16(raw.y);
        to[4] = low_bf16(raw.z), to[5] = high_bf16(raw.z);
        to[6] = low_bf16(raw.w), to[7] = high_bf16(raw.w);
      } else {
#pragma unroll
        for (int c = 0; c < 8; ++c) to[c] = 0;
        if (used && j < end) in.load(to, first + j * in.stride + column, dim - column);
      }
    };
    float s[kAtOnce][kRows];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      const int j = j0 + u * kTeams + team;
      float values[8];
      values_of(values, raw_k[u], k, first_k, j);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float dot = 0;
#pragma unroll
        for (int c = 0; c < 8; ++c) dot = fmaf(q_own[r][c], values[c], dot);
        dot = sum_lanes(dot, kLanes) * mask.scale;
        if (mask.softcap != 0) dot = mask.softcap * tanhf(dot / mask.softcap);
        s[u][r] = j < end && mask.within(last_key[r] - j) ? dot : -INFINITY;
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float high = top[r];
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) high = fmaxf(high, s[u][r]);
      const float shrink = weight_of(top[r], high);
      top[r] = high;
      sum[r] *= shrink;
#pragma unroll
      for (int c = 0; c < 8; ++c) sum_own[r][c] *= shrink;
#pragma unroll
      for (int u = 0; u < kAtOnce; ++u) sum[r] += s[u][r] = weight_of(s[u][r], high);
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
      float values[8];
      values_of(values, raw_v[u], v, first_v, j0 + u * kTeams + team);
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int c = 0; c < 8; ++c) sum_own[r][c] = fmaf(s[u][r], values[c], sum_own[r][c]);
    }
  }

  float* const tops = dynamic_shared<float>();  // (kTeams, kRows), and so the sums
  float *const sums = tops + kTeams * kRows, *const all = sums + kTeams * kRows;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int at = team * kRows + r;
    if (lane == 0) tops[at] = top[r], sums[at] = sum[r];
#pragma unroll
    for (int c = 0; c < 8; ++c) all[at * kWidth + column + c] = sum_own[r][c];
  }
  __syncthreads();
  for (int n = thread; n < kRows * dim; n += kThreads) {
    const int r = n / dim, d = n % dim;
    if (first_row + r >= rows) break;
    float high = -INFINITY, weights = 0, value = 0;
    for (int t = 0; t < kTeams; ++t) high = fmaxf(high, tops[t * kRows + r]);
    for (int t = 0; t < kTeams; ++t) {
      const float weight = weight_of(tops[t * kRows + r], high);
      weights = fmaf(weight, sums[t * kRows + r], weights);
      value = fmaf(weight, all[(t * kRows + r) * kWidth + d], value);
    }
    const QueryRow row(mask, kv_head, first_row + r);
    const int64_t flat = (batch * mask.heads + row.head) * mask.q_len + row.i;
    if (part.splits > 1) {
      const int64_t at = flat * part.splits + split;
      part.values[at * dim + d] = value;
      if (d == 0) part.top[at] = high, part.sum[at] = weights;
    } else {
      y.store((batch * mask.q_len + row.i) * y.stride + static_cast<int64_t>(row.head) * dim + d,
              value / weights);
      if (lse != nullptr && d == 0) lse[flat] = high + logf(weights);
    }
  }
}

// A block has one query of one head; a thread has columns.
__global__ void __launch_bounds__(kThreads)
    decode_merge(Mask mask, Out y, float* lse, Partial part) {
  const int64_t flat = blockIdx.x, row = flat / mask.q_len;
  const int64_t i = flat % mask.q_len, head = row % mask.heads, batch = row / mask.heads;
  const float *top = part.top + flat * part.splits, *sum = part.sum + flat * part.splits;
  const float* const values = part.values + flat * part.splits * mask.head_dim;
  float high = -INFINITY;
  for (int s = 0; s < part.splits; ++s) high = fmaxf(high, top[s]);
  for (int d = static_cast<int>(threadIdx.x); d < mask.head_dim;
       d += static_cast<int>(blockDim.x)) {
    float weights = 0, value = 0;
#pragma unroll 8
    for (int s = 0; s < part.splits; ++s) {
      const float weight = weight_of(top[s], high);
      weights = fmaf(weight, sum[s], weights);
      value = fmaf(weight, values[static_cast<int64_t>(s) * mask.head_dim + d], value);
    }
    y.store((batch * mask.q_len + i) * y.stride + head * mask.head_dim + d, value / weights);
    if (lse != nullptr && d == 0) lse[flat] = high + logf(weights);
  }
}

// ---- on the host ----
int rows_of_block(const AttentionShape& s) {
  const int64_t rows = s.q_len * s.group();
  return rows == 1 ? 1 : rows <= 4 ? 4 : 8;
}

// For any number of keys.
int64_t most_splits(const AttentionShape& s) {
  const int64_t units = s.batch * s.kv_heads * ceil_div(s.q_len * s.group(), rows_of_block(s));
  return std::min(kMostSplits, ceil_div(kBlocks, units));
}

Partial partial_of(const AttentionShape& s, void* memory) {
  const int64_t keys = s.end_key(s.q_len - 1) - s.first_key(0);
  int64_t splits = 1;
  if (keys > kWholeKeys) splits = std::min(most_splits(s), ceil_div(keys, kFewestKeys));
  const int64_t of_split = ceil_div(keys, splits);
  splits = ceil_div(keys, of_split);  // none is empty
  const int64_t n = s.batch * s.heads * s.q_len * splits;
  Partial part{nullptr, nullptr, nullptr, static_cast<int>(splits), static_cast<int>(of_split)};
  if (splits > 1) {
    part.top = static_cast<float*>(memory);
    part.sum = part.top + n, part.values = part.sum + n;
  }
  return part;
}

template <int kLanes, int kRows, bool kFast>
void launch_decode(const AttentionShape& s, In q, In k, In v, Out y, float* lse,
                   const Partial& part) {
  constexpr int64_t kBytes = int64_t{4} * kThreads / kLanes * kRows * (kLanes * 8 + 2);
  launch(decode_kernel<kLanes, kRows, kFast>,
         grid_of(s.batch * s.kv_heads, ceil_div(s.q_len * s.group(), kRows), part.splits),
         grid_of(kThreads), kBytes, Mask(s), q, k, v, y, lse, part);
}

}  // namespace

// The same for any number of keys: it does not grow from token to token.
int64_t decode_scratch_bytes(const AttentionShape& s) {
  const int64_t splits = most_splits(s);
  return splits == 1 ? 0 : s.batch * s.heads * s.q_len * splits * (s.head_dim + 2) * 4;
}

void attention_decode(const AttentionShape& s, RowsAny q_rows, RowsAny k_rows, RowsAny v_rows,
                      RowsOut y_rows, float* lse, void* scratch) {
  const In q(q_rows, s.head_dim), k(k_rows, s.head_dim), v(v_rows, s.head_dim);
  const Out y(y_rows);
  const Partial part = partial_of(s, scratch);
  const bool fast = k.bf16 && k.vectors && v.bf16 && v.vectors;
  const auto with_rows = [&](auto lanes, auto is_fast) {
    switch (rows_of_block(s)) {
      case 1:
        return launch_decode<lanes(), 1, is_fast()>(s, q, k, v, y, lse, part);
      case 4:
        return launch_decode<lanes(), 4, is_fast()>(s, q, k, v, y, lse, part);
      default:
        return launch_decode<lanes(), 8, is_fast()>(s, q, k, v, y, lse, part);
    }
  };
  const auto with = [&](auto lanes) {
    fast ? with_rows(lanes, std::true_type{}) : with_rows(lanes, std::false_type{});
  };
  if (s.head_dim <= 32)
    with(std::integral_constant<int, 4>{});
  else if (s.head_dim <= 64)
    with(std::integral_constant<int, 8>{});
  else if (s.head_dim <= 128)
    with(std::integral_constant<int, 16>{});
  else
    with(std::integral_constant<int, 32>{});
  if (part.splits > 1)
    launch(decode_merge, grid_of(s.batch * s.heads * s.q_len),
           grid_of(std::min<int64_t>(kThreads, ceil_div(s.head_dim, 32) * 32)), 0, Mask(s), y, lse,
           part);
}

}  // namespace signround::kernels::cuda
