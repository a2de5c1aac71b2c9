// The layout of packed weights, and how a thread makes operands of mma.m16n8k16 out of it.
//
// W (out, in) is cut into records of 16 rows by 128 columns (8 tiles of 16 by 16), row of records
// by row of records. The weights are the product's operand a, so that 8 rows of x are enough to
// fill the other one. A record:
//
//   codes   bits * 256 bytes: for every plane, lane 0's words, lane 1's, ...
//   scales  [8][groups][2] of 16 bits: of rows g and g + 8, for lanes 4g .. 4g + 3
//   zeros   [8][groups][2] of 8 bits, in the same order; only where zero points differ
//
//   bits  planes of codes           a lane's word           bytes of a weight, groups of 128 / 32
//   2     1 of 16 bytes a lane      tiles 2w, 2w + 1        0.266 / 0.313
//   3     that, and 1 of 8 bytes    tiles 4w .. 4w + 3      0.391 / 0.438
//         with the high bits
//   4     2 of 16 bytes             tile w                  0.516 / 0.563
//   8     4 of 16 bytes             half of tile w / 2      1.016 / 1.063
//                                                           (zeros: 0.008 / 0.031 more)
//
// A lane (g = lane / 4, t = lane % 4) has 8 weights of a tile: the pairs r = 0 .. 3 of rows
// g + 8 (r % 2), the lower column in the lower 16 bits. What the instruction calls columns of a
// tile are those columns of W for which the other operand is 16 bytes in a row of x for two tiles:
//   column 32 (tile / 2) + 8 t + 4 (tile % 2) + 2 (r / 2) + half           (groups of 32 and more)
//   column 16 tile + 4 t + 2 (r / 2) + half                                (groups of 16)
//
// Codes become bf16 by bits alone: 0x4300 | code is 128 + code; a code that begins 2 p bits further
// up is 128 + 4^p code. One fused multiply-add takes it to code - zero, exactly. Scales multiply
// the f32 sum of a group.
#pragma once

#include "signround/kernels/cuda/launch.h"

namespace signround::kernels {

constexpr int kTileRows = 16, kChunk = 128, kChunkTiles = 8;

__host__ __device__ constexpr int words_of(int bits, int tiles) {  // 32-bit words of a lane
  return bits == 3 ? tiles / 2 + (tiles + 3) / 4 : tiles * bits / 4;
}

// 2 and 3 bits: pair e = 4 (tile % 2) + r of a word begins at bit 2 e of both halves. Shifted right
// by 6 (e / 3), it is at bit 2 p, p = e % 3.
__host__ __device__ constexpr int place_of(int e) { return e % 3; }
__host__ __device__ constexpr int shift_of(int e) { return e / 3 * 6; }
// 3 bits: the high bit of pair e = 4 (tile % 4) + r is this bit of both halves of its word, chosen
// so that few shifts bring each to bit 2 p + 2, above the low bits.
__host__ __device__ constexpr int high_bit_of(int e) {
  constexpr int kBit[16] = {2, 4, 6, 3, 5, 7, 0, 14, 8, 10, 12, 9, 11, 13, 1, 15};
  return kBit[e];
}
__host__ __device__ constexpr int high_place_of(int e) { return place_of(e % 8); }
__host__ __device__ constexpr int high_shift_of(int e) {
  return high_bit_of(e) - (2 * high_place_of(e) + 2);
}

inline __host__ __device__ int column_of(int groups, int tile, int t, int r, int half) {
  return groups == 8 ? 16 * tile + 4 * t + 2 * (r / 2) + half
                     : 32 * (tile / 2) + 8 * t + 4 * (tile % 2) + 2 * (r / 2) + half;
}

// ---- on the device ----

// The words of kTiles tiles from `tile` on, out of a record in shared memory.
template <int kBits, int kTiles>
__device__ __forceinline__ void load_words(uint32_t (&w)[words_of(kBits, kTiles)],
                                           const unsigned char* record, int lane, int tile) {
  const auto load = [&](uint32_t* to, const unsigned char* from, int count) {
    if (count == 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(from);
      to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
    } else if (count == 2) {
      const uint2 v = *reinterpret_cast<const uint2*>(from);
      to[0] = v.x, to[1] = v.y;
    } else {
      to[0] = *reinterpret_cast<const uint32_t*>(from);
    }
  };
  if constexpr (kBits == 2 || kBits == 3) {
    load(w, record + lane * 16 + tile / 2 * 4, kTiles / 2);
    if constexpr (kBits == 3)
      load(w + kTiles / 2, record + 512 + lane * 8 + tile / 4 * 4, (kTiles + 3) / 4);
  } else {
    constexpr int kCount = words_of(kBits, kTiles);
    const int word = tile * kBits / 4;
    const unsigned char* from = record + word / 4 * 512 + lane * 16;
    if constexpr (kCount < 4) {
      load(w, from + word % 4 * 4, kCount);
    } else {
#pragma unroll
      for (int i = 0; i < kCount / 4; ++i) load(w + 4 * i, from + 512 * i, 4);
    }
  }
}

// What is added to the bits of codes to take their zero points away, for rows g and g + 8.
template <int kBits>
struct Zeros {
  static constexpr int kPlaces = kBits == 4 || kBits == 8 ? 1 : 3;
  uint32_t minus[2][kPlaces];
  __device__ __forceinline__ void set(uint32_t zero_low, uint32_t zero_high) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const uint32_t zero = row == 0 ? zero_low : zero_high;
#pragma unroll
      for (int p = 0; p < kPlaces; ++p) {
        if constexpr (kBits == 8)
          minus[row][p] = __float_as_uint(8388608.0f + static_cast<float>(zero));  // of 2^23 + code
        else  // -(128 / 4^p + zero), twice: the last bit of 128 / 4^p is 4^-p
          minus[row][p] = (0xc300c300u - static_cast<uint32_t>(p) * 0x01000100u) +
                          zero * (0x00010001u << 2 * p);
      }
    }
  }
};

