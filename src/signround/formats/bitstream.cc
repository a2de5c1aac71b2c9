#include "signround/formats/bitstream.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "signround/base/parallel.h"

namespace signround {
namespace {

constexpr int64_t kTile = 16;        // rows of a tile: 16 words are one cache line of the output
constexpr int64_t kGrain = 1 << 16;  // codes that are worth a thread

uint64_t load8(const uint8_t* codes) {
  uint64_t v;
  std::memcpy(&v, codes, sizeof(v));
  return v;
}

// Eight bytes of `kBits` used bits each -> one field stream of 8 * kBits bits. Neighbours are
// merged in three steps: 8 fields of kBits bits, 4 of 2 kBits, 2 of 4 kBits, 1 of 8 kBits; fields
// start at bits 0, 8, 16, ...; 0, 16, ...; 0, 32.
template <int kBits>
uint64_t squeeze8(uint64_t v) {
  if constexpr (kBits == 8) return v;
  constexpr uint64_t kPairs = ((uint64_t{1} << (2 * kBits)) - 1) * 0x0001000100010001u;
  constexpr uint64_t kQuads = ((uint64_t{1} << (4 * kBits)) - 1) * 0x0000000100000001u;
  constexpr uint64_t kAll = (uint64_t{1} << (8 * kBits % 64)) - 1;
  v = (v | v >> (8 - kBits)) & kPairs;
  v = (v | v >> (16 - 2 * kBits)) & kQuads;
  return (v | v >> (32 - 4 * kBits)) & kAll;
}

// 32 codes -> kBits words, word j at words[j * stride].
template <int kBits>
void squeeze32(const uint8_t* codes, uint32_t* words, int64_t stride) {
  uint64_t part[4];
  for (int i = 0; i < 4; ++i) part[i] = squeeze8<kBits>(load8(codes + 8 * i));
  if constexpr (kBits == 2) {
    words[0] = static_cast<uint32_t>(part[0] | part[1] << 16);
    words[stride] = static_cast<uint32_t>(part[2] | part[3] << 16);
  } else if constexpr (kBits == 3) {  // four parts of 24 bits
    words[0] = static_cast<uint32_t>(part[0] | part[1] << 24);
    words[stride] = static_cast<uint32_t>(part[1] >> 8 | part[2] << 16);
    words[2 * stride] = static_cast<uint32_t>(part[2] >> 16 | part[3] << 8);
  } else if constexpr (kBits == 4) {
    for (int i = 0; i < 4; ++i) words[i * stride] = static_cast<uint32_t>(part[i]);
  } else {
    for (int i = 0; i < 4; ++i) {
      words[2 * i * stride] = static_cast<uint32_t>(part[i]);
      words[(2 * i + 1) * stride] = static_cast<uint32_t>(part[i] >> 32);
    }
  }
}

// Rows [begin, end), in tiles of 16 rows x 32 codes: the tile's words are collected first, so that
// the output is written in whole cache lines.
template <int kBits>
void pack_rows(const uint8_t* codes, int64_t out, int64_t in, int64_t begin, int64_t end,
               uint32_t* words) {
  alignas(64) uint32_t tile[kBits * kTile];
  for (int64_t o = begin; o < end; o += kTile) {
    const int64_t rows = std::min(kTile, end - o);
    for (int64_t i = 0; i < in; i += 32) {
      for (int64_t r = 0; r < rows; ++r)
        squeeze32<kBits>(codes + (o + r) * in + i, tile + r, kTile);
      uint32_t* to = words + i / 32 * kBits * out + o;
      for (int j = 0; j < kBits; ++j)
        std::memcpy(to + j * out, tile + j * kTile, static_cast<size_t>(rows) * 4);
    }
  }
}

template <int kBits>
void pack_columns_of(const uint8_t* codes, int64_t out, int64_t in, uint32_t* words) {
  const int64_t tiles = (out + kTile - 1) / kTile;
  parallel_for(tiles, std::max<int64_t>(1, kGrain / (kTile * std::max<int64_t>(in, 1))),
               [&](int64_t begin, int64_t end) {
                 pack_rows<kBits>(codes, out, in, begin * kTile, std::min(out, end * kTile), words);
               });
}

template <int kBits>
void pack_row_of(const uint8_t* codes, int64_t n, uint32_t* words) {
  for (int64_t i = 0; i < n; i += 32) squeeze32<kBits>(codes + i, words + i / 32 * kBits, 1);
}

// Eight rows x up to eight inputs -> one word of each input, `step` words apart.
void pack_awq_8x8(const uint8_t* codes, int64_t stride, int64_t inputs, uint32_t* words,
                  int64_t step) {
  uint64_t row[8] = {};  // byte k of row[r]: input k of output r
  for (int r = 0; r < 8; ++r) std::memcpy(&row[r], codes + r * stride, static_cast<size_t>(inputs));
  uint64_t pair[4];  // byte j of a word holds two outputs
  for (int j = 0; j < 4; ++j) pair[j] = row[kAwqOrder[2 * j]] | row[kAwqOrder[2 * j + 1]] << 4;
  for (int64_t k = 0; k < inputs; ++k) {
    uint32_t word = 0;
    for (int j = 0; j < 4; ++j) word |= static_cast<uint32_t>(pair[j] >> (8 * k) & 0xff) << (8 * j);
    words[k * step] = word;
  }
}

}  // namespace

void pack_columns_ref(const uint8_t* codes, int64_t out, int64_t in, int bits,
                      uint32_t* words) noexcept {
  std::fill_n(words, words_of(in, bits) * out, 0u);
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t i = 0; i < in; ++i) {
      for (int b = 0; b < bits; ++b) {
        const int64_t bit = i * bits + b;
        words[bit / 32 * out + o] |= static_cast<uint32_t>(codes[o * in + i] >> b & 1)
                                     << (bit % 32);
      }
    }
  }
}

