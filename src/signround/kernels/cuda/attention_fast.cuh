// Attention of bf16 rows with f32 softmax (Dao, arXiv 2307.08691): scores of one tile of queries
// and one of keys at a time stay in registers. The backward pass computes them twice, once per tile
// of keys for d_k and d_v, once per tile of queries for d_q, so that every sum has one owner and a
// fixed order. Tiles lie in shared memory as rows of 16-byte pieces, permuted so that ldmatrix
// meets every bank once.
#pragma once

#include "signround/kernels/cuda/launch.h"
#include "signround/kernels/attention_shape.h"
#include "signround/tensor/rows.h"

namespace signround::kernels::cuda {
namespace {

using namespace signround::cuda;

constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr int kFastThreads = 128;
constexpr int kQueryTile = 128;  // of attention_fwd_fast and attention_d_q_fast
constexpr int kKeyTile = 64;     // of attention_d_kv_fast

// An AttentionShape, as kernels want it.
struct Mask {
  int q_len, kv_len, heads, group, head_dim;
  int shift;   // query i stands at position i + shift
  int window;  // kv_len: all
  bool causal;
  float scale, softcap;

  explicit Mask(const AttentionShape& s)
      : q_len(static_cast<int>(s.q_len)),
        kv_len(static_cast<int>(s.kv_len)),
        heads(static_cast<int>(s.heads)),
        group(static_cast<int>(s.group())),
        head_dim(static_cast<int>(s.head_dim)),
        shift(static_cast<int>(s.kv_len - s.q_len)),
        window(static_cast<int>(s.window > 0 ? std::min(s.window, s.kv_len) : s.kv_len)),
        causal(s.causal),
        scale(s.scale),
        softcap(s.softcap) {}

  __device__ __forceinline__ int last_key(int i) const { return causal ? i + shift : kv_len - 1; }
  __device__ __forceinline__ int end_key(int i) const { return last_key(i) + 1; }
  __device__ __forceinline__ int first_key(int i) const { return max(0, end_key(i) - window); }
  // Whether a query sees the key that lies so far before its last one.
  __device__ __forceinline__ bool within(int distance) const {
    return static_cast<unsigned>(distance) < static_cast<unsigned>(window);
  }
  __device__ __forceinline__ bool sees(int i, int j) const { return within(last_key(i) - j); }
  // The queries that see one of the keys [j, j_end): [first_query, end_query).
  __device__ __forceinline__ int first_query(int j) const { return causal ? max(0, j - shift) : 0; }
  __device__ __forceinline__ int end_query(int j_end) const {
    if (!causal) return q_len;
    return static_cast<int>(
        min(static_cast<int64_t>(q_len), static_cast<int64_t>(j_end) - 1 + window - shift));
  }
};

// bf16 rows, 16-byte aligned.
struct Rows16 {
  const uint16_t* data;
  int64_t stride;
  __device__ __forceinline__ const uint16_t* at(int64_t row, int64_t column) const {
    return data + (row * stride + column);
  }
};

// Rows of any type.
struct In {
  const void* data;
  int64_t stride;
  bool bf16, vectors;  // vectors: 8 values from a multiple of 8 on may be read 16 bytes at a time

  explicit In(RowsAny rows, int64_t head_dim = 8)
      : data(rows.data), stride(rows.stride), bf16(rows.dtype == DType::kBF16) {
    vectors = reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % (bf16 ? 8 : 4) == 0 &&
              head_dim % 8 == 0;
  }
  __device__ __forceinline__ float operator[](int64_t at) const {
    return bf16 ? bf16_to_f32(static_cast<const uint16_t*>(data)[at])
                : static_cast<const float*>(data)[at];
  }
  // n of 8 values, the rest 0.
  __device__ __forceinline__ void load(float (&to)[8], int64_t at, int64_t n) const {
    if (!vectors) {
#pragma unroll
      for (int c = 0; c < 8; ++c) to[c] = c < n ? (*this)[at + c] : 0.0f;
    } else if (bf16) {
      const uint4 v = *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(data) + at);
      to[0] = low_bf16(v.x), to[1] = high_bf16(v.x), to[2] = low_bf16(v.y), to[3] = high_bf16(v.y);
      to[4] = low_bf16(v.z), to[5] = high_bf16(v.z), to[6] = low_bf16(v.w), to[7] = high_bf16(v.w);
    } else {
      const auto* from = reinterpret_cast<const float4*>(static_cast<const float*>(data) + at);
      const float4 v = from[0], w = from[1];
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
      to[4] = w.x, to[5] = w.y, to[6] = w.z, to[7] = w.w;
    }
  }
};

struct Out {
  void* data;
  int64_t stride;
  bool bf16, pairs;  // pairs: two neighbours, the first at an even column, may be written at once

