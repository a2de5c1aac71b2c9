// The innermost loop of products of bf16 values by vectors of AVX-512: eight rows of C times two
// vectors of columns. For x86-64 only.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define SIGNROUND_DOTS \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,prfchw"), always_inline)) inline

namespace signround::kernels::dots {

constexpr int64_t kRows = 8;  // times two vectors: 16 sums, twice what hides their latency

struct Sums {
  __m512 of[kRows][2];
};

SIGNROUND_DOTS void start(Sums& sums) {
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    sums.of[r][0] = sums.of[r][1] = _mm512_setzero_ps();
    // GCC 12 would take all zeros for one value, and copy registers in the loop.
    asm("" : "+v"(sums.of[r][0]), "+v"(sums.of[r][1]));
  }
}

// Four bytes in every lane.
__attribute__((target("avx512f"), always_inline)) inline __m512i spread(const void* bytes) {
  int32_t value;
  std::memcpy(&value, bytes, sizeof value);
  return _mm512_set1_epi32(value);
}

// Rows of A, a pair of values of each: four from `top` on and four from `low` on, `one` bytes
// apart; three is 3 * one. So few addresses stay in general registers: GCC moves what is too many
// through those of vectors, where it waits behind products.
struct Pairs {
  const char *top, *low;
  int64_t one, three;
  void step() { top += 4, low += 4; }
  void jump(int64_t bytes) { top += bytes, low += bytes; }
};
inline Pairs pairs_from(const void* first_row, int64_t one) {
  const char* top = static_cast<const char*>(first_row);
  return {top, top + 4 * one, one, 3 * one};
}

// Adds the products of such pairs with those of 16 columns at `left` and 16 at `right`.
SIGNROUND_DOTS void add(Sums& sums, const Pairs& a, const void* left, const void* right) {
  const auto b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(left));
  const auto b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right));
  const char* const from[kRows] = {a.top, a.top + a.one, a.top + 2 * a.one, a.top + a.three,
                                   a.low, a.low + a.one, a.low + 2 * a.one, a.low + a.three};
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r) {
    const auto pair = reinterpret_cast<__m512bh>(spread(from[r]));
    sums.of[r][0] = _mm512_dpbf16_ps(sums.of[r][0], pair, b0);
    sums.of[r][1] = _mm512_dpbf16_ps(sums.of[r][1], pair, b1);
  }
}

// To rows of C, plus those at `from` unless it is null: added last, so that no product waits for
// them. Strides in values.
SIGNROUND_DOTS void store(const Sums& sums, float* c, int64_t stride, const float* from,
                          int64_t from_stride) {
#pragma GCC unroll 8
  for (int64_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (int64_t half = 0; half < 2; ++half) {
      __m512 value = sums.of[r][half];
      if (from) value = _mm512_add_ps(value, _mm512_loadu_ps(from + r * from_stride + 16 * half));
      _mm512_storeu_ps(c + r * stride + 16 * half, value);
    }
}

}  // namespace signround::kernels::dots
