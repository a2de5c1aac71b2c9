// What kernels/cuda is written with: launches, and the few machine instructions behind plain
// functions, so that the same source runs on a GPU (nvcc) and, for tests, on the CPU
// (device/emulated/emulator.h). Included by .cu files only.
#pragma once

#include <cstdint>
#include <utility>

#ifdef SIGNROUND_EMULATE_CUDA
#include "signround/device/emulated/emulator.h"
#else
#include "signround/device/cuda/stream.h"
#endif

#include "signround/device/device.h"
#include "signround/tensor/dtype.h"

namespace signround::cuda {

// Queues kernel(arguments...) on the current device. shared_bytes: of dynamic_shared().
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, int64_t shared_bytes,
            Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef SIGNROUND_EMULATE_CUDA
  emulator::run_grid(grid, block, shared_bytes, [&] { kernel(Parameters(arguments)...); });
#else
  if (shared_bytes > 48 * 1024)
    check(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                               cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "shared memory of a kernel");
  kernel<<<grid, block, static_cast<size_t>(shared_bytes), stream()>>>(Parameters(arguments)...);
  launched("a kernel");
#endif
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline dim3 grid_of(int64_t x, int64_t y = 1, int64_t z = 1) {
  return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
}

template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef SIGNROUND_EMULATE_CUDA
  return static_cast<T*>(emulator::dynamic_shared());
#else
  extern __shared__ __align__(128) unsigned char signround_shared[];
  return reinterpret_cast<T*>(signround_shared);
#endif
}

// threadIdx.x, read anew: nothing that is derived from it is kept in registers until here.
__device__ __forceinline__ int thread_anew() {
#ifdef SIGNROUND_EMULATE_CUDA
  return static_cast<int>(threadIdx.x);
#else
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
#endif
}

// ---- bf16 ----
__device__ __forceinline__ float bf16_to_f32(uint16_t bits) {
  return __uint_as_float(static_cast<unsigned>(bits) << 16);
}
// The low and the high half of two packed values.
__device__ __forceinline__ float low_bf16(uint32_t two) { return __uint_as_float(two << 16); }
__device__ __forceinline__ float high_bf16(uint32_t two) {
  return __uint_as_float(two & 0xffff0000u);
}
// To nearest, ties to even; a NaN stays one.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
#ifdef SIGNROUND_EMULATE_CUDA
  return static_cast<uint32_t>(to_bf16(low).bits) | static_cast<uint32_t>(to_bf16(high).bits) << 16;
#else
  uint32_t two;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(high), "f"(low));
  return two;
#endif
}
__device__ __forceinline__ uint16_t f32_to_bf16(float v) {
#ifdef SIGNROUND_EMULATE_CUDA
  return to_bf16(v).bits;
#else
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return bits;
#endif
}
__device__ __forceinline__ float f16_to_f32(uint16_t bits) {
#ifdef SIGNROUND_EMULATE_CUDA
  return to_f32(F16{bits});
#else
  float v;
  asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
  return v;
#endif
}
__device__ __forceinline__ uint16_t f32_to_f16(float v) {
#ifdef SIGNROUND_EMULATE_CUDA
  return to_f16(v).bits;
#else
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return bits;
#endif
}
// a b + c of two packed bf16 values each, rounded once.
__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
#ifdef SIGNROUND_EMULATE_CUDA
  return pack_bf16(std::fma(low_bf16(a), low_bf16(b), low_bf16(c)),
                   std::fma(high_bf16(a), high_bf16(b), high_bf16(c)));
#else
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#endif
}
// a & mask | bits in one instruction: left to itself, the compiler takes two where both are constants.
__device__ __forceinline__ uint32_t and_or(uint32_t a, uint32_t mask, uint32_t bits) {
#ifdef SIGNROUND_EMULATE_CUDA
  return (a & mask) | bits;
#else
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
#endif
}
// Byte i of the result is byte (digit i of the selector) of a (0 to 3) and b (4 to 7).
__device__ __forceinline__ uint32_t pick_bytes(uint32_t a, uint32_t b, uint32_t selector) {
#ifdef SIGNROUND_EMULATE_CUDA
  const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i)
    d |= static_cast<uint32_t>(both >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  return d;
#else
  return __byte_perm(a, b, selector);
#endif
}
// 2^x, to about 2 ulp.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef SIGNROUND_EMULATE_CUDA
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// The smaller one; NaN where one of them is, which fminf hides.
__device__ __forceinline__ float min_or_nan(float a, float b) {
#ifdef SIGNROUND_EMULATE_CUDA
  return a < b || a != a ? a : b;
#else
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
#endif
}

