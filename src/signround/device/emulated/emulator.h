// Runs CUDA kernels on the CPU, for tests of their logic where there is no GPU: every thread of a
// block is a fiber, blocks run one after another on each processor thread. What a kernel may use is
// what this file declares: barriers, shuffles and the warp-wide products of kernels/cuda/launch.h.
// Shared memory holds noise at the start of a block, copies into it are made when they are waited
// for, and a barrier that not all threads reach is an error.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local
#define __restrict__

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct __attribute__((may_alias)) uint2 { unsigned x, y; };
struct __attribute__((may_alias, aligned(16))) uint4 { unsigned x, y, z, w; };
struct int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct __attribute__((may_alias)) float2 { float x, y; };
struct __attribute__((may_alias, aligned(16))) float4 { float x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace signround::emulator {

extern thread_local dim3 thread_index, block_index;
extern thread_local dim3 block_size, grid_size;

void run_grid(dim3 grid, dim3 block, int64_t shared_bytes, const std::function<void()>& kernel);
void barrier();
// All lanes of the warp give the same function and a payload each; the function gets all of them.
void collect(void (*run)(void** payloads), void* payload);
void* dynamic_shared();
void copy_later(void* to, const void* from, int bytes);  // cp.async; from null: zeros
void commit_copies();
void wait_copies(int but);

}  // namespace signround::emulator

#define threadIdx ::signround::emulator::thread_index
#define blockIdx ::signround::emulator::block_index
#define blockDim ::signround::emulator::block_size
#define gridDim ::signround::emulator::grid_size

inline void __syncthreads() { signround::emulator::barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) {
  signround::emulator::collect([](void**) {}, nullptr);
}

namespace signround::emulator {
template <class T>
struct Shuffle {
  T value, result;
  int from;
};
template <class T>
T shuffle(T value, int from) {
  Shuffle<T> mine{value, value, from};
  collect(
      [](void** payloads) {
        for (int lane = 0; lane < 32; ++lane) {
          auto* self = static_cast<Shuffle<T>*>(payloads[lane]);
          if (self == nullptr) continue;
          const auto* other = static_cast<Shuffle<T>*>(payloads[self->from & 31]);
          if (other != nullptr) self->result = other->value;
        }
      },
      &mine);
  return mine.result;
}
inline int lane() {
  return static_cast<int>((thread_index.x + block_size.x * (thread_index.y + block_size.y * thread_index.z)) % 32);
}
}  // namespace signround::emulator

template <class T>
T __shfl_xor_sync(unsigned, T v, int mask, int width = 32) {
  const int lane = signround::emulator::lane(), from = lane ^ mask;
  return signround::emulator::shuffle(v, from / width == lane / width ? from : lane);
}
template <class T>
T __shfl_sync(unsigned, T v, int from, int width = 32) {
  return signround::emulator::shuffle(v, signround::emulator::lane() / width * width + from % width);
}
template <class T>
T __shfl_down_sync(unsigned, T v, int by, int width = 32) {
  const int lane = signround::emulator::lane();
  return signround::emulator::shuffle(v, lane % width + by < width ? lane + by : lane);
}

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }
inline float __expf(float v) { return std::exp(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __int_as_float(int v) { return std::bit_cast<float>(v); }
inline int __float_as_int(float v) { return std::bit_cast<int>(v); }
inline float __uint_as_float(unsigned v) { return std::bit_cast<float>(v); }
inline unsigned __float_as_uint(float v) { return std::bit_cast<unsigned>(v); }
using std::max;
using std::min;
using std::isfinite;
