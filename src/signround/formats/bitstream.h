// Dense streams of 2-, 3-, 4- and 8-bit fields in 32-bit words, little end first: field k of a
// stream holds the bits k*b .. k*b+b-1 of the words laid end to end. 3-bit fields cross words (32
// fields fill 3 words):
//
//   word 0: | f0 | f1 | ... | f9 |f10 (low 2 bits)|   word 1: |f10 (1)| f11 ... | f20 |f21 (1)|
//   word 2: |f21 (2)| ...
//
// Every function takes codes that fit into `bits` bits; the caller has checked them. Decoding is in
// decode.cc, on purpose without any of this code.
#pragma once

#include <cstdint>

namespace signround {

// Words of a stream of n fields; n * bits must be a multiple of 32.
constexpr int64_t words_of(int64_t n, int bits) { return n * bits / 32; }

// Codes (out, in) -> words (in * bits / 32, out): column o of the words is the stream of row o of
// the codes. The reference is the definition; pack_columns does the same in tiles, 8 codes at a
// time, in parallel over `out`. REQUIRES: in % 32 == 0.
void pack_columns_ref(const uint8_t* codes, int64_t out, int64_t in, int bits,
                      uint32_t* words) noexcept;
void pack_columns(const uint8_t* codes, int64_t out, int64_t in, int bits, uint32_t* words);

// One row: n codes -> n * bits / 32 words. REQUIRES: n % 32 == 0.
void pack_row(const uint8_t* codes, int64_t n, int bits, uint32_t* words) noexcept;

// AWQ's "gemm" order, 4 bits: codes (out, in) -> words (in, out / 8); nibble i of a word, counted
// from the low end, holds the output kAwqOrder[i] of its eight. REQUIRES: out % 8 == 0.
inline constexpr int kAwqOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
void pack_awq_ref(const uint8_t* codes, int64_t out, int64_t in, uint32_t* words) noexcept;
void pack_awq(const uint8_t* codes, int64_t out, int64_t in, uint32_t* words);

// True if every code is at most `max_code`.
bool all_codes_fit(const uint8_t* codes, int64_t n, int max_code);

}  // namespace signround
