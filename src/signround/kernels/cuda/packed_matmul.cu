// Products with packed weights. Two kernels over the same records (packed_matmul.cuh), both on the
// tensor cores: for one row of x they take a fifth of the time that reading the weights takes, and
// no multiplication is left to the other units.
#include "signround/kernels/packed_matmul.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cuda/packed_matmul.cuh"

namespace signround::kernels {
namespace {

constexpr const char* kWhere = "packed_matmul";
constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kMostDecodeRows = 8;

// ---- what both kernels are given ----

struct Weights {
  const unsigned char* data;
  int64_t tile_bytes;  // from 16 rows to the next
  int tiles, chunks, record;
  int zero;
  bool zeros, f16;
};

struct Products {
  Weights w;
  const void* x;
  int64_t x_stride;
  int in, n;
  DType x_type;
  bool x_aligned;  // to 16 bytes, each row, and `in` is a multiple of 8
  void* y;
  int64_t y_stride;
  int out;
  bool y_bf16;
  PackedTerms terms;
  float* partial;  // (splits, n, tiles * 16), or null: y is written at once
  int splits;
};

__device__ __forceinline__ float value_at(const void* x, DType type, int64_t at) {
  if (type == DType::kBF16) return cuda::bf16_to_f32(static_cast<const uint16_t*>(x)[at]);
  if (type == DType::kF16) return cuda::f16_to_f32(static_cast<const uint16_t*>(x)[at]);
  return static_cast<const float*>(x)[at];
}

// Columns k .. k + 7 of a row as bf16; zeros from `in` on.
__device__ __forceinline__ uint4 eight_of(const Products& a, int row, int k) {
  const int64_t at = row * a.x_stride + k;
  if (a.x_aligned) {
    if (k >= a.in) return make_uint4(0, 0, 0, 0);
    if (a.x_type == DType::kBF16)
      return *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(a.x) + at);
    if (a.x_type == DType::kF32) {
      const float4 l = *reinterpret_cast<const float4*>(static_cast<const float*>(a.x) + at);
      const float4 h = *reinterpret_cast<const float4*>(static_cast<const float*>(a.x) + at + 4);
      return make_uint4(cuda::pack_bf16(l.x, l.y), cuda::pack_bf16(l.z, l.w),
                        cuda::pack_bf16(h.x, h.y), cuda::pack_bf16(h.z, h.w));
    }
  }
  uint32_t two[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int j = k + 2 * i;
    two[i] = cuda::pack_bf16(j < a.in ? value_at(a.x, a.x_type, at + 2 * i) : 0.0f,
                             j + 1 < a.in ? value_at(a.x, a.x_type, at + 2 * i + 1) : 0.0f);
  }
  return make_uint4(two[0], two[1], two[2], two[3]);
}

__device__ __forceinline__ void store(const Products& a, int split, int row, int o, float v) {
  if (a.partial != nullptr) {
    const int width = a.w.tiles * kTileRows;
    a.partial[(static_cast<int64_t>(split) * a.n + row) * width + o] = v;
  } else if (o < a.out) {
    if (a.terms.bias != nullptr) v += a.terms.bias[o];
    if (a.terms.from.data != nullptr) v += a.terms.from.data[row * a.terms.from.stride + o];
    if (a.y_bf16)
      static_cast<uint16_t*>(a.y)[row * a.y_stride + o] = cuda::f32_to_bf16(v);
    else
      static_cast<float*>(a.y)[row * a.y_stride + o] = v;
  }
}

// A record for the whole warp, 16 bytes a lane at a time.
template <int kBits>
__device__ __forceinline__ void copy_record(unsigned char* to, const unsigned char* from, int bytes,
                                            int lane) {
  constexpr int kWhole = kBits / 2 * 512;
  to += lane * 16, from += lane * 16;
#pragma unroll
  for (int at = 0; at < kWhole; at += 512) cuda::copy_16(to + at, from + at);
  if (kWhole + lane * 16 < bytes) cuda::copy_16(to + kWhole, from + kWhole);
  if constexpr (kBits == 3)  // half of the codes, and up to 384 bytes of scales
    if (kWhole + 512 + lane * 16 < bytes) cuda::copy_16(to + kWhole + 512, from + kWhole + 512);
}

// Zero points and scales of rows g and g + 8 for one of a record's groups.
template <int kBits>
__device__ __forceinline__ void grid_of_group(Zeros<kBits>& zeros, float (&scale)[2],
                                              const unsigned char* record, const Weights& w, int g,
                                              int groups, int group) {
  const unsigned char* scales = record + kBits * 256;
  const int at = g * groups + group;
  scales_of(scale, reinterpret_cast<const uint32_t*>(scales)[at], w.f16);
  if (w.zeros) {
    const uint32_t two = reinterpret_cast<const uint16_t*>(scales + groups * 32)[at];
    zeros.set(two & 0xff, two >> 8);
  }
}

// Rows of x in shared memory lie a multiple of 256 bytes apart. Odd ones have their 64-byte halves
// of 128 swapped, so that 8 lanes that read 16 bytes each of two rows meet all banks.
__device__ __forceinline__ int swap_of(int row) { return (row & 1) << 6; }

// Operand b of two tiles, from 16 bytes (two of 8 where groups are 16 wide).
template <bool kNarrow>
__device__ __forceinline__ void load_x(uint32_t (&b)[2][2], const unsigned char* row, int swap,
                                       int tiles_at, int t) {
  if constexpr (kNarrow) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint2 v = *reinterpret_cast<const uint2*>(row + ((tiles_at ^ swap) + 32 * i + 8 * t));
      b[i][0] = v.x, b[i][1] = v.y;
    }
  } else {
    const uint4 v = *reinterpret_cast<const uint4*>(row + ((tiles_at ^ swap) + 16 * t));
    b[0][0] = v.x, b[0][1] = v.y, b[1][0] = v.z, b[1][1] = v.w;
  }
}

