#include "signround/kernels/cpu/panels.h"

#if defined(__x86_64__)

#include "signround/kernels/cpu/panels_pack-inl.h"
#include "signround/kernels/cpu/x86.h"

#define SIGNROUND_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace signround::kernels::panels {
namespace {

const char* find_why_not() noexcept {
  const unsigned features = x86::cpuid(7).b;
  if (!x86::has_bit(features, 16) || !x86::has_bit(features, 30) || !x86::has_bit(features, 31))
    return "the CPU has no AVX-512 F, BW, VL";
  if (!x86::has_bit(x86::cpuid(7, 1).a, 5)) return "the CPU has no AVX-512 for bf16";
  return x86::system_saves(x86::kAvx512State) ? nullptr : "the system saves no AVX-512 registers";
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

const char* why_no_avx512_bf16() noexcept {
  static const char* const reason = find_why_not();
  return reason;
}

void pack_a(const Operand& a, int64_t begin, int64_t end, BF16* out) noexcept {
  a.k_major ? pack<true, true>(a, begin, end, out) : pack<false, true>(a, begin, end, out);
}

void pack_b(const Operand& b, int64_t begin, int64_t end, BF16* out) noexcept {
  b.k_major ? pack<true, false>(b, begin, end, out) : pack<false, false>(b, begin, end, out);
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

}  // namespace signround::kernels::panels

#else

namespace signround::kernels::panels {
const char* why_no_avx512_bf16() noexcept { return "the CPU is not an x86-64"; }
void pack_a(const Operand&, int64_t, int64_t, BF16*) noexcept {}
void pack_b(const Operand&, int64_t, int64_t, BF16*) noexcept {}
void stream_tile(const float*, float*, int64_t) noexcept {}
void stream_rounded_tile(const float*, BF16*, int64_t) noexcept {}
void store_rounded_tile(const float*, int64_t, int64_t, BF16*, int64_t) noexcept {}
}  // namespace signround::kernels::panels

#endif