// Operand a: code - zero of one of the tiles that load_words gave from tile `first` on.
template <int kBits, int kTiles>
__device__ __forceinline__ void unpack(uint32_t (&a)[4],
                                       const uint32_t (&w)[words_of(kBits, kTiles)], int tile,
                                       int first, const Zeros<kBits>& zeros) {
  if constexpr (kBits == 8) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const uint32_t word = w[2 * tile + r / 2];
      const uint32_t at = 2 * (r % 2);
      const float minus = __uint_as_float(zeros.minus[r % 2][0]);
      const float low = __uint_as_float(cuda::pick_bytes(word, 0x4b000000u, 0x7440u + at)) - minus;
      const float high = __uint_as_float(cuda::pick_bytes(word, 0x4b000000u, 0x7441u + at)) - minus;
      a[r] = cuda::pack_bf16(low, high);
    }
  } else if constexpr (kBits == 4) {
#pragma unroll
    for (int r = 0; r < 4; ++r)
      a[r] = cuda::fma_bf16x2(cuda::and_or(w[tile] >> 4 * r, 0x000f000fu, 0x43004300u), 0x3f803f80u,
                              zeros.minus[r % 2][0]);
  } else {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const int e = 4 * (tile % 2) + r, p = place_of(e);
      uint32_t bits = cuda::and_or(w[tile / 2] >> shift_of(e), 0x00030003u << 2 * p, 0x43004300u);
      if constexpr (kBits == 3) {
        const int high = 4 * ((first + tile) % 4) + r, shift = high_shift_of(high);
        const uint32_t word = w[kTiles / 2 + (first % 4 + tile) / 4];
        bits =
            cuda::and_or(shift >= 0 ? word >> shift : word << -shift, 0x00040004u << 2 * p, bits);
      }
      const uint32_t factor = p == 0 ? 0x3f803f80u : p == 1 ? 0x3e803e80u : 0x3d803d80u;  // 4^-p
      a[r] = cuda::fma_bf16x2(bits, factor, zeros.minus[r % 2][p]);
    }
  }
}

// The scales of rows g and g + 8.
__device__ __forceinline__ void scales_of(float (&s)[2], uint32_t two, bool f16) {
  if (f16) {
    s[0] = cuda::f16_to_f32(static_cast<uint16_t>(two));
    s[1] = cuda::f16_to_f32(static_cast<uint16_t>(two >> 16));
  } else {
    s[0] = cuda::low_bf16(two);
    s[1] = cuda::high_bf16(two);
  }
}

}  // namespace signround::kernels
