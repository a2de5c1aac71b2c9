#include "signround/kernels/cpu/int8_panels.h"

#if defined(__x86_64__)

#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/panels_pack-inl.h"

namespace signround::kernels::panels {
namespace {

constexpr int kMagnitude = 0x7fff;  // bits of a bf16 without its sign; they order as integers do

float magnitude(uint16_t bits) { return to_f32(BF16{bits}); }

// Of 32 values at most.
SIGNROUND_AVX512 inline __m512i magnitudes(const BF16* x, int64_t n) {
  return _mm512_and_si512(_mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes(n, 32)), x),
                          _mm512_set1_epi16(kMagnitude));
}

// How many rows ahead k-major memory is asked for: a core's own prefetching does not follow them.
constexpr int64_t kRowsAhead = 16;

// The largest magnitudes of 128 columns, or fewer, over all rows of k.
constexpr int64_t kMostColumns = 128;
SIGNROUND_AVX512 void find_most(const Operand& x, int64_t column, int64_t columns, uint16_t* most) {
  __m512i largest[kMostColumns / 32];
  for (__m512i& m : largest) m = _mm512_setzero_si512();
  const BF16* row = x.data + column;
  for (int64_t k = 0; k < x.k; ++k, row += x.stride)
#pragma GCC unroll 4
    for (int64_t v = 0; v < kMostColumns / 32; ++v) {
      __builtin_prefetch(row + kRowsAhead * x.stride + 32 * v);
      largest[v] = _mm512_max_epu16(largest[v], magnitudes(row + 32 * v, columns - 32 * v));
    }
  for (int64_t v = 0; v < kMostColumns / 32; ++v) _mm512_store_si512(most + 32 * v, largest[v]);
}

// Steps of the outer indices [begin, end), which lie along the rows of memory.
SIGNROUND_AVX512 void find_steps_k_major(const Operand& x, int64_t begin, int64_t end,
                                         float* steps) {
  alignas(64) uint16_t most[kMostColumns];
  for (int64_t first = begin; first < end; first += kMostColumns) {
    const int64_t n = std::min(end - first, kMostColumns);
    find_most(x, first, n, most);
    for (int64_t i = 0; i < n; ++i) steps[first + i] = int8_step(magnitude(most[i]));
  }
}

SIGNROUND_AVX512 float find_step(const BF16* row, int64_t n) {
  __m512i most = _mm512_setzero_si512();
  constexpr int64_t kValuesAhead = 1024;
  for (int64_t i = 0; i < n; i += 32) {
    __builtin_prefetch(row + i + kValuesAhead);
    most = _mm512_max_epu16(most, magnitudes(row + i, n - i));
  }
  alignas(64) uint16_t all[32];
  _mm512_store_si512(all, most);
  return int8_step(magnitude(*std::max_element(all, all + 32)));
}

// Codes, as integers of 32 bits, of the values at even and at odd places of a vector of bf16. What
// is not finite has an inverse of 0 and becomes 1 << 31, whose low bits are 0.
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i even_codes(__m512i bf16,
                                                                          __m512 inverse) {
  const __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(bf16, 16));
  return _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
}
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i odd_codes(__m512i bf16,
                                                                         __m512 inverse) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  const __m512 x = _mm512_castsi512_ps(_mm512_and_si512(bf16, high));
  return _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
}

// mask ? a : b, bit by bit.
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i select(int mask, __m512i a,
                                                                      __m512i b) {
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(mask), a, b, 0xca);
}

// The low bytes of four vectors in each lane.
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i bytes_of_four(
    const __m512i (&q)[4]) {
  const __m512i low = select(0xff, q[0], _mm512_slli_epi32(q[1], 8)),
                high = select(0xff0000, _mm512_slli_epi32(q[2], 16), _mm512_slli_epi32(q[3], 24));
  return select(0xffff, low, high);
}

// The codes of 64 values of a row, of which the first n exist.
SIGNROUND_AVX512 inline __attribute__((always_inline)) __m512i codes_of_row(const BF16* row,
                                                                            int64_t n,
                                                                            __m512 inverse) {
  __m512i words[2];
  for (int half = 0; half < 2; ++half) {
    const __m512i x =
        _mm512_maskz_loadu_epi16(static_cast<__mmask32>(lanes(n - 32 * half, 32)), row + 32 * half);
    words[half] =
        select(0xffff, even_codes(x, inverse), _mm512_slli_epi32(odd_codes(x, inverse), 16));
  }
  const __m512i lanes_in_turns = _mm512_packs_epi16(words[0], words[1]);
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), lanes_in_turns);
}

// Adds 128 times the sums of four codes to those of 16 columns.
SIGNROUND_AVX512 inline __attribute__((always_inline)) void add_excess(__m512i codes,
                                                                       int32_t* excess) {
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_set1_epi8(1), codes),
                fours = _mm512_madd_epi16(pairs, _mm512_set1_epi16(128));
  _mm512_storeu_si512(excess, _mm512_add_epi32(_mm512_loadu_si512(excess), fours));
}

// One panel's tiles of one depth: 32 of the outer index from o, 64 of k from k. Memory has k along
// its rows.
template <bool kOuterFirst>
SIGNROUND_AVX512 void quantize_rows(const Operand& x, int64_t o, int64_t k, const float* steps,
                                    __m512i plus, int8_t* out, int32_t* excess) {
  const BF16* row = x.data + o * x.stride + k;
  for (int64_t half = 0; half < 2; ++half, out += kInt8Step / 2) {
    __m512i r[16];
    for (int i = 0; i < 16; ++i, row += x.stride) {
      const int64_t outer = 16 * half + i;
      const __m512 inverse = _mm512_set1_ps(int8_inverse(steps[outer]));
      r[i] = codes_of_row(row, o + outer < x.outer ? x.k - k : 0, inverse);
    }
    if constexpr (!kOuterFirst) transpose(r);
    for (int i = 0; i < 16 && excess; ++i) add_excess(r[i], excess + 16 * half);
    for (int i = 0; i < 16; ++i)
      _mm512_storeu_si512(out + i * kInt8Depth, _mm512_xor_si512(r[i], plus));
  }
}

