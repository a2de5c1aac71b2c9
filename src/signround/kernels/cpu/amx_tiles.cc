#include "signround/kernels/cpu/amx_tiles.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "signround/kernels/cpu/amx_pack-inl.h"
#include "signround/kernels/cpu/amx_plan.h"

#define SIGNROUND_AMX __attribute__((target("amx-tile,amx-bf16")))
#define SIGNROUND_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace signround::kernels::amx {
namespace {

const char* find_why_not() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return "the CPU is too old";
  if (!(d >> 24 & 1) || !(d >> 22 & 1)) return "the CPU has no AMX tiles for bf16";
  if (!(b >> 16 & 1) || !(b >> 30 & 1) || !(b >> 31 & 1)) return "the CPU has no AVX-512 F, BW, VL";
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1))
    return "the CPU has no AVX-512 for bf16";
  __get_cpuid(1, &a, &b, &c, &d);
  if (!(c >> 27 & 1)) return "the system saves no extended registers";
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  constexpr unsigned kNeeded = 0x60000 | 0xe6;  // tiles, and all of AVX-512
  if ((low & kNeeded) != kNeeded) return "the system saves no tile registers";
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0)
    return "the system does not let this process use tile registers";
  return nullptr;
}

// How far ahead memory is asked for: a core's own prefetching does not follow that many rows side
// by side.
constexpr int64_t kRowsAhead = 32, kValuesAhead = 2 * kDepth;

// Rows k and k + 1 of a k-major operand, 32 values from o on; zero beyond its end.
struct PairOfRows {
  __m512i first, second;
};
SIGNROUND_AVX512 inline __attribute__((always_inline)) PairOfRows load_pair(const Operand& x,
                                                                            int64_t k,
                                                                            const BF16* row,
                                                                            __mmask32 wanted) {
  return {_mm512_maskz_loadu_epi16(k < x.k ? wanted : __mmask32(0), row),
          _mm512_maskz_loadu_epi16(k + 1 < x.k ? wanted : __mmask32(0), row + x.stride)};
}

// A panel's tiles of one depth from k-major memory. Interleaving two rows gives pairs of values of
// k, those of columns 0 to 3 of every 8 or those of 4 to 7.
template <bool kOuterFirst>
SIGNROUND_AVX512 inline __attribute__((always_inline)) void pack_rows(const Operand& x, int64_t o,
                                                                      int64_t k, BF16* out) {
  const auto wanted = static_cast<__mmask32>(lanes(x.outer - o, 32));
  const BF16* rows = x.data + k * x.stride + o;
  const int64_t stride = x.stride;
  if constexpr (kOuterFirst) {  // 16 x 16 pairs transposed: twice, since registers hold no more
    __m512i r[16];
    for (int i = 0; i < 16; ++i) {
      const BF16* row = rows + 2 * i * stride;
      __builtin_prefetch(row + kRowsAhead * stride);
      __builtin_prefetch(row + (kRowsAhead + 1) * stride);
      const PairOfRows p = load_pair(x, k + 2 * i, row, wanted);
      r[i] = _mm512_unpacklo_epi16(p.first, p.second);
    }
    transpose(r);
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (i / 4 * 8 + i % 4) * kDepth, r[i]);
    for (int i = 0; i < 16; ++i) {
      const PairOfRows p = load_pair(x, k + 2 * i, rows + 2 * i * stride, wanted);
      r[i] = _mm512_unpackhi_epi16(p.first, p.second);
    }
    transpose(r);
    for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + (i / 4 * 8 + 4 + i % 4) * kDepth, r[i]);
  } else {
    const __m512i left = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                  right = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    for (int i = 0; i < 16; ++i) {
      const BF16* row = rows + 2 * i * stride;
      __builtin_prefetch(row + kRowsAhead * stride);
      __builtin_prefetch(row + (kRowsAhead + 1) * stride);
      const PairOfRows p = load_pair(x, k + 2 * i, row, wanted);
      const __m512i low = _mm512_unpacklo_epi16(p.first, p.second),
                    high = _mm512_unpackhi_epi16(p.first, p.second);
      _mm512_storeu_si512(out + i * kDepth, _mm512_permutex2var_epi64(low, left, high));
      _mm512_storeu_si512(out + (16 + i) * kDepth, _mm512_permutex2var_epi64(low, right, high));
    }
  }
}