  explicit Out(RowsOut rows)
      : data(rows.data), stride(rows.stride), bf16(rows.dtype == DType::kBF16) {
    const auto at = reinterpret_cast<uintptr_t>(data);
    pairs = stride % 2 == 0 && at % (bf16 ? 4 : 8) == 0;
  }
  __device__ __forceinline__ void store(int64_t at, float v) const {
    if (bf16)
      static_cast<uint16_t*>(data)[at] = f32_to_bf16(v);
    else
      static_cast<float*>(data)[at] = v;
  }
  __device__ __forceinline__ void store_two(int64_t at, float a, float b) const {
    if (!pairs) {
      store(at, a);
      store(at + 1, b);
    } else if (bf16) {
      *reinterpret_cast<uint32_t*>(static_cast<uint16_t*>(data) + at) = pack_bf16(a, b);
    } else {
      *reinterpret_cast<float2*>(static_cast<float*>(data) + at) = make_float2(a, b);
    }
  }
};

// What the backward pass knows of each query: rows (batch * heads, padded) of lse in units of log
// 2, infinite in the padding, and of sum_d d_y y.
struct Stats {
  float *lse2, *dot;
  int64_t stride;  // q_len, up to a multiple of kQueryTile
};

// Rows of kDim values in shared memory. Piece p of row r lies where piece p ^ swizzle(r) would.
template <int kDim>
struct Tile {
  static constexpr int kRowBytes = kDim * 2;
  static constexpr int kMixed = kDim % 64 == 0 ? 127 : 63;  // bits of an offset that are permuted
  __host__ __device__ static constexpr int bytes(int rows) { return rows * kRowBytes; }

  __device__ static __forceinline__ int swizzle(int row) {
    return kDim % 64 == 0 ? row & 7 : (row >> 1) & 3;
  }
  __device__ static __forceinline__ int offset(int row, int piece) {
    return row * kRowBytes + ((piece ^ swizzle(row)) << 4);
  }

  // The part of a thread in a copy of rows of global memory, as far as it is the same for each.
  struct Copier {
    static constexpr int kLanes = (kMixed + 1) / 16, kStep = kFastThreads / kLanes;
    int row, piece, to;
    __device__ __forceinline__ explicit Copier(int thread)
        : row(thread / kLanes), piece(thread % kLanes), to(offset(row, piece)) {}
    // kRows rows of head_dim values; those past `rows`, and columns past head_dim, become zeros.
    template <int kRows>
    __device__ __forceinline__ void copy(unsigned char* tile, const uint16_t* from, int64_t stride,
                                         int rows, int head_dim) const {
      const uint16_t* at = from + (static_cast<int64_t>(row) * stride + piece * 8);
#pragma unroll
      for (int c = 0; c < kDim / 8; c += kLanes) {
        const int left = (piece + c) * 8 < head_dim ? rows - row : 0;
#pragma unroll
        for (int r = 0; r < kRows; r += kStep)
          copy_16(tile + to + r * kRowBytes + c * 16, at + (r * stride + c * 8), r < left);
      }
    }
  };