// The same from memory that has the outer index along its rows: four of them make the lanes.
template <bool kOuterFirst>
SIGNROUND_AVX512 void quantize_columns(const Operand& x, int64_t o, int64_t k, const float* steps,
                                       __m512i plus, int8_t* out, int32_t* excess) {
  const auto wanted = static_cast<__mmask32>(lanes(x.outer - o, 32));
  alignas(64) float inverses[2][16];  // of even and of odd columns
  for (int64_t i = 0; i < kPanel; ++i) inverses[i % 2][i / 2] = int8_inverse(steps[i]);
  const __m512 even = _mm512_load_ps(inverses[0]), odd = _mm512_load_ps(inverses[1]);
  const __m512i left = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11),
                right = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  const BF16* row = x.data + k * x.stride + o;
  for (int64_t i = 0; i < 16; ++i) {
    __m512i e[4], d[4];
    for (int64_t j = 0; j < 4; ++j, row += x.stride) {
      __builtin_prefetch(row + kRowsAhead * x.stride);
      const __m512i values =
          _mm512_maskz_loadu_epi16(k + 4 * i + j < x.k ? wanted : __mmask32(0), row);
      e[j] = even_codes(values, even);
      d[j] = odd_codes(values, odd);
    }
    const __m512i evens = bytes_of_four(e), odds = bytes_of_four(d),
                  low = _mm512_unpacklo_epi32(evens, odds),
                  high = _mm512_unpackhi_epi32(evens, odds);
    const __m512i first = _mm512_permutex2var_epi64(low, left, high),
                  second = _mm512_permutex2var_epi64(low, right, high);
    if (excess) add_excess(first, excess), add_excess(second, excess + 16);
    _mm512_storeu_si512(out + i * kInt8Depth, _mm512_xor_si512(first, plus));
    _mm512_storeu_si512(out + kInt8Step / 2 + i * kInt8Depth, _mm512_xor_si512(second, plus));
  }
  if constexpr (kOuterFirst) {
    for (int64_t half = 0; half < 2; ++half, out += kInt8Step / 2) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_si512(out + i * kInt8Depth);
      transpose(r);
      for (int i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * kInt8Depth, r[i]);
    }
  }
}

// Of k-major memory so many bytes are looked through for steps before they are packed, from the
// second cache.
constexpr int64_t kBytesAtOnce = int64_t{1} << 19;

template <bool kMajor, bool kOuterFirst>
SIGNROUND_AVX512 void quantize(const Operand& x, int64_t begin, int64_t end, Codes codes,
                               int8_t* out, float* steps, int32_t* excess) {
  const __m512i plus = _mm512_set1_epi8(static_cast<char>(codes));  // 0, or 128: its bit flipped
  const int64_t depth = (x.k + kInt8Depth - 1) / kInt8Depth, last = std::min(end * kPanel, x.outer);
  std::fill(steps + last, steps + end * kPanel, 0.0f);
  if (excess) std::fill(excess + begin * kPanel, excess + end * kPanel, 0);
  const int64_t at_once =
      kMajor ? std::clamp(kBytesAtOnce / (x.k * kPanel * 2), int64_t{1}, int64_t{64}) : 1;
  for (int64_t first = begin; first < end; first += at_once) {
    const int64_t panels = std::min(at_once, end - first);
    if constexpr (kMajor) {
      find_steps_k_major(x, first * kPanel, std::min(last, (first + panels) * kPanel), steps);
    } else {
      for (int64_t o = first * kPanel; o < std::min(last, (first + 1) * kPanel); ++o)
        steps[o] = find_step(x.data + o * x.stride, x.k);
    }
    for (int64_t step = 0; step < depth; ++step)
      for (int64_t panel = first; panel < first + panels; ++panel) {
        const int64_t o = panel * kPanel, k = step * kInt8Depth;
        int8_t* to = out + (panel * depth + step) * kInt8Step;
        if constexpr (kMajor)
          quantize_columns<kOuterFirst>(x, o, k, steps + o, plus, to,
                                        excess ? excess + o : nullptr);
        else
          quantize_rows<kOuterFirst>(x, o, k, steps + o, plus, to, excess ? excess + o : nullptr);
      }
  }
}

}  // namespace

void quantize_a(const Operand& a, int64_t begin, int64_t end, Codes codes, int8_t* out,
                float* steps) noexcept {
  a.k_major ? quantize<true, true>(a, begin, end, codes, out, steps, nullptr)
            : quantize<false, true>(a, begin, end, codes, out, steps, nullptr);
}

void quantize_b(const Operand& b, int64_t begin, int64_t end, int8_t* out, float* steps,
                int32_t* excess) noexcept {
  b.k_major ? quantize<true, false>(b, begin, end, Codes::kSigned, out, steps, excess)
            : quantize<false, false>(b, begin, end, Codes::kSigned, out, steps, excess);
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
void quantize_b(const Operand&, int64_t, int64_t, int8_t*, float*, int32_t*) noexcept {}
void scale(const Int8Sums&) noexcept {}
}  // namespace signround::kernels::panels

#endif
