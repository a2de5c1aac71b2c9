// What packing for tiles of bf16 and of int8 have in common. For x86-64 only.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "signround/kernels/cpu/panels.h"

// GCC 12 takes the undefined lanes inside its own intrinsics for a mistake of their callers.
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

// Instructions beyond the program's own set are allowed function by function: nothing that other
// files may call too is compiled with them.
#define SIGNROUND_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

namespace signround::kernels::panels {

// Of 16 x 16 lanes of 32 bits.
SIGNROUND_AVX512 inline __attribute__((always_inline)) void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  // Afterwards lane l of r[4 i + j] holds column 4 l + j of rows 4 i to 4 i + 3.
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int j = 0; j < 4; ++j) {
    const __m512i even_top = _mm512_shuffle_i32x4(r[j], r[4 + j], 0x88),
                  odd_top = _mm512_shuffle_i32x4(r[j], r[4 + j], 0xdd),
                  even_low = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0x88),
                  odd_low = _mm512_shuffle_i32x4(r[8 + j], r[12 + j], 0xdd);
    t[j] = _mm512_shuffle_i32x4(even_top, even_low, 0x88);
    t[4 + j] = _mm512_shuffle_i32x4(odd_top, odd_low, 0x88);
    t[8 + j] = _mm512_shuffle_i32x4(even_top, even_low, 0xdd);
    t[12 + j] = _mm512_shuffle_i32x4(odd_top, odd_low, 0xdd);
  }
  for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// The first n of up to 64 lanes; n may be negative or too large.
inline uint64_t lanes(int64_t n, int of) {
  if (n <= 0) return 0;
  return ~uint64_t{0} >> (64 - std::min<int64_t>(n, of));
}

// Into the first cache: eight of the 32 lines that one depth of a panel has.
inline __attribute__((always_inline)) void fetch_quarter(const void* step, int quarter) {
  for (int line = 8 * quarter; line < 8 * (quarter + 1); ++line)
    _mm_prefetch(static_cast<const char*>(step) + 64 * line, _MM_HINT_T0);
}

// Into the second cache: kLinesAhead lines.
inline __attribute__((always_inline)) void fetch_lines(const char* line, int64_t row) {
  for (int i = 0; i < kLinesAhead; ++i) _mm_prefetch(line + i * row, _MM_HINT_T1);
}

}  // namespace signround::kernels::panels