  // The places of a lane in the fragments that ldmatrix reads.
  struct Lane {
    int a, b;
    __device__ __forceinline__ explicit Lane(int thread) {
      const int lane = thread & 31;
      a = offset(lane & 15, lane >> 4);
      b = offset((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
    }
    // at: `a` or `b`; row: a multiple of 16; column: a multiple of 16.
    __device__ static __forceinline__ int place(int at, int row, int column) {
      return (at ^ (column * 2 & kMixed)) + (column * 2 & ~kMixed) + row * kRowBytes;
    }
    // The a of mma_bf16: rows [row, row + 16), columns [column, column + 16). Transposed: the b of
    // two products, of columns [column, column + 8) and the next 8, summed over these rows.
    template <bool kTransposed>
    __device__ __forceinline__ void load_a(uint32_t (&to)[4], const unsigned char* tile, int row,
                                           int column) const {
      load_matrix_x4<kTransposed>(to, tile + place(a, row, column));
    }
    // The b of two products: over columns [column, column + 16), of rows [row, row + 8) and the
    // next 8.
    __device__ __forceinline__ void load_b(uint32_t (&to)[4], const unsigned char* tile, int row,
                                           int column) const {
      load_matrix_x4<false>(to, tile + place(b, row, column));
    }
  };
};

__device__ __forceinline__ void mma_two(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[4]) {
  const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
  mma_bf16(d0, a, b0);
  mma_bf16(d1, a, b1);
}

// d (32, 8 kCols) += rows [a_row, a_row + 32) of a times rows [b_row, b_row + 8 kCols) of b.
template <int kDim, int kCols>
__device__ __forceinline__ void scores(const typename Tile<kDim>::Lane& lane,
                                       float (&d)[2][kCols][4], const unsigned char* a, int a_row,
                                       const unsigned char* b, int b_row) {
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
    uint32_t a_k[2][4];
    lane.template load_a<false>(a_k[0], a, a_row, 16 * k);
    lane.template load_a<false>(a_k[1], a, a_row + 16, 16 * k);
#pragma unroll
    for (int n = 0; n < kCols; n += 2) {
      uint32_t b_k[4];
      lane.load_b(b_k, b, b_row + 8 * n, 16 * k);
      mma_two(d[0][n], d[0][n + 1], a_k[0], b_k);
      mma_two(d[1][n], d[1][n + 1], a_k[1], b_k);
    }
  }
}

// d (32, 8 kCols) += w (32, 16) times columns [column, column + 8 kCols) of rows [row, row + 16) of
// b.
template <int kDim, int kCols>
__device__ __forceinline__ void weigh(const typename Tile<kDim>::Lane& lane,
                                      float (&d)[2][kCols][4], const uint32_t (&w0)[4],
                                      const uint32_t (&w1)[4], const unsigned char* b, int row,
                                      int column) {
#pragma unroll
  for (int n = 0; n < kCols; n += 2) {
    uint32_t b_n[4];
    lane.template load_a<true>(b_n, b, row, column + 8 * n);
    mma_two(d[0][n], d[0][n + 1], w0, b_n);
    mma_two(d[1][n], d[1][n + 1], w1, b_n);
  }
}

// What a product gives as the a of the next one: 16 of its columns, in bf16.
__device__ __forceinline__ void to_a(uint32_t (&a)[4], const float (&d0)[4], const float (&d1)[4]) {
  a[0] = pack_bf16(d0[0], d0[1]);
  a[1] = pack_bf16(d0[2], d0[3]);
  a[2] = pack_bf16(d1[0], d1[1]);
  a[3] = pack_bf16(d1[2], d1[3]);
}

// tanh, to a few 2^-24 in absolute terms. x2: 2 x / log 2.
__device__ __forceinline__ float bend(float x2) {
  return 1.0f - __fdividef(2.0f, 1.0f + fast_exp2(x2));
}

// y and lse, 4 warps of 32 queries each.
template <int kDim, bool kSoftcap>
struct Fwd {
  static constexpr int kKeys = kDim <= 96 ? 64 : kSoftcap ? 32 : 48;  // of a step: registers
  static constexpr int kBytes = Tile<kDim>::bytes(kQueryTile + 4 * kKeys);
};
template <int kDim, bool kSoftcap>
__global__ void __launch_bounds__(kFastThreads, 2)
    attention_fwd_fast(Mask mask, Rows16 q, Rows16 k, Rows16 v, Out y, float* lse) {
  using T = Tile<kDim>;
  constexpr int kKeys = Fwd<kDim, kSoftcap>::kKeys, kCols = kKeys / 8, kDims = kDim / 8;
  const int tiles = (mask.q_len + kQueryTile - 1) / kQueryTile;
  const int tile = tiles - 1 - static_cast<int>(blockIdx.x) % tiles;  // those with most keys first
  const int head = static_cast<int>(blockIdx.x) / tiles % mask.heads;
  const int64_t batch = static_cast<int>(blockIdx.x) / tiles / mask.heads;
  const int i0 = tile * kQueryTile, i_last = min(i0 + kQueryTile, mask.q_len) - 1;
  const int first = mask.first_key(i0) / kKeys * kKeys, end = mask.end_key(i_last);

  auto* q_tile = dynamic_shared<unsigned char>();
  unsigned char* kv_tiles = q_tile + T::bytes(kQueryTile);  // k, v of one step, then of the next
  const int64_t column = static_cast<int64_t>(head) * mask.head_dim;
  const int64_t kv_row = batch * mask.kv_len,
                kv_column = static_cast<int64_t>(head / mask.group) * mask.head_dim;
  const auto load_kv = [&](int j, int stage) {
    const typename T::Copier copier(thread_anew());
    unsigned char* to = kv_tiles + stage * T::bytes(2 * kKeys);
    copier.template copy<kKeys>(to, k.at(kv_row + j, kv_column), k.stride, mask.kv_len - j,
                                mask.head_dim);
    copier.template copy<kKeys>(to + T::bytes(kKeys), v.at(kv_row + j, kv_column), v.stride,
                                mask.kv_len - j, mask.head_dim);
  };
  const typename T::Copier copier(thread_anew());
  copier.template copy<kQueryTile>(q_tile, q.at(batch * mask.q_len + i0, column), q.stride,
                                   mask.q_len - i0, mask.head_dim);
  load_kv(first, 0);
  commit_copies();

  const float unit = (kSoftcap ? mask.softcap : mask.scale) * kLog2e;
  float o[2][kDims][4] = {};
  float top[2][2], sum[2][2] = {};  // of rows 16 m + 8 r + g; a lane's sum has its own columns only
#pragma unroll
  for (int m = 0; m < 2; ++m) top[m][0] = top[m][1] = -INFINITY;

  int stage = 0;
  for (int j0 = first; j0 < end; j0 += kKeys, stage ^= 1) {
    wait_copies<0>();
    __syncthreads();
    if (j0 + kKeys < end) load_kv(j0 + kKeys, stage ^ 1);
    commit_copies();
    const int thread = thread_anew(), g = thread % 32 / 4, t = thread % 4;
    const int row0 = thread / 32 * 32;  // of this warp, in the tile
    const typename T::Lane lane(thread);
    const unsigned char* k_tile = kv_tiles + stage * T::bytes(2 * kKeys);

    float s[2][kCols][4] = {};
    scores<kDim, kCols>(lane, s, q_tile, row0, k_tile, 0);
    if constexpr (kSoftcap) {
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < kCols; ++n)
#pragma unroll
          for (int c = 0; c < 4; ++c)
            s[m][n][c] = bend(s[m][n][c] * (2 * kLog2e * mask.scale / mask.softcap));
    }
    if (j0 + kKeys > mask.end_key(i0) || j0 < mask.first_key(i_last)) {
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int last = mask.last_key(i0 + row0 + 16 * m + 8 * r + g) - j0 - 2 * t;
#pragma unroll
          for (int n = 0; n < kCols; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c)
              if (!mask.within(last - (8 * n + c))) s[m][n][2 * r + c] = -INFINITY;
        }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float high = top[m][r];
#pragma unroll
        for (int n = 0; n < kCols; ++n)
          high = fmaxf(high, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
        high = max_lanes(high, 4);
        // Never one rounding for product and difference: the largest weight is exactly 1, however
        // large the score. No key yet: weights of 0.
        const float base = high == -INFINITY ? 0.0f : __fmul_rn(high, unit);
        const float shrink = fast_exp2(__fmul_rn(top[m][r], unit) - base);
        top[m][r] = high;
        float part = 0;
#pragma unroll
        for (int n = 0; n < kCols; ++n)
#pragma unroll
          for (int c = 2 * r; c < 2 * r + 2; ++c) {
            s[m][n][c] = fast_exp2(__fmul_rn(s[m][n][c], unit) - base);
            part += s[m][n][c];
          }
        sum[m][r] = sum[m][r] * shrink + part;
#pragma unroll
        for (int n = 0; n < kDims; ++n) {
          o[m][n][2 * r] *= shrink;
          o[m][n][2 * r + 1] *= shrink;
        }
      }
#pragma unroll
    for (int kk = 0; kk < kCols / 2; ++kk) {
      uint32_t p[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) to_a(p[m], s[m][2 * kk], s[m][2 * kk + 1]);
      weigh<kDim, kDims>(lane, o, p[0], p[1], k_tile + T::bytes(kKeys), 16 * kk, 0);
    }
  }