void pack_columns(const uint8_t* codes, int64_t out, int64_t in, int bits, uint32_t* words) {
  switch (bits) {
    case 2:
      return pack_columns_of<2>(codes, out, in, words);
    case 3:
      return pack_columns_of<3>(codes, out, in, words);
    case 4:
      return pack_columns_of<4>(codes, out, in, words);
    default:
      return pack_columns_of<8>(codes, out, in, words);
  }
}

void pack_row(const uint8_t* codes, int64_t n, int bits, uint32_t* words) noexcept {
  switch (bits) {
    case 2:
      return pack_row_of<2>(codes, n, words);
    case 3:
      return pack_row_of<3>(codes, n, words);
    case 4:
      return pack_row_of<4>(codes, n, words);
    default:
      return pack_row_of<8>(codes, n, words);
  }
}

void pack_awq_ref(const uint8_t* codes, int64_t out, int64_t in, uint32_t* words) noexcept {
  for (int64_t i = 0; i < in; ++i) {
    for (int64_t w = 0; w < out / 8; ++w) {
      uint32_t word = 0;
      for (int n = 0; n < 8; ++n)
        word |= static_cast<uint32_t>(codes[(8 * w + kAwqOrder[n]) * in + i]) << (4 * n);
      words[i * (out / 8) + w] = word;
    }
  }
}

void pack_awq(const uint8_t* codes, int64_t out, int64_t in, uint32_t* words) {
  constexpr int64_t kInputs = 64;  // inputs of a tile: one cache line of a row of codes
  const int64_t tiles = (in + kInputs - 1) / kInputs;
  parallel_for(tiles, std::max<int64_t>(1, kGrain / (kInputs * std::max<int64_t>(out, 1))),
               [&](int64_t begin, int64_t end) {
                 for (int64_t tile = begin; tile < end; ++tile) {
                   for (int64_t w = 0; w < out / 8; ++w) {
                     const int64_t stop = std::min(in, (tile + 1) * kInputs);
                     for (int64_t i = tile * kInputs; i < stop; i += 8) {
                       pack_awq_8x8(codes + 8 * w * in + i, in, std::min<int64_t>(8, stop - i),
                                    words + i * (out / 8) + w, out / 8);
                     }
                   }
                 }
               });
}

bool all_codes_fit(const uint8_t* codes, int64_t n, int max_code) {
  std::atomic<bool> fit{true};
  parallel_for(n, kGrain, [&](int64_t begin, int64_t end) {
    uint8_t all = 0;
    for (int64_t i = begin; i < end; ++i)
      all |= codes[i];  // max_code is 2^b - 1, so the union tells
    if (all > max_code) fit = false;
  });
  return fit;
}

}  // namespace signround