// ---- few rows of x ----
// A block takes 16 rows of W at a time, the records of which its warps share; x stays in shared
// memory. Each warp keeps kStages - 1 records on their way, over the end of its rows.

// Small records go by two, or the instructions around them would take longer than their bytes.
__host__ __device__ constexpr int decode_records(int bits) { return bits <= 3 ? 2 : 1; }
__host__ __device__ constexpr int decode_stages(int bits) {
  return bits == 8 ? 3 : bits == 3 ? 4 : 5;
}

// sum += a record's product with its chunk of x.
template <int kBits, int kGroups>
__device__ __forceinline__ void add_record(float (&sum)[4], Zeros<kBits>& zeros,
                                           const unsigned char* record, const Weights& w,
                                           const unsigned char* x, int swap, int lane) {
  constexpr int kTiles = kChunkTiles / kGroups;  // of a group
  uint32_t words[words_of(kBits, kChunkTiles)];
  load_words<kBits, kChunkTiles>(words, record, lane, 0);
  uint32_t b[2][2];
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    float part[4] = {0, 0, 0, 0}, scale[2];
    grid_of_group(zeros, scale, record, w, lane / 4, kGroups, group);
#pragma unroll
    for (int j = group * kTiles; j < (group + 1) * kTiles; ++j) {
      if (j % 2 == 0) load_x<kGroups == 8>(b, x, swap, j * 32, lane % 4);
      uint32_t tile[4];
      unpack<kBits, kChunkTiles>(tile, words, j, 0, zeros);
      cuda::mma_bf16(part, tile, b[j % 2]);
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) sum[r] = fmaf(scale[r / 2], part[r], sum[r]);
  }
}