  const int thread = thread_anew(), g = thread % 32 / 4, t = thread % 4;
  const int row0 = thread / 32 * 32;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = i0 + row0 + 16 * m + 8 * r + g;
      const float all = sum_lanes(sum[m][r], 4), inverse = 1.0f / all;
      if (i >= mask.q_len) continue;
      if (lse != nullptr && t == 0)
        lse[(batch * mask.heads + head) * mask.q_len + i] = top[m][r] * unit * kLn2 + logf(all);
      const int64_t at = (batch * mask.q_len + i) * y.stride + column + 2 * t;
#pragma unroll
      for (int n = 0; n < kDims; ++n)
        if (8 * n < mask.head_dim)
          y.store_two(at + 8 * n, o[m][n][2 * r] * inverse, o[m][n][2 * r + 1] * inverse);
    }
}

// The weight of a key, at most 1 even where a huge score is coarser than 1, and its derivative by
// the score in units of itself.
template <bool kSoftcap>
__device__ __forceinline__ float weight(const Mask& mask, float s, float lse2, float& slope) {
  if constexpr (kSoftcap) {
    const float bent = bend(s * (2 * kLog2e * mask.scale / mask.softcap));
    slope = 1.0f - bent * bent;
    return fast_exp2(min_or_nan(bent * (mask.softcap * kLog2e) - lse2, 0.0f));
  } else {
    slope = 1.0f;
    return fast_exp2(min_or_nan(s * (mask.scale * kLog2e) - lse2, 0.0f));
  }
}

