// Products of bf16 values on x86 CPUs: packing of operands, and the innermost product, by the tile
// registers of AMX or by the vectors of AVX-512. Raw pointers, nothing allocates, nothing throws.
//
// A panel is 32 rows of A, or 32 columns of B, in the order in which tiles read them: for every 32
// values of k two tiles of 16 x 64 bytes, one per half of the panel. A tile of A holds 16 rows of
// 32 values; a tile of B holds 16 rows, one per pair of values of k, of 16 columns times two: a
// vector each. What a panel has beyond the end of the matrix or of k is zero.
#pragma once

#include <cstdint>

#include "signround/tensor/dtype.h"

namespace signround::kernels::panels {

constexpr int64_t kPanel = 32;              // rows of A, or columns of B, in a panel
constexpr int64_t kDepth = 32;              // values of k in a tile
constexpr int64_t kStep = 2 * 16 * kDepth;  // values of a panel for one tile's depth

// nullptr where this CPU has AVX-512 with bf16, which packing and storing are written in, and the
// system saves its registers; else what is missing.
const char* why_no_avx512_bf16() noexcept;

// One operand as it lies in memory: (outer, k) row-major, or with k_major (k, outer); `stride`
// counts values from one stored row to the next.
struct Operand {
  const BF16* data;
  int64_t outer, k, stride;
  bool k_major;
};

// Panels [begin, end) of an operand to out + panel * depth * kStep, where depth is the number of
// tiles along k.
void pack_a(const Operand& a, int64_t begin, int64_t end, BF16* out) noexcept;
void pack_b(const Operand& b, int64_t begin, int64_t end, BF16* out) noexcept;

// Lines of memory that later products will read: for each tile of depth kLinesAhead of them, `row`
// bytes apart and `step` bytes on from those of the tile before. They are fetched into the second
// cache. line null: none.
struct Ahead {
  const void* line = nullptr;
  int64_t row = 0, step = 0;
};
constexpr int64_t kLinesAhead = 4;

// C (32, 32) = A * B over `depth` tiles along k; B is packed. A is a packed panel, or lies in
// memory as 32 whole rows of k values with `a_stride` values from one to the next. C starts from
// the 32 x 32 sums at `from`; where that is null from 32 values of `bias` in every row; where both
// are null from zero.
struct Tile {
  const BF16* a;
  int64_t a_stride = 0;  // 0: packed
  const BF16* b;
  const BF16* next_b;  // what the next product will read, to be fetched ahead into the first cache
  Ahead ahead_a = {}, ahead_b = {};  // both or none
  int64_t depth;
  float* c;
  int64_t stride;     // of C, in values
  const float* from;  // may be c
  int64_t from_stride;
  const float* bias;
};

// What computes it. Between start() and stop(), products can run in the calling thread; a context
// switch keeps what they set up. After stop() other threads see what was streamed.
struct Unit {
  const char* (*why_not)() noexcept;  // nullptr where it can run here, else what is missing
  void (*start)() noexcept;
  void (*stop)() noexcept;
  void (*multiply)(const Tile& tile) noexcept;
};
// By tile registers, which the system must let this process use: asked for at the first why_not().
extern const Unit kAmx;
// By vectors of AVX-512, each lane adding the products of a pair of bf16 values.
extern const Unit kAvx512;

// From C (32, 32), 64-byte aligned, to rows `stride` values apart. stream_*: past the caches, whole
// lines of 64 bytes, which `to` and its rows must begin with. Where memory is not in the caches
// already, an ordinary store waits until its line was read.
void stream_tile(const float* c, float* to, int64_t stride) noexcept;
// Rounded to nearest even; magnitudes below 2^-126 become zero.
void stream_rounded_tile(const float* c, BF16* to, int64_t stride) noexcept;
// The first (rows, cols), rounded in the same way, by ordinary stores.
void store_rounded_tile(const float* c, int64_t rows, int64_t cols, BF16* to,
                        int64_t stride) noexcept;

}  // namespace signround::kernels::panels