template <int kBits, int kGroups>
__global__ void __launch_bounds__(kThreads, 3) decode_kernel(Products a) {
  constexpr int kStages = decode_stages(kBits), kRecords = decode_records(kBits);
  constexpr int kStep = kWarps * kRecords;
  unsigned char* const shared = cuda::dynamic_shared<unsigned char>();
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32;
  const int g = lane / 4, t = lane % 4;
  const int split = static_cast<int>(blockIdx.y);
  const int begin = a.w.chunks * split / a.splits, end = a.w.chunks * (split + 1) / a.splits;
  const int mine = begin + warp * kRecords;  // this warp's first chunk
  const int step = static_cast<int>(gridDim.x), slot_bytes = kRecords * a.w.record;

  float* const sums = reinterpret_cast<float*>(shared);  // (2, warps, n, 16)
  unsigned char* const ring = shared + a.n * 1024 + warp * kStages * slot_bytes;
  unsigned char* const xs = shared + a.n * 1024 + kWarps * kStages * slot_bytes;

  int next_tile = static_cast<int>(blockIdx.x), next_chunk = mine;
  const unsigned char* next = nullptr;
  const auto begin_tile = [&] {
    next = a.w.data + next_tile * a.w.tile_bytes + static_cast<int64_t>(next_chunk) * a.w.record;
  };
  begin_tile();
  unsigned char* next_slot = ring;
  unsigned char* const ring_end = ring + kStages * slot_bytes;
  const auto issue = [&] {
    if (next_tile < a.w.tiles && next_chunk < end) {
#pragma unroll
      for (int i = 0; i < kRecords; ++i)
        if (i == 0 || next_chunk + i < end)
          copy_record<kBits>(next_slot + i * a.w.record, next + i * a.w.record, a.w.record, lane);
      next_chunk += kStep;
      next += kStep * a.w.record;
      if (next_chunk >= end) {
        next_chunk = mine, next_tile += step;
        begin_tile();
      }
    }
    next_slot += slot_bytes;
    if (next_slot == ring_end) next_slot = ring;
    cuda::commit_copies();
  };
#pragma unroll 1
  for (int s = 0; s < kStages - 1; ++s) issue();

  const int x_bytes = (end - begin) * 256;
  for (int row = 0; row < a.n; ++row)
    for (int at = tid * 16; at < x_bytes; at += kThreads * 16)
      *reinterpret_cast<uint4*>(xs + row * x_bytes + (at ^ swap_of(row))) =
          eight_of(a, row, begin * kChunk + at / 2);
  __syncthreads();

  const int x_row = min(g, a.n - 1);  // what other columns of the product hold does not matter
  const unsigned char* const my_x = xs + x_row * x_bytes;
  const int swap = swap_of(x_row);
  Zeros<kBits> zeros;
  zeros.set(static_cast<uint32_t>(a.w.zero), static_cast<uint32_t>(a.w.zero));

  const unsigned char* slot = ring;
  int half = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < a.w.tiles; tile += step) {
    float sum[4] = {0, 0, 0, 0};
    for (int chunk = mine; chunk < end; chunk += kStep) {
      __syncwarp();  // all lanes are done with the slot that is filled now
      issue();
      cuda::wait_copies<kStages - 1>();
      __syncwarp();
#pragma unroll 1  // side by side they spill registers
      for (int i = 0; i < kRecords; ++i)
        if (i == 0 || chunk + i < end)
          add_record<kBits, kGroups>(sum, zeros, slot + i * a.w.record, a.w,
                                     my_x + (chunk + i - begin) * 256, swap, lane);
      slot += slot_bytes;
      if (slot == ring_end) slot = ring;
    }
    float* const to = sums + (half * kWarps + warp) * a.n * kTileRows;
#pragma unroll
    for (int r = 0; r < 4; ++r)
      if (2 * t + r % 2 < a.n) to[(2 * t + r % 2) * kTileRows + g + r / 2 * 8] = sum[r];
    __syncthreads();
    if (tid < a.n * kTileRows) {
      float all = 0;
      for (int i = 0; i < kWarps; ++i) all += sums[(half * kWarps + i) * a.n * kTileRows + tid];
      store(a, split, tid / kTileRows, tile * kTileRows + tid % kTileRows, all);
    }
    half ^= 1;  // the other half was read before the barrier above
  }
}

// ---- many rows of x ----
// A block takes 8 * kRows tiles of W (each warp kRows of them) by 8 * kCols rows of x, and goes
// through its split of `in` chunk by chunk. Records belong to one warp, chunks of x to all.

struct Batch {
  Products p;
  int groups, stages;
};

__device__ __forceinline__ void wait_for_stage(int stages) {
  if (stages == 4)
    cuda::wait_copies<2>();
  else if (stages == 3)
    cuda::wait_copies<1>();
  else
    cuda::wait_copies<0>();
}