// d_k and d_v of 64 keys: the sum over the queries of all heads of the group. A warp takes 32 keys
// and 32 of the 64 queries of a step for the weights, then, after it has exchanged them with its
// neighbour, all 64 queries and half of the columns. With kDim 128 d_y has room for one step only,
// so that all fits 99 KiB.
template <int kDim>
struct DKv {
  using T = Tile<kDim>;
  static constexpr int kSteps = kDim <= 96 ? 2 : 1;  // of d_y that are held
  static constexpr int kQ = T::bytes(2 * kKeyTile), kDy = kQ + T::bytes(2 * kKeyTile),
                       kStats = kDy + kSteps * T::bytes(kKeyTile),
                       kExchange = kStats + 2 * 2 * kKeyTile * 4, kBytes = kExchange + 4 * 4096;
};
template <int kDim, bool kSoftcap>
__global__ void __launch_bounds__(kFastThreads, 2)
    attention_d_kv_fast(Mask mask, Rows16 q, Rows16 k, Rows16 v, Rows16 d_y, Stats stats, Out d_k,
                        Out d_v) {
  using T = Tile<kDim>;
  using L = DKv<kDim>;
  constexpr int kCols = 4, kDims = kDim / 16;  // of a warp: queries / 8, columns / 8
  const int tiles = (mask.kv_len + kKeyTile - 1) / kKeyTile, kv_heads = mask.heads / mask.group;
  const int tile = static_cast<int>(blockIdx.x) % tiles;  // those with most queries first
  const int kv_head = static_cast<int>(blockIdx.x) / tiles % kv_heads;
  const int64_t batch = static_cast<int>(blockIdx.x) / tiles / kv_heads;
  const int j0 = tile * kKeyTile, j_end = min(j0 + kKeyTile, mask.kv_len);
  const int first = mask.first_query(j0) / kKeyTile * kKeyTile, end = mask.end_query(j_end);

  auto* k_tile = dynamic_shared<unsigned char>();
  unsigned char* v_tile = k_tile + T::bytes(kKeyTile);
  const int64_t kv_row = batch * mask.kv_len, q_row = batch * mask.q_len,
                kv_column = static_cast<int64_t>(kv_head) * mask.head_dim;
  // The step that is loaded next: a head of the group, 64 queries of it.
  int next_head = first < end ? 0 : mask.group, next_i = first;
  const auto load_q = [&](int stage) {
    if (next_head == mask.group) return;
    const typename T::Copier copier(thread_anew());
    const int64_t head = static_cast<int64_t>(kv_head) * mask.group + next_head;
    copier.template copy<kKeyTile>(k_tile + L::kQ + stage * T::bytes(kKeyTile),
                                   q.at(q_row + next_i, head * mask.head_dim), q.stride,
                                   mask.q_len - next_i, mask.head_dim);
    if (threadIdx.x < 32) {
      const int n = static_cast<int>(threadIdx.x) % 16 * 4;
      const float* from = threadIdx.x < 16 ? stats.lse2 : stats.dot;
      copy_16(k_tile + L::kStats + stage * 8 * kKeyTile + static_cast<int>(threadIdx.x) * 16,
              from + (batch * mask.heads + head) * stats.stride + next_i + n);
    }
  };
  const auto load_d_y = [&](int stage) {
    if (next_head == mask.group) return;
    const typename T::Copier copier(thread_anew());
    const int64_t head = static_cast<int64_t>(kv_head) * mask.group + next_head;
    copier.template copy<kKeyTile>(k_tile + L::kDy + stage * T::bytes(kKeyTile),
                                   d_y.at(q_row + next_i, head * mask.head_dim), d_y.stride,
                                   mask.q_len - next_i, mask.head_dim);
  };
  const auto advance = [&] {
    next_i += kKeyTile;
    if (next_i >= end) next_i = first, ++next_head;
  };
  const typename T::Copier copier(thread_anew());
  copier.template copy<kKeyTile>(k_tile, k.at(kv_row + j0, kv_column), k.stride, mask.kv_len - j0,
                                 mask.head_dim);
  copier.template copy<kKeyTile>(v_tile, v.at(kv_row + j0, kv_column), v.stride, mask.kv_len - j0,
                                 mask.head_dim);
  load_q(0);
  if constexpr (L::kSteps == 2) load_d_y(0);
  commit_copies();

  float sum_k[2][kDims][4] = {}, sum_v[2][kDims][4] = {};

  for (int stage = 0; next_head < mask.group; stage ^= 1) {
    wait_copies<0>();
    __syncthreads();
    const int i0 = next_i;
    unsigned char* dy_tile = k_tile + L::kDy;
    if constexpr (L::kSteps == 1) {
      load_d_y(0);
      commit_copies();
      advance();
      load_q(stage ^ 1);
    } else {
      dy_tile += stage * T::bytes(kKeyTile);
      advance();
      load_q(stage ^ 1);
      load_d_y(stage ^ 1);
    }
    commit_copies();
    const int thread = thread_anew(), g = thread % 32 / 4, t = thread % 4, warp = thread / 32;
    const int key0 = warp / 2 * 32, half = warp % 2;  // of the queries, then of the columns
    const typename T::Lane lane(thread);
    const unsigned char* q_step = k_tile + L::kQ + stage * T::bytes(kKeyTile);
    const auto* lse2 = reinterpret_cast<const float*>(k_tile + L::kStats) + stage * 2 * kKeyTile +
                       32 * half + 2 * t;
    const float* dot = lse2 + kKeyTile;

    // Transposed: keys are rows, queries columns.
    float p[2][kCols][4] = {};
    scores<kDim, kCols>(lane, p, k_tile, key0, q_step, 32 * half);
    uint32_t p16[2][2][4], ds16[2][2][4];
    const bool masked =
        j0 + kKeyTile > mask.end_key(i0) || j0 < mask.first_key(min(i0 + kKeyTile, mask.q_len) - 1);
#pragma unroll
    for (int kk = 0; kk < 2; ++kk)
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        float slope[2][4];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const float2 lse2_n = *reinterpret_cast<const float2*>(lse2 + 8 * (2 * kk + n));
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            float& value = p[m][2 * kk + n][c];
            value = weight<kSoftcap>(mask, value, c % 2 == 0 ? lse2_n.x : lse2_n.y, slope[n][c]);
          }
        }
        if (masked) {
          const int first_i = i0 + 32 * half + 16 * kk + 2 * t, first_j = j0 + key0 + 16 * m + g;
          const int last = mask.last_key(first_i) - first_j, step = mask.causal ? 1 : 0;
#pragma unroll
          for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int c = 0; c < 4; ++c)
              if (!mask.within(last + (8 * n + c % 2) * step - c / 2 * 8)) p[m][2 * kk + n][c] = 0;
        }
        to_a(p16[m][kk], p[m][2 * kk], p[m][2 * kk + 1]);
        if constexpr (kSoftcap) {
#pragma unroll
          for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int c = 0; c < 4; ++c) p[m][2 * kk + n][c] *= slope[n][c];
        }
      }
    if constexpr (L::kSteps == 1) {
      wait_copies<1>();
      __syncthreads();
    }
    float ds[2][kCols][4];
