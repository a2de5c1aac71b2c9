#include "signround/kernels/cpu/int8_panels.h"

#if defined(__x86_64__)

#include "signround/kernels/cpu/panels_pack-inl.h"
#include "signround/kernels/cpu/int8_step.h"

namespace signround::kernels::panels {
namespace {

constexpr int kMagnitude = 0x7fff;  // bits of a bf16 without its sign; they order as integers do

float magnitude(uint16_t bits) { return to_f32(BF16{bits}); }

// Of 32 values at most.
SIGNROUND_AVX512 inline __m512i magnitudes(const BF16* x, int64_t n) {
  return _mm512_and_si512(_mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes(n, 32)), x),
                          _mm512_set1_epi16(kMagnitude));
}

// Steps of the outer indices [begin, end), which lie along the rows of memory.
SIGNROUND_AVX512 void find_steps_k_major(const Operand& x, int64_t begin, int64_t end,
                                         float* steps) {
  constexpr int64_t kColumns = 1024;  // at a time: their maxima stay in the first cache
  alignas(64) uint16_t most[kColumns];
  for (int64_t first = begin; first < end; first += kColumns) {
    const int64_t n = std::min(end - first, kColumns);
    std::fill_n(most, kColumns, uint16_t{0});
    for (int64_t k = 0; k < x.k; ++k) {
      const BF16* row = x.data + k * x.stride + first;
      for (int64_t i = 0; i < n; i += 32)
        _mm512_store_si512(
            most + i, _mm512_max_epu16(_mm512_load_si512(most + i), magnitudes(row + i, n - i)));
    }
    for (int64_t i = 0; i < n; ++i) steps[first + i] = int8_step(magnitude(most[i]));
  }
}

SIGNROUND_AVX512 float find_step(const BF16* row, int64_t n) {
  __m512i most = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 32) most = _mm512_max_epu16(most, magnitudes(row + i, n - i));
  alignas(64) uint16_t all[32];
  _mm512_store_si512(all, most);
  return int8_step(magnitude(*std::max_element(all, all + 32)));
}

// 16 values times 1 / step each, as integers.
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i rounded(__m256i bf16,
                                                                       __m512 inverse) {
  const __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
  return _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
}

// mask ? a : b, bit by bit.
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i select(int mask, __m512i a,
                                                                      __m512i b) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(mask), a, b, 0xca);
}