// kSlab: tiles whose products are summed before a scale is applied.
template <int kBits, int kRows, int kCols, int kSlab>
__global__ void __launch_bounds__(kThreads, kRows* kCols > 8 ? 1 : 2) batch_kernel(Batch batch) {
  const Products& a = batch.p;
  unsigned char* const shared = cuda::dynamic_shared<unsigned char>();
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32;
  const int g = lane / 4, t = lane % 4;
  const int split = static_cast<int>(blockIdx.y);
  const int begin = a.w.chunks * split / a.splits, end = a.w.chunks * (split + 1) / a.splits;
  const int first_row = static_cast<int>(blockIdx.z) * kCols * 8;
  const int first_tile = (static_cast<int>(blockIdx.x) * kWarps + warp) * kRows;
  constexpr int kXBytes = kCols * 8 * 256;
  // Unrolled, some shapes spill registers; 3 bits must know the places of their high bits.
  [[maybe_unused]] constexpr int kUnroll = kBits == 3 && kSlab == 2 ? 2 : 1;
  const int stage_bytes = kXBytes + kWarps * kRows * a.w.record;
  const int warp_at = kXBytes + warp * kRows * a.w.record;
  const uint16_t* const x = static_cast<const uint16_t*>(a.x);

  int next_slot = 0;
  const auto issue = [&](int chunk) {
    if (chunk < end) {
      unsigned char* const stage = shared + next_slot * stage_bytes;
#pragma unroll 1
      for (int u = tid; u < kCols * 128; u += kThreads) {
        const int row = u / 16, k = chunk * kChunk + u % 16 * 8;
        const bool valid = first_row + row < a.n && k < a.in;
        cuda::copy_16(stage + row * 256 + (u % 16 * 16 ^ swap_of(row)),
                      valid ? x + (first_row + row) * a.x_stride + k : x, valid);
      }
#pragma unroll
      for (int m = 0; m < kRows; ++m)
        if (first_tile + m < a.w.tiles)
          copy_record<kBits>(stage + warp_at + m * a.w.record,
                             a.w.data + (first_tile + m) * a.w.tile_bytes +
                                 static_cast<int64_t>(chunk) * a.w.record,
                             a.w.record, lane);
    }
    next_slot = next_slot == batch.stages - 1 ? 0 : next_slot + 1;
    cuda::commit_copies();
  };
#pragma unroll 1
  for (int s = 0; s < batch.stages - 1; ++s) issue(begin + s);

  Zeros<kBits> zeros;
  zeros.set(static_cast<uint32_t>(a.w.zero), static_cast<uint32_t>(a.w.zero));
  float sum[kRows][kCols][4] = {};
  int slot = 0;
  for (int chunk = begin; chunk < end; ++chunk) {
    wait_for_stage(batch.stages);
    __syncthreads();
    issue(chunk + batch.stages - 1);
    const unsigned char* const stage = shared + slot * stage_bytes;
    slot = slot == batch.stages - 1 ? 0 : slot + 1;
    const unsigned char* const my_x = stage + g * 256;
#pragma unroll kUnroll
    for (int first = 0; first < kChunkTiles; first += kSlab) {
      uint32_t w[kRows][kSlab][4];
      float scale[kRows][2];
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        const unsigned char* const record = stage + warp_at + m * a.w.record;
        grid_of_group(zeros, scale[m], record, a.w, g, batch.groups,
                      first * batch.groups / kChunkTiles);
        uint32_t words[words_of(kBits, kSlab)];
        load_words<kBits, kSlab>(words, record, lane, first);
#pragma unroll
        for (int j = 0; j < kSlab; ++j)
          unpack<kBits, kSlab>(w[m][j], words, j, kSlab == 4 ? 0 : first, zeros);
      }
#pragma unroll
      for (int c = 0; c < kCols; c += 2) {
        float part[2][kRows][4] = {};
#pragma unroll
        for (int j = 0; j < kSlab; j += 2) {
          uint32_t b[2][2][2];
#pragma unroll
          for (int i = 0; i < 2; ++i)
            load_x<false>(b[i], my_x + (c + i) * 8 * 256, swap_of(g), (first + j) * 32, t);
#pragma unroll
          for (int jj = 0; jj < 2; ++jj)
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
              for (int m = 0; m < kRows; ++m) cuda::mma_bf16(part[i][m], w[m][j + jj], b[i][jj]);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int m = 0; m < kRows; ++m)
#pragma unroll
            for (int r = 0; r < 4; ++r)
              sum[m][c + i][r] = fmaf(scale[m][r / 2], part[i][m][r], sum[m][c + i][r]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    if (first_tile + m >= a.w.tiles) continue;
#pragma unroll
    for (int c = 0; c < kCols; ++c)
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const int row = first_row + c * 8 + 2 * t + r % 2;
        if (row < a.n)
          store(a, split, row, (first_tile + m) * kTileRows + g + r / 2 * 8, sum[m][c][r]);
      }
  }
}

// ---- around them ----

// y = the sum of all splits, in their order.
__global__ void __launch_bounds__(kThreads) add_splits(Products a) {
  const int o = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  const int row = static_cast<int>(blockIdx.y), width = a.w.tiles * kTileRows;
  if (o >= a.out) return;
  float sum = 0;
  for (int s = 0; s < a.splits; ++s)
    sum += a.partial[(static_cast<int64_t>(s) * a.n + row) * width + o];
  a.partial = nullptr;
  store(a, 0, row, o, sum);
}

// x as bf16, rows of a whole number of chunks, for the copies of batch_kernel.
__global__ void __launch_bounds__(kThreads) convert_rows(Products a, uint16_t* to) {
  const int width = a.w.chunks * kChunk, row = static_cast<int>(blockIdx.y);
  const int k = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * 8;
  if (k < width)
    *reinterpret_cast<uint4*>(to + static_cast<int64_t>(row) * width + k) = eight_of(a, row, k);
}

// ---- on the host ----

template <int kBits>
void launch_decode(const PackedLayout& l, const PackedPlan& plan, const Products& a) {
  const dim3 grid = cuda::grid_of(plan.blocks, plan.splits), block(kThreads);
  switch (l.groups) {
    case 1:
      return cuda::launch(decode_kernel<kBits, 1>, grid, block, plan.shared_bytes, a);
    case 2:
      return cuda::launch(decode_kernel<kBits, 2>, grid, block, plan.shared_bytes, a);
    case 4:
      return cuda::launch(decode_kernel<kBits, 4>, grid, block, plan.shared_bytes, a);
    default:
      return cuda::launch(decode_kernel<kBits, 8>, grid, block, plan.shared_bytes, a);
  }
}

// Tiles of W for each warp. Two halve what is read of x from shared memory; 128 sums of a thread
// are the most that its registers hold.
int batch_tiles(int rows) { return rows == 16 ? 1 : 2; }

template <int kBits, int kSlab>
void launch_batch(const PackedLayout& l, const PackedPlan& plan, const Products& p) {
  const Batch batch{p, l.groups, plan.stages};
  const dim3 grid = cuda::grid_of(cuda::ceil_div(l.tiles, kWarps * batch_tiles(plan.rows)),
                                  plan.splits, cuda::ceil_div(p.n, plan.rows));
  const dim3 block(kThreads);
  switch (plan.rows) {
    case 16:
      return cuda::launch(batch_kernel<kBits, 1, 2, kSlab>, grid, block, plan.shared_bytes, batch);
    case 32:
      return cuda::launch(batch_kernel<kBits, 2, 4, kSlab>, grid, block, plan.shared_bytes, batch);
    default:
      return cuda::launch(batch_kernel<kBits, 2, 8, kSlab>, grid, block, plan.shared_bytes, batch);
  }
}

template <int kBits>
void launch_product(const PackedLayout& l, const PackedPlan& plan, const Products& a) {
  if (plan.kernel == PackedPlan::Kernel::kDecode)
    launch_decode<kBits>(l, plan, a);
  else if (l.groups <= 2)
    launch_batch<kBits, 4>(l, plan, a);
  else
    launch_batch<kBits, 2>(l, plan, a);
}

int64_t decode_bytes(const PackedWeight& w, int64_t rows, int64_t splits) {
  return rows * 1024 +
         int64_t{kWarps} * decode_stages(w.spec().bits) * decode_records(w.spec().bits) *
             w.layout().record_bytes +
         rows * cuda::ceil_div(w.layout().chunks, splits) * 256;
}

// Blocks that a multiprocessor holds, by its shared memory; most: by registers.
int64_t blocks_at_once(const PackedWeight& w, int64_t bytes, int64_t most) {
  return std::clamp<int64_t>((w.shared_limit() + 1024) / (bytes + 1024), 1, most);
}

// Rows that a call of kDecode takes at once: as many as leave x beside the records.
PackedPlan decode_plan(const PackedWeight& w, int64_t n, int64_t splits) {
  PackedPlan plan;
  int64_t rows = std::min<int64_t>(n, kMostDecodeRows);
  while (rows > 1 && decode_bytes(w, rows, splits) > w.shared_limit()) --rows;
  while (decode_bytes(w, rows, splits) > w.shared_limit() && splits < w.layout().chunks) ++splits;
  plan.rows = static_cast<int>(rows);
  plan.splits = static_cast<int>(splits);
  plan.stages = decode_stages(w.spec().bits);
  plan.shared_bytes = decode_bytes(w, rows, splits);
  return plan;
}

// Of so many blocks along `out`, the number that leaves the fewest waiting at the end.
int64_t best_blocks(const PackedWeight& w, const PackedPlan& plan) {
  const int64_t tiles = w.layout().tiles, most = blocks_at_once(w, plan.shared_bytes, 3);
  int64_t best = 0;
  double best_share = 0;
  for (int64_t held = most; held > 0; --held) {
    const int64_t blocks = std::max<int64_t>(1, held * w.multiprocessors() / plan.splits);
    if (blocks >= tiles && best == 0) return tiles;
    const double share = double(tiles) / double(cuda::ceil_div(tiles, blocks) * blocks);
    if (held > 1 || best == 0)
      if (share > best_share + 0.02) best_share = share, best = blocks;
  }
  return std::min(best, tiles);
}

bool batch_fits(const PackedWeight& w, PackedPlan& plan) {
  if (w.layout().groups > 4) return false;
  const int64_t stage =
      plan.rows * 256 + int64_t{kWarps} * batch_tiles(plan.rows) * w.layout().record_bytes;
  for (int stages = 4; stages >= 2; --stages) {
    if (stages * stage > w.shared_limit()) continue;
    plan.kernel = PackedPlan::Kernel::kBatch;
    plan.stages = stages;
    plan.shared_bytes = stages * stage;
    return true;
  }
  return false;
}

// Time of a plan in chunks of one block: the rounds of all blocks, with a pipeline to fill in each,
// and what the sums of splits cost to write and read again.
double batch_cost(const PackedWeight& w, const PackedPlan& plan, int64_t n, int64_t splits) {
  const PackedLayout& l = w.layout();
  const int64_t held = blocks_at_once(w, plan.shared_bytes, plan.rows == 64 ? 1 : 2);
  const int64_t blocks = cuda::ceil_div(l.tiles, kWarps * batch_tiles(plan.rows)) *
                         cuda::ceil_div(n, plan.rows) * splits;
  const double rounds = double(cuda::ceil_div(blocks, held * w.multiprocessors()));
  const double per_block = double(cuda::ceil_div(l.chunks, splits)) + 3;
  if (splits == 1) return rounds * per_block;
  const double sum_bytes = 2.0 * double(splits) * double(n) * double(l.tiles) * kTileRows * 4;
  const double chunk_bytes =
      double(kWarps * batch_tiles(plan.rows)) * l.record_bytes + plan.rows * 256.0;
  return rounds * per_block + 4 + sum_bytes / chunk_bytes / double(held * w.multiprocessors());
}

constexpr int64_t kMostSplits = 16;

PackedPlan batch_plan(const PackedWeight& w, int64_t n, PackedPlan plan) {
  double best = 0;
  for (int64_t splits = 1; splits <= std::min(kMostSplits, w.layout().chunks); ++splits) {
    const double cost = batch_cost(w, plan, n, splits);
    if (splits > 1 && cost >= best) continue;
    best = cost;
    plan.splits = static_cast<int>(splits);
  }
  return plan;
}

int64_t partial_bytes(const PackedWeight& w, const PackedPlan& plan, int64_t n) {
  if (plan.splits == 1) return 0;
  if (plan.kernel == PackedPlan::Kernel::kDecode) n = std::min<int64_t>(n, plan.rows);
  return plan.splits * n * w.layout().tiles * kTileRows * 4;
}

uint16_t scale_bits(float scale, bool f16) {
  return f16 ? to_f16(scale).bits : to_bf16(scale).bits;
}

}  // namespace