#pragma unroll
    for (int n = 0; n < kCols; ++n) {
      const float2 dot_n = *reinterpret_cast<const float2*>(dot + 8 * n);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        ds[m][n][0] = ds[m][n][2] = -dot_n.x;
        ds[m][n][1] = ds[m][n][3] = -dot_n.y;
      }
    }
    scores<kDim, kCols>(lane, ds, v_tile, key0, dy_tile, 32 * half);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < kCols; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) ds[m][n][c] *= p[m][n][c];
    auto* mine = reinterpret_cast<uint4*>(k_tile + L::kExchange) + warp * 256 + 4 * g + t;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int kk = 0; kk < 2; ++kk) {
        to_a(ds16[m][kk], ds[m][2 * kk], ds[m][2 * kk + 1]);
        const uint32_t(&a)[4] = p16[m][kk], (&b)[4] = ds16[m][kk];
        mine[(2 * m + kk) * 32] = make_uint4(a[0], a[1], a[2], a[3]);
        mine[(4 + 2 * m + kk) * 32] = make_uint4(b[0], b[1], b[2], b[3]);
      }
    __syncthreads();

    const int column = half * (kDim / 2);
    const auto* other =
        reinterpret_cast<const uint4*>(k_tile + L::kExchange) + (warp ^ 1) * 256 + 4 * g + t;