// ---- products of a warp (PTX ISA, mma.m16n8k16) ----
// d += a b with a (16, 16) row-major, b (16, 8), of bf16. Lane l, with g = l / 4 and t = l % 4,
// holds of a the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), of b the pairs of rows
// (2t, g), (2t + 8, g), of d the values (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#ifdef SIGNROUND_EMULATE_CUDA
namespace detail {
struct Mma {
  float* d;
  const uint32_t *a, *b;
};
inline void mma_of_warp(void** payloads) {
  float a[16][16], b[16][8];
  for (int l = 0; l < 32; ++l) {
    const auto* m = static_cast<const Mma*>(payloads[l]);
    const int g = l / 4, t = l % 4;
    for (int r = 0; r < 4; ++r) {
      const int row = g + (r & 1) * 8, col = 2 * t + (r >> 1) * 8;
      a[row][col] = low_bf16(m->a[r]), a[row][col + 1] = high_bf16(m->a[r]);
    }
    for (int r = 0; r < 2; ++r) {
      b[2 * t + 8 * r][g] = low_bf16(m->b[r]);
      b[2 * t + 8 * r + 1][g] = high_bf16(m->b[r]);
    }
  }
  for (int l = 0; l < 32; ++l) {
    const auto* m = static_cast<const Mma*>(payloads[l]);
    for (int r = 0; r < 4; ++r) {
      const int row = l / 4 + (r >> 1) * 8, col = 2 * (l % 4) + (r & 1);
      float sum = m->d[r];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][col];
      m->d[r] = sum;
    }
  }
}
struct LoadMatrix {
  uint32_t* r;
  const void* row;
};
template <int kCount, bool kTransposed>
void load_matrices(void** payloads) {
  for (int l = 0; l < 32; ++l) {
    auto* self = static_cast<LoadMatrix*>(payloads[l]);
    for (int m = 0; m < kCount; ++m) {
      const auto value = [&](int row, int col) -> uint32_t {
        const auto* p = static_cast<LoadMatrix*>(payloads[8 * m + row]);
        return static_cast<const uint16_t*>(p->row)[col];
      };
      const int g = l / 4, t = l % 4;
      self->r[m] = kTransposed ? value(2 * t, g) | value(2 * t + 1, g) << 16
                               : value(g, 2 * t) | value(g, 2 * t + 1) << 16;
    }
  }
}
}  // namespace detail
#endif
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4],
                                         const uint32_t (&b)[2]) {
#ifdef SIGNROUND_EMULATE_CUDA
  detail::Mma mine{d, a, b};
  emulator::collect(detail::mma_of_warp, &mine);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Four 8 x 8 matrices of 16-bit values from shared memory: lane 8 m + r gives the address of row r
// of matrix m, 16 aligned bytes; r[m] gets, in lane l, columns 2 (l % 4) and the next of row l / 4;
// transposed: rows 2 (l % 4) and the next of column l / 4.
template <bool kTransposed = false>
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void* row) {
#ifdef SIGNROUND_EMULATE_CUDA
  detail::LoadMatrix mine{r, row};
  emulator::collect(detail::load_matrices<4, kTransposed>, &mine);
#else
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
#endif
}

// 16 aligned bytes from global to shared memory, on their way until wait_copies; valid false: zeros.
__device__ __forceinline__ void copy_16(void* shared, const void* global, bool valid = true) {
#ifdef SIGNROUND_EMULATE_CUDA
  emulator::copy_later(shared, valid ? global : nullptr, 16);
#else
  const uint32_t at = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
#endif
}
__device__ __forceinline__ void commit_copies() {
#ifdef SIGNROUND_EMULATE_CUDA
  emulator::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Until at most kBut of this thread's committed groups are still on their way. Other threads see
// what arrived after a barrier.
template <int kBut>
__device__ __forceinline__ void wait_copies() {
#ifdef SIGNROUND_EMULATE_CUDA
  emulator::wait_copies(kBut);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kBut) : "memory");
#endif
}

// ---- sums ----
// Over groups of `width` lanes, a power of two; every lane gets the sum. The order is fixed.
template <class T>
__device__ __forceinline__ T sum_lanes(T v, int width = 32) {
  for (int mask = width / 2; mask > 0; mask /= 2) v += __shfl_xor_sync(0xffffffffu, v, mask);
  return v;
}
__device__ __forceinline__ float max_lanes(float v, int width = 32) {
  for (int mask = width / 2; mask > 0; mask /= 2)
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, mask));
  return v;
}
// Over all threads of a block of whole warps, at most 32; scratch: 33 shared values. All threads
// call it and get the sum; the order is fixed.
template <class T>
__device__ __forceinline__ T sum_block(T v, T* scratch) {
  const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
  v = sum_lanes(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[warp] = v;
  __syncthreads();
  if (warp == 0) {
    T all = static_cast<int>(threadIdx.x) < warps ? scratch[threadIdx.x] : T(0);
    all = sum_lanes(all);
    if (threadIdx.x == 0) scratch[32] = all;
  }
  __syncthreads();
  return scratch[32];
}

}  // namespace signround::cuda