// One tile from memory whose rows are of the outer index: 16 of them from o, 32 values of k.
template <bool kOuterFirst>
SIGNROUND_AVX512 inline __attribute__((always_inline)) void pack_tile(const Operand& x, int64_t o,
                                                                      int64_t k, BF16* out) {
  __m512i r[16];
  const auto wanted = static_cast<__mmask32>(lanes(x.k - k, 32));
  const BF16* row = x.data + o * x.stride + k;
  for (int i = 0; i < 16; ++i, row += x.stride) {
    __builtin_prefetch(row + kValuesAhead);
    r[i] = _mm512_maskz_loadu_epi16(o + i < x.outer ? wanted : __mmask32(0), row);
  }
  if constexpr (!kOuterFirst) transpose(r);
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * kDepth, r[i]);
}

// Reads along the rows of memory.
template <bool kMajor, bool kOuterFirst>
SIGNROUND_AVX512 void pack(const Operand& x, int64_t begin, int64_t end, BF16* out) {
  const int64_t depth = (x.k + kDepth - 1) / kDepth;
  if constexpr (kMajor) {
    for (int64_t step = 0; step < depth; ++step)
      for (int64_t panel = begin; panel < end; ++panel)
        pack_rows<kOuterFirst>(x, panel * kPanel, step * kDepth,
                               out + (panel * depth + step) * kStep);
  } else {
    for (int64_t panel = begin; panel < end; ++panel)
      for (int64_t step = 0; step < depth; ++step) {
        BF16* to = out + (panel * depth + step) * kStep;
        pack_tile<kOuterFirst>(x, panel * kPanel, step * kDepth, to);
        pack_tile<kOuterFirst>(x, panel * kPanel + 16, step * kDepth, to + kStep / 2);
      }
  }
}

}  // namespace

const char* why_not() noexcept {
  static const char* const reason = find_why_not();
  return reason;
}

void pack_a(const Operand& a, int64_t begin, int64_t end, BF16* out) noexcept {
  a.k_major ? pack<true, true>(a, begin, end, out) : pack<false, true>(a, begin, end, out);
}

void pack_b(const Operand& b, int64_t begin, int64_t end, BF16* out) noexcept {
  b.k_major ? pack<true, false>(b, begin, end, out) : pack<false, false>(b, begin, end, out);
}

SIGNROUND_AMX void start() noexcept {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

SIGNROUND_AMX void stop() noexcept {
  _mm_sfence();
  _tile_release();
}

// Tiles 0 to 3 are C, 4 and 5 the halves of A, 6 and 7 those of B.
template <bool kFetches>
SIGNROUND_AMX inline __attribute__((always_inline)) void multiply_steps(const Tile& tile) {
  const bool packed = tile.a_stride == 0;
  const int64_t a_row = packed ? 64 : tile.a_stride * 2, a_step = packed ? kStep : kDepth,
                a_half = packed ? kStep / 2 : 16 * tile.a_stride;
  const BF16 *a = tile.a, *b = tile.b;
  const auto *ahead_a = static_cast<const char*>(tile.ahead_a.line),
             *ahead_b = static_cast<const char*>(tile.ahead_b.line);
  for (int64_t step = 0; step < tile.depth; ++step, a += a_step, b += kStep) {
    const BF16* ahead = step + kAhead < tile.depth
                            ? b + kAhead * kStep
                            : tile.next_b + (step + kAhead - tile.depth) * kStep;
    _tile_loadd(6, b, 64);
    fetch_quarter(ahead, 0);
    _tile_loadd(4, a, a_row);
    fetch_quarter(ahead, 1);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + kStep / 2, 64);
    fetch_quarter(ahead, 2);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + a_half, a_row);
    fetch_quarter(ahead, 3);
    if constexpr (kFetches) {
      fetch_lines(ahead_a, tile.ahead_a.row);
      ahead_a += tile.ahead_a.step;
    }
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kFetches) {
      fetch_lines(ahead_b, tile.ahead_b.row);
      ahead_b += tile.ahead_b.step;
    }
    _tile_dpbf16ps(3, 5, 7);
  }
}