PackedWeight::PackedWeight(const PackedSpec& spec, const uint8_t* codes, const float* scales,
                           const uint8_t* zeros)
    : spec_(spec) {
  require(spec.out > 0 && spec.in > 0, kWhere, "a weight of ", spec.out, " x ", spec.in);
  const int bits = spec.bits;
  if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
    fail(ErrorKind::kUnsupported, kWhere, bits, " bits, expected 2, 3, 4 or 8");
  const int64_t group = spec.weights_per_scale(), groups = spec.groups();
  // Scales of wider groups are repeated: a group never crosses records.
  const int64_t width = groups == 1 ? kChunk : std::gcd(group, int64_t{kChunk});
  if (width < 16)
    fail(ErrorKind::kUnsupported, kWhere, "groups of ", group,
         " weights, expected a multiple of 16");
  PackedLayout& l = layout_;
  l.tiles = cuda::ceil_div(spec.out, kTileRows);
  l.chunks = cuda::ceil_div(spec.in, kChunk);
  require(l.tiles * kTileRows < INT32_MAX && l.chunks * kChunk < INT32_MAX, kWhere, "a weight of ",
          spec.out, " x ", spec.in);
  l.groups = static_cast<int>(kChunk / width);

  const int64_t count = spec.out * groups;
  bool f16 = true, bf16 = true;
  l.zero = zeros[0];
  for (int64_t i = 0; i < count; ++i) {
    f16 = f16 && round_to_f16(scales[i]) == scales[i];
    bf16 = bf16 && round_to_bf16(scales[i]) == scales[i];
    l.zeros = l.zeros || zeros[i] != l.zero;
    require(zeros[i] >> bits == 0, kWhere, "zero point ", int(zeros[i]), " of ", bits, " bits");
  }
  if (!f16 && !bf16)
    fail(ErrorKind::kUnsupported, kWhere, "scales that neither F16 nor BF16 holds exactly");
  l.f16 = f16;
  l.record_bytes = bits * 256 + l.groups * (l.zeros ? 48 : 32);

  const auto bytes = static_cast<size_t>(l.tiles * l.chunks * l.record_bytes);
  std::vector<unsigned char> packed(bytes);
  std::atomic<bool> too_large = false;
  parallel_for(l.tiles, 1, [&](int64_t first, int64_t last) {
    uint8_t or_all = 0;
    for (int64_t record = first * l.chunks; record < last * l.chunks; ++record) {
      const int64_t tile = record / l.chunks, chunk = record % l.chunks;
      unsigned char* const to = packed.data() + record * l.record_bytes;
      uint32_t words[8 * 256 / 4] = {};  // the codes
      const auto code = [&](int64_t row, int64_t col) -> uint32_t {
        if (row >= spec.out || col >= spec.in) return 0;
        const uint8_t c = codes[row * spec.in + col];
        or_all |= c;
        return c;
      };
      for (int j = 0; j < kChunkTiles; ++j)
        for (int lane = 0; lane < 32; ++lane)
          for (int r = 0; r < 4; ++r)
            for (int half = 0; half < 2; ++half) {
              const int64_t row = tile * kTileRows + lane / 4 + r % 2 * 8;
              const uint32_t c =
                  code(row, chunk * kChunk + column_of(l.groups, j, lane % 4, r, half));
              const int up = 16 * half;
              if (bits == 8) {
                words[j / 2 * 128 + lane * 4 + j % 2 * 2 + r / 2] |= c << (16 * (r % 2) + 8 * half);
              } else if (bits == 4) {
                words[j / 4 * 128 + lane * 4 + j % 4] |= c << (4 * r + up);
              } else {
                words[lane * 4 + j / 2] |= (c & 3) << (2 * (4 * (j % 2) + r) + up);
                if (bits == 3)
                  words[128 + lane * 2 + j / 4] |= c >> 2 << (high_bit_of(4 * (j % 4) + r) + up);
              }
            }
      std::memcpy(to, words, static_cast<size_t>(bits) * 256);
      for (int g = 0; g < 8; ++g)
        for (int i = 0; i < l.groups; ++i)
          for (int half = 0; half < 2; ++half) {
            const int64_t row = tile * kTileRows + g + 8 * half;
            const int64_t col = chunk * kChunk + i * width;
            if (row >= spec.out || col >= spec.in) continue;
            const int64_t from = row * groups + col / group;
            const int at = (g * l.groups + i) * 2 + half;
            const uint16_t scale = scale_bits(scales[from], l.f16);
            std::memcpy(to + bits * 256 + 2 * at, &scale, 2);
            if (l.zeros) to[bits * 256 + l.groups * 32 + at] = zeros[from];
          }
    }
    if (or_all >> bits != 0) too_large = true;
  });
  require(!too_large, kWhere, "a code of more than ", bits, " bits");

  const DeviceFacts facts = device_facts(current_device());
  multiprocessors_ = facts.multiprocessors;
  const bool large = facts.major == 9 || facts.major == 10;
  const bool middle = facts.major == 8 && (facts.minor == 0 || facts.minor == 7);
  shared_limit_ = (large ? 227 : middle ? 163 : 99) * 1024;
  data_ = Buffer(static_cast<int64_t>(bytes), current_device());
  copy_to_device(data_.data(), packed.data(), static_cast<int64_t>(bytes));
  synchronize();
}