#pragma unroll
    for (int kk = 0; kk < 2; ++kk) {
      weigh<kDim, kDims>(lane, sum_v, p16[0][kk], p16[1][kk], dy_tile, 32 * half + 16 * kk, column);
      weigh<kDim, kDims>(lane, sum_k, ds16[0][kk], ds16[1][kk], q_step, 32 * half + 16 * kk,
                         column);
    }
#pragma unroll
    for (int kk = 0; kk < 2; ++kk) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const uint4 w = other[(2 * m + kk) * 32];
        a[m][0] = w.x, a[m][1] = w.y, a[m][2] = w.z, a[m][3] = w.w;
      }
      weigh<kDim, kDims>(lane, sum_v, a[0], a[1], dy_tile, 32 * (half ^ 1) + 16 * kk, column);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        const uint4 w = other[(4 + 2 * m + kk) * 32];
        a[m][0] = w.x, a[m][1] = w.y, a[m][2] = w.z, a[m][3] = w.w;
      }
      weigh<kDim, kDims>(lane, sum_k, a[0], a[1], q_step, 32 * (half ^ 1) + 16 * kk, column);
    }
  }
  wait_copies<0>();

  const int thread = thread_anew(), g = thread % 32 / 4, t = thread % 4;
  const int key0 = thread / 64 * 32, half = thread / 32 % 2;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int j = j0 + key0 + 16 * m + 8 * r + g;
      if (j >= mask.kv_len) continue;
#pragma unroll
      for (int n = 0; n < kDims; ++n) {
        const int c = half * (kDim / 2) + 8 * n;
        if (c >= mask.head_dim) continue;
        const int64_t row = kv_row + j, at = kv_column + c + 2 * t;
        if (d_k.data != nullptr)
          d_k.store_two(row * d_k.stride + at, sum_k[m][n][2 * r] * mask.scale,
                        sum_k[m][n][2 * r + 1] * mask.scale);
        if (d_v.data != nullptr)
          d_v.store_two(row * d_v.stride + at, sum_v[m][n][2 * r], sum_v[m][n][2 * r + 1]);
      }
    }
}