SIGNROUND_AMX void multiply(const Tile& tile) noexcept {
  asm volatile("" : : : "memory");  // what others packed and wrote is in memory
  if (tile.from) {
    const float *from = tile.from, *low = from + 16 * tile.from_stride;
    const int64_t row = tile.from_stride * 4;
    _tile_loadd(0, from, row);
    _tile_loadd(1, from + 16, row);
    _tile_loadd(2, low, row);
    _tile_loadd(3, low + 16, row);
  } else if (tile.bias) {
    _tile_loadd(0, tile.bias, 0);
    _tile_loadd(1, tile.bias + 16, 0);
    _tile_loadd(2, tile.bias, 0);
    _tile_loadd(3, tile.bias + 16, 0);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  tile.ahead_a.line ? multiply_steps<true>(tile) : multiply_steps<false>(tile);
  float *c = tile.c, *low = c + 16 * tile.stride;
  const int64_t row = tile.stride * 4;
  _tile_stored(0, c, row);
  _tile_stored(1, c + 16, row);
  _tile_stored(2, low, row);
  _tile_stored(3, low + 16, row);
}

SIGNROUND_AVX512 void stream_tile(const float* c, float* to, int64_t stride) noexcept {
  for (int64_t i = 0; i < kPanel; ++i, c += kPanel, to += stride) {
    _mm512_stream_ps(to, _mm512_load_ps(c));
    _mm512_stream_ps(to + 16, _mm512_load_ps(c + 16));
  }
}

SIGNROUND_AVX512_BF16 void stream_rounded_tile(const float* c, BF16* to, int64_t stride) noexcept {
  for (int64_t i = 0; i < kPanel; ++i, c += kPanel, to += stride) {
    const __m512bh row = _mm512_cvtne2ps_pbh(_mm512_load_ps(c + 16), _mm512_load_ps(c));
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), reinterpret_cast<__m512i>(row));
  }
}

SIGNROUND_AVX512_BF16 void store_rounded_tile(const float* c, int64_t rows, int64_t cols, BF16* to,
                                              int64_t stride) noexcept {
  const auto low = static_cast<__mmask16>(lanes(cols, 16)),
             high = static_cast<__mmask16>(lanes(cols - 16, 16));
  for (int64_t i = 0; i < rows; ++i, c += kPanel, to += stride) {
    const auto left = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(c))),
               right = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(c + 16)));
    _mm256_mask_storeu_epi16(to, low, left);
    _mm256_mask_storeu_epi16(to + 16, high, right);
  }
}

}  // namespace signround::kernels::amx

#else

namespace signround::kernels::amx {
const char* why_not() noexcept { return "the CPU is not an x86-64"; }
void pack_a(const Operand&, int64_t, int64_t, BF16*) noexcept {}
void pack_b(const Operand&, int64_t, int64_t, BF16*) noexcept {}
void start() noexcept {}
void stop() noexcept {}
void multiply(const Tile&) noexcept {}
void stream_tile(const float*, float*, int64_t) noexcept {}
void stream_rounded_tile(const float*, BF16*, int64_t) noexcept {}
void store_rounded_tile(const float*, int64_t, int64_t, BF16*, int64_t) noexcept {}
}  // namespace signround::kernels::amx

#endif