PackedWeight PackedWeight::copy() const {
  PackedWeight other;
  other.spec_ = spec_;
  other.layout_ = layout_;
  other.multiprocessors_ = multiprocessors_;
  other.shared_limit_ = shared_limit_;
  other.data_ = Buffer(data_.bytes(), data_.device());
  copy_on_device(other.data_.data(), data_.data(), data_.bytes());
  return other;
}

PackedPlan plan_packed_matmul(const PackedWeight& w, int64_t n) {
  const int64_t tiles = w.layout().tiles, chunks = w.layout().chunks;
  // A second kernel costs about what a warp needs for 8 records.
  const int64_t splits =
      tiles >= w.multiprocessors() || chunks <= 8 * kWarps
          ? 1
          : std::min(cuda::ceil_div(2 * w.multiprocessors(), tiles), chunks / (2 * kWarps));
  PackedPlan decode = decode_plan(w, n, splits);
  decode.blocks = static_cast<int>(best_blocks(w, decode));
  if (n <= decode.rows) return decode;
  PackedPlan batch;
  for (const int rows : {64, 32, 16}) {
    if (rows > 16 && n <= rows / 2) continue;
    batch.rows = rows;
    if (batch_fits(w, batch)) return batch_plan(w, n, batch);
  }
  return decode;
}