// d_q of 128 queries, 4 warps of 32 each.
template <int kDim>
struct DQ {
  static constexpr int kKeys = kDim <= 64 ? 64 : 32;  // of a step: registers
  static constexpr int kBytes = Tile<kDim>::bytes(2 * kQueryTile + 4 * kKeys);
};
template <int kDim, bool kSoftcap>
__global__ void __launch_bounds__(kFastThreads, 2)
    attention_d_q_fast(Mask mask, Rows16 q, Rows16 k, Rows16 v, Rows16 d_y, Stats stats, Out d_q) {
  using T = Tile<kDim>;
  constexpr int kKeys = DQ<kDim>::kKeys, kCols = kKeys / 8, kDims = kDim / 8;
  const int tiles = (mask.q_len + kQueryTile - 1) / kQueryTile;
  const int tile = tiles - 1 - static_cast<int>(blockIdx.x) % tiles;
  const int head = static_cast<int>(blockIdx.x) / tiles % mask.heads;
  const int64_t batch = static_cast<int>(blockIdx.x) / tiles / mask.heads;
  const int i0 = tile * kQueryTile, i_last = min(i0 + kQueryTile, mask.q_len) - 1;
  const int first = mask.first_key(i0) / kKeys * kKeys, end = mask.end_key(i_last);

  auto* q_tile = dynamic_shared<unsigned char>();
  unsigned char* dy_tile = q_tile + T::bytes(kQueryTile);
  unsigned char* kv_tiles = dy_tile + T::bytes(kQueryTile);
  const int64_t row = batch * mask.q_len + i0, column = static_cast<int64_t>(head) * mask.head_dim;
  const int64_t kv_row = batch * mask.kv_len,
                kv_column = static_cast<int64_t>(head / mask.group) * mask.head_dim;
  const auto load_kv = [&](int j, int stage) {
    const typename T::Copier copier(thread_anew());
    unsigned char* to = kv_tiles + stage * T::bytes(2 * kKeys);
    copier.template copy<kKeys>(to, k.at(kv_row + j, kv_column), k.stride, mask.kv_len - j,
                                mask.head_dim);
    copier.template copy<kKeys>(to + T::bytes(kKeys), v.at(kv_row + j, kv_column), v.stride,
                                mask.kv_len - j, mask.head_dim);
  };
  const typename T::Copier copier(thread_anew());
  copier.template copy<kQueryTile>(q_tile, q.at(row, column), q.stride, mask.q_len - i0,
                                   mask.head_dim);
  copier.template copy<kQueryTile>(dy_tile, d_y.at(row, column), d_y.stride, mask.q_len - i0,
                                   mask.head_dim);
  load_kv(first, 0);
  commit_copies();

  float sum[2][kDims][4] = {};
  float lse2[2][2], dot[2][2];
  const int first_row =
      static_cast<int>(threadIdx.x) / 32 * 32 + static_cast<int>(threadIdx.x) % 32 / 4;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t at =
          (batch * mask.heads + head) * stats.stride + i0 + first_row + 16 * m + 8 * r;
      lse2[m][r] = stats.lse2[at];
      dot[m][r] = stats.dot[at];
    }

  int stage = 0;
  for (int j0 = first; j0 < end; j0 += kKeys, stage ^= 1) {
    wait_copies<0>();
    __syncthreads();
    if (j0 + kKeys < end) load_kv(j0 + kKeys, stage ^ 1);
    commit_copies();
    const int thread = thread_anew(), g = thread % 32 / 4, t = thread % 4;
    const int row0 = thread / 32 * 32;  // of this warp, in the tile
    const typename T::Lane lane(thread);
    const unsigned char* k_tile = kv_tiles + stage * T::bytes(2 * kKeys);

    float p[2][kCols][4] = {};
    scores<kDim, kCols>(lane, p, q_tile, row0, k_tile, 0);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < kCols; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          float slope;
          p[m][n][c] = weight<kSoftcap>(mask, p[m][n][c], lse2[m][c / 2], slope);
          p[m][n][c] *= slope;
        }
    if (j0 + kKeys > mask.end_key(i0) || j0 < mask.first_key(i_last)) {
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int last = mask.last_key(i0 + row0 + 16 * m + 8 * r + g) - j0 - 2 * t;
#pragma unroll
          for (int n = 0; n < kCols; ++n)
#pragma unroll
            for (int c = 0; c < 2; ++c)
              if (!mask.within(last - (8 * n + c))) p[m][n][2 * r + c] = 0;
        }
    }
    float ds[2][kCols][4];
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int n = 0; n < kCols; ++n)
#pragma unroll
        for (int c = 0; c < 4; ++c) ds[m][n][c] = -dot[m][c / 2];
    scores<kDim, kCols>(lane, ds, dy_tile, row0, k_tile + T::bytes(kKeys), 0);
#pragma unroll
    for (int kk = 0; kk < kCols / 2; ++kk) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          ds[m][2 * kk][c] *= p[m][2 * kk][c];
          ds[m][2 * kk + 1][c] *= p[m][2 * kk + 1][c];
        }
        to_a(a[m], ds[m][2 * kk], ds[m][2 * kk + 1]);
      }
      weigh<kDim, kDims>(lane, sum, a[0], a[1], k_tile, 16 * kk, 0);
    }
  }

  const int thread = thread_anew(), g = thread % 32 / 4, t = thread % 4;
  const int row0 = thread / 32 * 32;
#pragma unroll
  for (int m = 0; m < 2; ++m)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int i = row0 + 16 * m + 8 * r + g;
      if (i0 + i >= mask.q_len) continue;
#pragma unroll
      for (int n = 0; n < kDims; ++n)
        if (8 * n < mask.head_dim)
          d_q.store_two((row + i) * d_q.stride + column + 8 * n + 2 * t,
                        sum[m][n][2 * r] * mask.scale, sum[m][n][2 * r + 1] * mask.scale);
    }
}

}  // namespace
}  // namespace signround::kernels::cuda
