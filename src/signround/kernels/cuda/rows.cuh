// What the kernels of rows share. A thread works on packs: kW neighbouring values of a row, which
// it reads and writes with accesses of 8 or 16 bytes where kVector says that everything is aligned,
// else value by value. The two ways calculate the same in the same order.
#pragma once

#include <initializer_list>
#include <type_traits>

#include "signround/kernels/cuda/launch.h"
#include "signround/tensor/rows.h"

namespace signround::kernels::cuda {

using namespace signround::cuda;

struct AnyType {};  // f32, bf16 or f16, known at run time

// ---- packs ----
template <class T>
inline constexpr int kBytes = std::is_same_v<T, AnyType> ? 4 : static_cast<int>(sizeof(T));

// kW values as they lie in memory. They are decoded when they are needed, so that many loads are on
// their way together.
template <class T, int kW>
struct Raw {
  uint32_t words[kW * kBytes<T> / 4];
};

template <int kWords>
__device__ __forceinline__ void load_words(const void* p, uint32_t* words) {
  if constexpr (kWords == 2) {
    const uint2 v = *static_cast<const uint2*>(p);
    words[0] = v.x, words[1] = v.y;
  } else {
    for (int k = 0; k < kWords / 4; ++k) {
      const uint4 v = static_cast<const uint4*>(p)[k];
      words[4 * k] = v.x, words[4 * k + 1] = v.y, words[4 * k + 2] = v.z, words[4 * k + 3] = v.w;
    }
  }
}
template <int kWords>
__device__ __forceinline__ void store_words(void* p, const uint32_t* words) {
  if constexpr (kWords == 2) {
    *static_cast<uint2*>(p) = make_uint2(words[0], words[1]);
  } else {
    for (int k = 0; k < kWords / 4; ++k)
      static_cast<uint4*>(p)[k] =
          make_uint4(words[4 * k], words[4 * k + 1], words[4 * k + 2], words[4 * k + 3]);
  }
}

template <int kW, bool kVector>
__device__ __forceinline__ void load_wide(const float* p, int count, uint32_t* words) {
  if constexpr (kVector) {
    if (count > 0) load_words<kW>(p, words);
  } else {
#pragma unroll
    for (int e = 0; e < kW; ++e)
      if (e < count) words[e] = __float_as_uint(p[e]);
  }
}
template <int kW, bool kVector>
__device__ __forceinline__ void load_narrow(const uint16_t* p, int count, uint32_t* words) {
  if constexpr (kVector) {
    if (count > 0) load_words<kW / 2>(p, words);
  } else {
#pragma unroll
    for (int e = 0; e < kW; ++e)
      if (e < count) words[e / 2] |= static_cast<uint32_t>(p[e]) << e % 2 * 16;
  }
}

// The pack at value `at` of rows; values from `count` on (there, or in all of them) are 0.
template <class T, int kW, bool kVector>
__device__ __forceinline__ Raw<T, kW> load(const RowsAny& rows, int64_t at, int count) {
  Raw<T, kW> raw{};
  bool wide = std::is_same_v<T, float>;
  if constexpr (std::is_same_v<T, AnyType>) wide = rows.dtype == DType::kF32;
  if constexpr (kBytes<T> == 4) {
    if (wide) load_wide<kW, kVector>(static_cast<const float*>(rows.data) + at, count, raw.words);
  }
  if constexpr (!std::is_same_v<T, float>) {
    if (!wide)
      load_narrow<kW, kVector>(static_cast<const uint16_t*>(rows.data) + at, count, raw.words);
  }
  return raw;
}

template <class T, int kW>
__device__ __forceinline__ void decode(const Raw<T, kW>& raw, DType dtype, float (&v)[kW]) {
  if constexpr (std::is_same_v<T, float>) dtype = DType::kF32;
  if constexpr (std::is_same_v<T, BF16>) dtype = DType::kBF16;
  if constexpr (kBytes<T> == 4) {
    if (dtype == DType::kF32) {
#pragma unroll
      for (int e = 0; e < kW; ++e) v[e] = __uint_as_float(raw.words[e]);
      return;
    }
  }
#pragma unroll
  for (int e = 0; e < kW; e += 2) {
    const uint32_t two = raw.words[e / 2];
    if (dtype == DType::kBF16) {
      v[e] = low_bf16(two), v[e + 1] = high_bf16(two);
    } else {
      v[e] = f16_to_f32(static_cast<uint16_t>(two));
      v[e + 1] = f16_to_f32(static_cast<uint16_t>(two >> 16));
    }
  }
}

// The first `count` values of v to value `at` of rows, f32, bf16 or f16.
template <int kW, bool kVector>
__device__ __forceinline__ void store(const RowsOut& rows, int64_t at, int count,
                                      const float (&v)[kW]) {
  if (kVector && count <= 0) return;
  uint32_t words[kW];
  if (rows.dtype == DType::kF32) {
    float* p = static_cast<float*>(rows.data) + at;
    if constexpr (kVector) {
#pragma unroll
      for (int e = 0; e < kW; ++e) words[e] = __float_as_uint(v[e]);
      store_words<kW>(p, words);
    } else {
#pragma unroll
      for (int e = 0; e < kW; ++e)
        if (e < count) p[e] = v[e];
    }
    return;
  }
#pragma unroll
  for (int e = 0; e < kW; e += 2) {
    if (rows.dtype == DType::kBF16)
      words[e / 2] = pack_bf16(v[e], v[e + 1]);
    else
      words[e / 2] = static_cast<uint32_t>(f32_to_f16(v[e])) |
                     static_cast<uint32_t>(f32_to_f16(v[e + 1])) << 16;
  }
  uint16_t* p = static_cast<uint16_t*>(rows.data) + at;
  if constexpr (kVector) {
    store_words<kW / 2>(p, words);
  } else {
#pragma unroll
    for (int e = 0; e < kW; ++e)
      if (e < count) p[e] = static_cast<uint16_t>(words[e / 2] >> e % 2 * 16);
  }
}

// f32 values at p.
template <int kW, bool kVector>
__device__ __forceinline__ void load_f32(const float* p, int count, float (&v)[kW]) {
  uint32_t words[kW] = {};
  load_wide<kW, kVector>(p, count, words);
#pragma unroll
  for (int e = 0; e < kW; ++e) v[e] = __uint_as_float(words[e]);
}

// How many values of the pack at column col lie inside of the row: at most kW, maybe none.
template <int kW>
__device__ __forceinline__ int count_at(int64_t cols, int64_t col) {
  const int64_t left = cols - col;
  return left < kW ? static_cast<int>(left > 0 ? left : 0) : kW;
}

// ---- threads of operations on each value ----
// Threads (x: packs of a row, y: rows), each with `rows_each` rows that lie blockDim.y apart, from
// first_row() on.
struct Threads {
  dim3 grid, block;
};
inline Threads threads_for(int64_t n, int64_t packs, int64_t rows_each) {
  constexpr int64_t kThreads = 256;
  const int64_t tiles = ceil_div(packs, kThreads);
  int64_t x = 1;
  if (tiles == 1)
    while (x < packs) x *= 2;
  else
    x = ceil_div(ceil_div(packs, tiles), 32) * 32;
  const int64_t rows = ceil_div(n, rows_each), y = rows < kThreads / x ? rows : kThreads / x;
  return {grid_of(ceil_div(n, y * rows_each), tiles < 65535 ? tiles : 65535), grid_of(x, y)};
}
template <int kRowsEach>
__device__ __forceinline__ int64_t first_row() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.y * kRowsEach + threadIdx.y;
}
__device__ __forceinline__ int64_t first_pack() {
  return static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t pack_step() {
  return static_cast<int64_t>(gridDim.y) * blockDim.x;
}

// ---- choice of packs ----
inline bool aligned(const void* data, int64_t stride, DType dtype, int width) {
  const int64_t bytes = dtype == DType::kF32 ? 4 : 2,
                unit = bytes * width < 16 ? bytes * width : 16;
  return data == nullptr ||
         (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(unit) == 0 &&
          stride * bytes % unit == 0);
}

// choice.operator()<T, kW, kVector>() for what the rows allow; T: the type of all of `in`. Where
// f32 takes part, packs have 4 values: the accesses of a warp then leave no gaps.
template <class Choice>
void with_packs(std::initializer_list<RowsAny> in, std::initializer_list<RowsOut> out, int64_t cols,
                Choice&& choice) {
  bool f32_in = true, bf16_in = true, narrow_out = true;
  for (const RowsAny& r : in) {
    if (r.data == nullptr) continue;
    f32_in &= r.dtype == DType::kF32;
    bf16_in &= r.dtype == DType::kBF16;
  }
  for (const RowsOut& r : out) narrow_out &= r.data == nullptr || r.dtype != DType::kF32;
  const auto fits = [&](int width) {
    bool all = cols % width == 0;
    for (const RowsAny& r : in) all &= aligned(r.data, r.stride, r.dtype, width);
    for (const RowsOut& r : out) all &= aligned(r.data, r.stride, r.dtype, width);
    return all;
  };
  if (bf16_in && narrow_out && fits(8)) return choice.template operator()<BF16, 8, true>();
  if (!fits(4)) return choice.template operator()<AnyType, 4, false>();
  if (f32_in) return choice.template operator()<float, 4, true>();
  if (bf16_in) return choice.template operator()<BF16, 4, true>();
  choice.template operator()<AnyType, 4, true>();
}

// ---- sums of columns (columns.cu) ----
// Device memory of this thread for what one launch leaves to the next. What was given before stays
// allocated: recorded graphs go on using it.
void* column_scratch(int64_t bytes);
// to[j] += sum of column j of parts (n, d), in double, in a fixed order.
void add_parts(const float* parts, int64_t n, int64_t d, float* to);

}  // namespace signround::kernels::cuda