std::vector<PackedPlan> packed_matmul_plans(const PackedWeight& w, int64_t n) {
  std::vector<PackedPlan> plans;
  const int64_t tiles = w.layout().tiles;
  for (const int64_t splits : {1, 2, 3, 4, 6, 8, 12, 16}) {
    if (splits > w.layout().chunks) break;
    if (n <= 2 * kMostDecodeRows) {
      PackedPlan plan = decode_plan(w, n, splits);
      const int64_t most = blocks_at_once(w, plan.shared_bytes, 3);
      for (int64_t held = 1; plan.splits == splits && held <= most + 1; ++held) {
        const int64_t blocks = std::max<int64_t>(1, held * w.multiprocessors() / splits);
        plan.blocks = static_cast<int>(held > most ? tiles : std::min(blocks, tiles));
        plans.push_back(plan);
        if (plan.blocks == tiles) break;
      }
    }
    for (const int rows : {16, 32, 64}) {
      PackedPlan plan;
      plan.rows = rows;
      plan.splits = static_cast<int>(splits);
      if (batch_fits(w, plan)) plans.push_back(plan);
    }
  }
  return plans;
}

int64_t packed_matmul_scratch_bytes(const PackedWeight& w, const PackedPlan& plan, int64_t n) {
  const int64_t rows =
      plan.kernel == PackedPlan::Kernel::kBatch ? n * w.layout().chunks * kChunk * 2 : 0;
  return partial_bytes(w, plan, n) + rows;
}

