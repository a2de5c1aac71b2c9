// Products of panels by vectors of AVX-512: eight rows of A at a time, each pair (or four) of their
// values spread over a vector, with the 32 columns of B's panel.
#include "signround/kernels/cpu/int8_panels.h"
#include "signround/kernels/cpu/panels.h"

#if defined(__x86_64__)

#include <cstring>

#include "signround/kernels/cpu/panels_pack-inl.h"
#include "signround/kernels/cpu/x86.h"

#define SIGNROUND_DOTS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,prfchw")))
#define SIGNROUND_INT8_DOTS __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define SIGNROUND_INLINE inline __attribute__((always_inline))

namespace signround::kernels::panels {
namespace {

constexpr int kRows = 8;  // times two vectors of columns: 16 sums, twice what hides their latency

const char* why_not_int8() noexcept {
  if (const char* reason = why_no_avx512_bf16()) return reason;
  static const bool has = x86::has_bit(x86::cpuid(7).c, 11);
  return has ? nullptr : "the CPU has no AVX-512 VNNI";
}

void start() noexcept {}
void stop() noexcept { _mm_sfence(); }

// Four bytes in every lane.
SIGNROUND_AVX512 SIGNROUND_INLINE __m512i spread(const void* bytes) {
  int32_t value;
  std::memcpy(&value, bytes, sizeof value);
  return _mm512_set1_epi32(value);
}

// kRows rows of 32 values into the first cache.
template <bool kToWrite>
SIGNROUND_DOTS SIGNROUND_INLINE void fetch_rows(const float* first, int64_t stride) {
  for (int64_t r = 0; r < kRows; ++r, first += stride) {
    __builtin_prefetch(first, kToWrite);
    __builtin_prefetch(first + 16, kToWrite);
  }
}

// Rows [row, row + kRows) of C. What sums start from is added last, so that nothing waits for it.
// Addresses are few, since GCC would keep more of them in registers of vectors, and wait for those.
SIGNROUND_DOTS SIGNROUND_INLINE void multiply_rows(const Tile& tile, int64_t row, Ahead ahead) {
  static_assert(kRows == 8);
  __m512 sum[kRows][2];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    // GCC 12 would take all zeros for one value, and copy registers in the loop.
    asm("" : "+v"(sum[r][0]), "+v"(sum[r][1]));
  }
  // Rows that are not those of a block's sums lie apart and were not touched for long.
  if (tile.from && tile.from_stride != kPanel)
    fetch_rows<false>(tile.from + row * tile.from_stride, tile.from_stride);
  if (tile.stride != kPanel) fetch_rows<true>(tile.c + row * tile.stride, tile.stride);
  constexpr int64_t kStepBytes = kDepth * int64_t{sizeof(BF16)};
  const bool packed = tile.a_stride == 0;
  const int64_t one = (packed ? kDepth : tile.a_stride) * int64_t{sizeof(BF16)}, three = 3 * one,
                jump = packed ? kStep * int64_t{sizeof(BF16)} - kStepBytes : 0;
  const char *top = reinterpret_cast<const char*>(tile.a) + row * one, *low = top + 4 * one;
  const BF16* right = tile.b;
  const auto* lines = static_cast<const char*>(ahead.line);
  for (int64_t step = tile.depth; step > 0; --step, right += kStep / 2, top += jump, low += jump) {
    if (lines) {
      fetch_lines(lines, ahead.row);
      lines += ahead.step;
    }
    for (const BF16* end = right + kStep / 2; right < end; right += 32, top += 4, low += 4) {
      const auto b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right));
      const auto b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right + kStep / 2));
      const char* const from[kRows] = {top, top + one, top + 2 * one, top + three,
                                       low, low + one, low + 2 * one, low + three};
#pragma GCC unroll 8
      for (int64_t r = 0; r < kRows; ++r) {
        const auto pair = reinterpret_cast<__m512bh>(spread(from[r]));
        sum[r][0] = _mm512_dpbf16_ps(sum[r][0], pair, b0);
        sum[r][1] = _mm512_dpbf16_ps(sum[r][1], pair, b1);
      }
    }
  }
  const float* from = tile.from ? tile.from + row * tile.from_stride : tile.bias;
  const int64_t from_row = tile.from ? tile.from_stride : 0;
  float* c = tile.c + row * tile.stride;
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      __m512 value = sum[r][half];
      if (from) value = _mm512_add_ps(value, _mm512_loadu_ps(from + r * from_row + 16 * half));
      _mm512_storeu_ps(c + r * tile.stride + 16 * half, value);
    }
}

SIGNROUND_DOTS void multiply(const Tile& tile) noexcept {
  // One loop for all: the CPU learns what it reads next by where the instruction is.
  for (int64_t row = 0; row < kPanel; row += kRows)
    multiply_rows(tile, row, row == 0 ? tile.ahead_a : row == kRows ? tile.ahead_b : Ahead{});
}

SIGNROUND_INT8_DOTS SIGNROUND_INLINE void multiply_rows(const Int8Tile& tile, int64_t row,
                                                        Ahead ahead) {
  __m512i sum[kRows][2];
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    sum[r][0] = sum[r][1] = _mm512_setzero_si512();
    // GCC 12 would take all zeros for one value, and copy registers in the loop.
    asm("" : "+v"(sum[r][0]), "+v"(sum[r][1]));
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
