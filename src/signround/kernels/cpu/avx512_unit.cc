// Products of panels by vectors of AVX-512: eight rows of A at a time, each pair (or four) of their
// values spread over a vector, with the 32 columns of B's panel.
#include "signround/kernels/cpu/int8_panels.h"
#include "signround/kernels/cpu/panels.h"

#if defined(__x86_64__)

#include "signround/kernels/cpu/avx512_dots-inl.h"
#include "signround/kernels/cpu/panels_pack-inl.h"
#include "signround/kernels/cpu/x86.h"

#define SIGNROUND_INT8_DOTS __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

namespace signround::kernels::panels {
namespace {

using dots::kRows;
using dots::spread;

const char* why_not_int8() noexcept {
  if (const char* reason = why_no_avx512_bf16()) return reason;
  static const bool has = x86::has_bit(x86::cpuid(7).c, 11);
  return has ? nullptr : "the CPU has no AVX-512 VNNI";
}

void start() noexcept {}
void stop() noexcept { _mm_sfence(); }

// kRows rows of 32 values into the first cache.
template <bool kToWrite>
SIGNROUND_DOTS void fetch_rows(const float* first, int64_t stride) {
  for (int64_t r = 0; r < kRows; ++r, first += stride) {
    __builtin_prefetch(first, kToWrite);
    __builtin_prefetch(first + 16, kToWrite);
  }
}

// Rows [row, row + kRows) of C.
SIGNROUND_DOTS void multiply_rows(const Tile& tile, int64_t row, Ahead ahead) {
  dots::Sums sums;
  dots::start(sums);
  // Rows that are not those of a block's sums lie apart and were not touched for long.
  if (tile.from && tile.from_stride != kPanel)
    fetch_rows<false>(tile.from + row * tile.from_stride, tile.from_stride);
  if (tile.stride != kPanel) fetch_rows<true>(tile.c + row * tile.stride, tile.stride);
  constexpr int64_t kStepBytes = kDepth * int64_t{sizeof(BF16)};
  const bool packed = tile.a_stride == 0;
  const int64_t a_row = packed ? kDepth : tile.a_stride,
                jump = packed ? kStep * int64_t{sizeof(BF16)} - kStepBytes : 0;
  dots::Pairs a = dots::pairs_from(tile.a + row * a_row, a_row * int64_t{sizeof(BF16)});
  const BF16* b = tile.b;
  const auto* lines = static_cast<const char*>(ahead.line);
  for (int64_t step = tile.depth; step > 0; --step, b += kStep / 2, a.jump(jump)) {
    if (lines) {
      fetch_lines(lines, ahead.row);
      lines += ahead.step;
    }
    for (const BF16* end = b + kStep / 2; b < end; b += 32, a.step())
      dots::add(sums, a, b, b + kStep / 2);
  }
  const float* from = tile.from ? tile.from + row * tile.from_stride : tile.bias;
  dots::store(sums, tile.c + row * tile.stride, tile.stride, from,
              tile.from ? tile.from_stride : 0);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,prfchw"))) void multiply(
    const Tile& tile) noexcept {
  // One loop for all: the CPU learns what it reads next by where the instruction is.
  for (int64_t row = 0; row < kPanel; row += kRows)
    multiply_rows(tile, row, row == 0 ? tile.ahead_a : row == kRows ? tile.ahead_b : Ahead{});
}

SIGNROUND_INT8_DOTS inline __attribute__((always_inline)) void multiply_rows(const Int8Tile& tile,
                                                                             int64_t row,
                                                                             Ahead ahead) {
  __m512i sum[kRows][2];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    sum[r][0] = sum[r][1] = _mm512_setzero_si512();
    asm("" : "+v"(sum[r][0]), "+v"(sum[r][1]));  // as dots::start
  }
  const int8_t *a = tile.a + row * kInt8Depth, *b = tile.b;
  const auto* lines = static_cast<const char*>(ahead.line);
  for (int64_t step = 0; step < tile.depth; ++step, a += kInt8Step, b += kInt8Step) {
    if (lines) {
      fetch_lines(lines, ahead.row);
      lines += ahead.step;
    }
    for (int64_t k = 0; k < kInt8Depth; k += 4) {
      const int8_t* right = b + k * 16;
      const __m512i b0 = _mm512_loadu_si512(right), b1 = _mm512_loadu_si512(right + kInt8Step / 2);
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRows; ++r) {
        const __m512i quad = spread(a + r * kInt8Depth + k);
        sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], quad, b0);
        sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], quad, b1);
      }
    }
  }
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t at = (row + r) * kPanel + half * 16;
      const __m512i value =
          tile.from ? _mm512_add_epi32(sum[r][half], _mm512_loadu_si512(tile.from + at))
                    : _mm512_sub_epi32(sum[r][half], _mm512_loadu_si512(tile.excess + half * 16));
      _mm512_storeu_si512(tile.sums + at, value);
    }
}

SIGNROUND_INT8_DOTS void multiply(const Int8Tile& tile) noexcept {
  for (int64_t row = 0; row < kPanel; row += kRows)
    multiply_rows(tile, row, row == 0 ? tile.ahead_a : row == kRows ? tile.ahead_b : Ahead{});
}

}  // namespace

const Unit kAvx512{why_no_avx512_bf16, start, stop, multiply};
const Int8Unit kAvx512Int8{why_not_int8, start, stop, multiply, Codes::kPlus128};

}  // namespace signround::kernels::panels

#else

namespace signround::kernels::panels {
namespace {
void nothing() noexcept {}
void multiply(const Tile&) noexcept {}
void multiply(const Int8Tile&) noexcept {}
}  // namespace
const Unit kAvx512{why_no_avx512_bf16, nothing, nothing, multiply};
const Int8Unit kAvx512Int8{why_no_avx512_bf16, nothing, nothing, multiply, Codes::kPlus128};
}  // namespace signround::kernels::panels

#endif