int64_t packed_matmul_scratch_bytes(const PackedWeight& w, int64_t n) {
  return n == 0 ? 0 : packed_matmul_scratch_bytes(w, plan_packed_matmul(w, n), n);
}

void packed_matmul(const PackedWeight& w, int64_t n, RowsAny x, RowsOut y, void* scratch,
                   const PackedTerms& terms) {
  if (n > 0) packed_matmul(w, plan_packed_matmul(w, n), n, x, y, scratch, terms);
}

void packed_matmul(const PackedWeight& w, const PackedPlan& plan, int64_t n, RowsAny x, RowsOut y,
                   void* scratch, const PackedTerms& terms) {
  if (n == 0) return;
  const PackedLayout& l = w.layout();
  if (x.dtype != DType::kF32 && x.dtype != DType::kBF16 && x.dtype != DType::kF16)
    fail(ErrorKind::kUnsupported, kWhere, "x of ", name_of(x.dtype));
  if (y.dtype != DType::kF32 && y.dtype != DType::kBF16)
    fail(ErrorKind::kUnsupported, kWhere, "y of ", name_of(y.dtype));
  require(n > 0 && n < (1 << 20), kWhere, n, " rows");
  Products p;
  p.w = {static_cast<const unsigned char*>(w.data()),
         l.chunks * l.record_bytes,
         static_cast<int>(l.tiles),
         static_cast<int>(l.chunks),
         l.record_bytes,
         l.zero,
         l.zeros,
         l.f16};
  p.x = x.data;
  p.x_stride = x.stride;
  p.in = static_cast<int>(w.spec().in);
  p.n = static_cast<int>(n);
  p.x_type = x.dtype;
  const int64_t x_size = size_of(x.dtype);
  p.x_aligned =
      p.in % 8 == 0 && x.stride * x_size % 16 == 0 && reinterpret_cast<uintptr_t>(x.data) % 16 == 0;
  p.y = y.data;
  p.y_stride = y.stride;
  p.out = static_cast<int>(w.spec().out);
  p.y_bf16 = y.dtype == DType::kBF16;
  p.terms = terms;
  p.splits = plan.splits;
  p.partial = plan.splits > 1 ? static_cast<float*>(scratch) : nullptr;

  const auto run = [&](const Products& a) {
    switch (w.spec().bits) {
      case 2:
        launch_product<2>(l, plan, a);
        break;
      case 3:
        launch_product<3>(l, plan, a);
        break;
      case 4:
        launch_product<4>(l, plan, a);
        break;
      default:
        launch_product<8>(l, plan, a);
    }
    if (a.partial != nullptr)
      cuda::launch(add_splits, cuda::grid_of(cuda::ceil_div(a.out, kThreads), a.n), dim3(kThreads),
                   0, a);
  };

  if (plan.kernel == PackedPlan::Kernel::kDecode) {
    for (int64_t first = 0; first < n; first += plan.rows) {
      Products a = p;
      a.n = static_cast<int>(std::min<int64_t>(plan.rows, n - first));
      a.x = static_cast<const char*>(x.data) + first * x.stride * x_size;
      a.y = static_cast<char*>(y.data) + first * y.stride * size_of(y.dtype);
      if (terms.from.data != nullptr) a.terms.from.data += first * terms.from.stride;
      run(a);
    }
    return;
  }
  if (p.x_type != DType::kBF16 || !p.x_aligned) {
    const int64_t width = l.chunks * kChunk;
    auto* const to =
        reinterpret_cast<uint16_t*>(static_cast<char*>(scratch) + partial_bytes(w, plan, n));
    cuda::launch(convert_rows, cuda::grid_of(cuda::ceil_div(width / 8, kThreads), n),
                 dim3(kThreads), 0, p, to);
    p.x = to;
    p.x_stride = width;
    p.in = static_cast<int>(width);
    p.x_type = DType::kBF16;
    p.x_aligned = true;
  }
  run(p);
}

}  // namespace signround::kernels
