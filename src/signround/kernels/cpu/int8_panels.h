// Products of 8-bit integers on x86 CPUs. As panels.h; here operands of bf16 are rounded while they
// are packed: every row of A and column of B by a step of its own (int8_step.h).
//
// A panel is 32 rows of A, or columns of B; for every 64 values of k it has two tiles of 16 x 64
// bytes. A tile of A holds 16 rows of 64 values; a tile of B holds 16 rows, one per four values of
// k, of 16 columns times four. What a panel has beyond the end of the matrix or of k is zero.
#pragma once

#include <cstdint>

#include "signround/kernels/cpu/panels.h"

namespace signround::kernels::panels {

constexpr int64_t kInt8Depth = 64;                  // values of k in a tile
constexpr int64_t kInt8Step = 2 * 16 * kInt8Depth;  // values of a panel for one tile's depth

// What is added to the codes of A: 128 where a unit multiplies unsigned with signed bytes.
enum class Codes : uint8_t { kSigned = 0, kPlus128 = 0x80 };

// Panels [begin, end) of an operand to out + panel * depth * kInt8Step, where depth is the number
// of tiles along k, and their steps to steps + panel * kPanel.
void quantize_a(const Operand& a, int64_t begin, int64_t end, Codes codes, int8_t* out,
                float* steps) noexcept;
// excess: what codes of A that have 128 added give too much in each column of C, 128 times the sum
// of the codes of B, to excess + panel * kPanel; null where it is not wanted.
void quantize_b(const Operand& b, int64_t begin, int64_t end, int8_t* out, float* steps,
                int32_t* excess) noexcept;

// sums (32, 32) = A * B over `depth` tiles along k, plus those at `from`; where that is null, minus
// the 32 values of `excess` in every row, unless that is null too. Products of 8 bits along
// kInt8StepValues of k stay below 2^27.
struct Int8Tile {
  const int8_t *a, *b;  // packed
  const int8_t*
      next_b;  // what the next product will read, to be fetched ahead into the first cache
  Ahead ahead_a = {}, ahead_b = {};
  int64_t depth;
  const int32_t* from;    // may be sums
  const int32_t* excess;  // of whole columns of B: for the first part of k
  int32_t* sums;
};

// What computes it, as Unit.
struct Int8Unit {
  const char* (*why_not)() noexcept;
  void (*start)() noexcept;
  void (*stop)() noexcept;
  void (*multiply)(const Int8Tile& tile) noexcept;
  Codes codes;  // that it reads of A; with kPlus128 products want the excess
};
extern const Int8Unit kAmxInt8, kAvx512Int8;

// c (rows, cols), at most 32 x 32, from such sums: each times the step of its row and of its
// column, plus the value at `from` unless it is null.
struct Int8Sums {
  const int32_t* sums;
  const float *a_steps, *b_steps;  // 32 of the panel
  const float* from;
  int64_t from_stride;
  float* c;
  int64_t stride, rows, cols;
};
void scale(const Int8Sums& tile) noexcept;

}  // namespace signround::kernels::panels