// One tile: 16 of the outer index from o, 64 of k from k; as k by fours times outer (a tile of B)
// or as outer times k (a tile of A).
template <bool kMajor, bool kOuterFirst>
SIGNROUND_AVX512 inline __attribute__((always_inline)) void quantize_tile(const Operand& x,
                                                                          int64_t o, int64_t k,
                                                                          const float* steps,
                                                                          Codes codes,
                                                                          int8_t* out) {
  __m512i r[16];
  if constexpr (kMajor) {  // rows of memory are values of k: four of them make the lanes
    const auto wanted = static_cast<__mmask16>(lanes(x.outer - o, 16));
    const __m512 step = _mm512_loadu_ps(steps);
    const __m512 inverse = _mm512_maskz_div_ps(
        _mm512_cmp_ps_mask(step, _mm512_setzero_ps(), _CMP_GT_OQ), _mm512_set1_ps(1.0f), step);
    const BF16* row = x.data + k * x.stride + o;
    for (int i = 0; i < 16; ++i) {
      __m512i q[4];
      for (int j = 0; j < 4; ++j, row += x.stride)
        q[j] = rounded(_mm256_maskz_loadu_epi16(k + 4 * i + j < x.k ? wanted : __mmask16(0), row),
                       inverse);
      const __m512i low = select(0xff, q[0], _mm512_slli_epi32(q[1], 8)),
                    high =
                        select(0xff0000, _mm512_slli_epi32(q[2], 16), _mm512_slli_epi32(q[3], 24));
      r[i] = select(0xffff, low, high);
    }
  } else {
    const BF16* row = x.data + o * x.stride + k;
    for (int i = 0; i < 16; ++i, row += x.stride) {
      const uint64_t wanted = o + i < x.outer ? lanes(x.k - k, 64) : 0;
      const __m512 inverse = _mm512_set1_ps(int8_inverse(steps[i]));
      __m128i q[4];
      for (int j = 0; j < 4; ++j)
        q[j] = _mm512_cvtepi32_epi8(rounded(
            _mm256_maskz_loadu_epi16(static_cast<__mmask16>(wanted >> 16 * j), row + 16 * j),
            inverse));
      const __m256i low = _mm256_set_m128i(q[1], q[0]), high = _mm256_set_m128i(q[3], q[2]);
      r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
  }
  if constexpr (kMajor == kOuterFirst) transpose(r);
  const __m512i plus = _mm512_set1_epi8(static_cast<char>(codes));  // 0, or 128: its bit flipped
  for (int i = 0; i < 16; ++i)
    _mm512_storeu_si512(out + i * kInt8Depth, _mm512_xor_si512(r[i], plus));
}

// Reads along the rows of memory.
template <bool kMajor, bool kOuterFirst>
SIGNROUND_AVX512 void quantize(const Operand& x, int64_t begin, int64_t end, Codes codes,
                               int8_t* out, float* steps) {
  const int64_t depth = (x.k + kInt8Depth - 1) / kInt8Depth;
  const auto pack_step = [&](int64_t panel, int64_t step) SIGNROUND_AVX512 {
    int8_t* to = out + (panel * depth + step) * kInt8Step;
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t o = panel * kPanel + 16 * half;
      quantize_tile<kMajor, kOuterFirst>(x, o, step * kInt8Depth, steps + o, codes,
                                         to + half * kInt8Step / 2);
    }
  };
  const int64_t last = std::min(end * kPanel, x.outer);
  std::fill(steps + last, steps + end * kPanel, 0.0f);
  if constexpr (kMajor) {
    find_steps_k_major(x, begin * kPanel, last, steps);
    for (int64_t step = 0; step < depth; ++step)
      for (int64_t panel = begin; panel < end; ++panel) pack_step(panel, step);
  } else {
    for (int64_t panel = begin; panel < end; ++panel) {
      for (int64_t o = panel * kPanel; o < std::min(last, (panel + 1) * kPanel); ++o)
        steps[o] = find_step(x.data + o * x.stride, x.k);
      for (int64_t step = 0; step < depth; ++step) pack_step(panel, step);
    }
  }
}

}  // namespace

void quantize_a(const Operand& a, int64_t begin, int64_t end, Codes codes, int8_t* out,
                float* steps) noexcept {
  a.k_major ? quantize<true, true>(a, begin, end, codes, out, steps)
            : quantize<false, true>(a, begin, end, codes, out, steps);
}

void quantize_b(const Operand& b, int64_t begin, int64_t end, int8_t* out, float* steps) noexcept {
  b.k_major ? quantize<true, false>(b, begin, end, Codes::kSigned, out, steps)
            : quantize<false, false>(b, begin, end, Codes::kSigned, out, steps);
}

SIGNROUND_AVX512 void scale(const Int8Sums& tile) noexcept {
  for (int64_t row = 0; row < tile.rows; ++row) {
    const __m512 a_step = _mm512_set1_ps(tile.a_steps[row]);
    for (int64_t half = 0; half < kPanel; half += 16) {
      const auto wanted = static_cast<__mmask16>(lanes(tile.cols - half, 16));
      const __m512 step = _mm512_mul_ps(a_step, _mm512_loadu_ps(tile.b_steps + half));
      const __m512i sums = _mm512_loadu_si512(tile.sums + row * kPanel + half);
      __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), step);
      if (tile.from) {
        const float* from = tile.from + row * tile.from_stride + half;
        value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(wanted, from));
      }
      _mm512_mask_storeu_ps(tile.c + row * tile.stride + half, wanted, value);
    }
  }
}

}  // namespace signround::kernels::panels

#else

namespace signround::kernels::panels {
void quantize_a(const Operand&, int64_t, int64_t, Codes, int8_t*, float*) noexcept {}
void quantize_b(const Operand&, int64_t, int64_t, int8_t*, float*) noexcept {}
void scale(const Int8Sums&) noexcept {}
}  // namespace signround::kernels::panels

#endif
