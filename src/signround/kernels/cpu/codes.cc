#include "signround/kernels/cpu/codes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/codes.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/simd-inl.h"
#include "signround/kernels/dispatch.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

using DU8 = hn::Rebind<uint8_t, DF>;
constexpr int64_t kSums = 16;

// code - zero of a whole vector; both are whole numbers, so this is exact.
HWY_INLINE VF steps(const uint8_t* codes, VF zero) {
  const auto whole = hn::PromoteTo(DI(), hn::LoadU(DU8(), codes));
  return hn::Sub(hn::ConvertTo(DF(), whole), zero);
}

template <class Out>
HWY_INLINE void write(const uint8_t* codes, int64_t n, float scale, float zero, Out* weight) {
  const VF by = set(scale), from = set(zero);
  const int64_t width = lanes();
  int64_t i = 0;
  for (; i + width <= n; i += width) store(hn::Mul(by, steps(codes + i, from)), weight + i);
  if (i == n) return;
  HWY_ALIGN uint8_t padded[hn::MaxLanes(DF())] = {};
  for (int64_t j = 0; i + j < n; ++j) padded[j] = codes[i + j];
  Part{n - i}.store(hn::Mul(by, steps(padded, from)), weight, i);
}

HWY_ATTR void write_f32(const uint8_t* codes, int64_t n, float scale, float zero, float* weight) {
  write(codes, n, scale, zero, weight);
}

HWY_ATTR void write_bf16(const uint8_t* codes, int64_t n, float scale, float zero, BF16* weight) {
  write(codes, n, scale, zero, weight);
}

// A vector has kSums lanes or a part of them.
HWY_ATTR double dot(const float* d, const uint8_t* codes, int64_t n, float zero) {
  static_assert(kSums % hn::MaxLanes(DF()) == 0);
  constexpr int64_t kVectors = kSums / static_cast<int64_t>(hn::MaxLanes(DF()));
  const VF from = set(zero);
  const int64_t width = lanes();
  HWY_ALIGN float sums[kSums];
  VF partial[kVectors];
  for (VF& p : partial) p = set(0);
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int64_t v = 0; v < kVectors; ++v) {
      const int64_t at = i + v * width;
      partial[v] = hn::Add(partial[v], hn::Mul(load(d + at), steps(codes + at, from)));
    }
  for (int64_t v = 0; v < kVectors; ++v) hn::Store(partial[v], DF(), sums + v * width);
  for (int64_t j = 0; i < n; ++i, ++j) sums[j] += d[i] * (static_cast<float>(codes[i]) - zero);
  double sum = 0;
  for (const float s : sums) sum += static_cast<double>(s);
  return sum;
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(write_f32);
HWY_EXPORT(write_bf16);
HWY_EXPORT(dot);

namespace {

void write_f32_hwy(const uint8_t* codes, int64_t n, float scale, float zero,
                   float* weight) noexcept {
  HWY_DYNAMIC_DISPATCH(write_f32)(codes, n, scale, zero, weight);
}
void write_bf16_hwy(const uint8_t* codes, int64_t n, float scale, float zero,
                    BF16* weight) noexcept {
  HWY_DYNAMIC_DISPATCH(write_bf16)(codes, n, scale, zero, weight);
}
double dot_hwy(const float* d, const uint8_t* codes, int64_t n, float zero) noexcept {
  return HWY_DYNAMIC_DISPATCH(dot)(d, codes, n, zero);
}

void write_f32_ref(const uint8_t* codes, int64_t n, float scale, float zero,
                   float* weight) noexcept {
  for (int64_t i = 0; i < n; ++i) weight[i] = scale * (static_cast<float>(codes[i]) - zero);
}
void write_bf16_ref(const uint8_t* codes, int64_t n, float scale, float zero,
                    BF16* weight) noexcept {
  for (int64_t i = 0; i < n; ++i)
    weight[i] = to_bf16(scale * (static_cast<float>(codes[i]) - zero));
}
double dot_ref(const float* d, const uint8_t* codes, int64_t n, float zero) noexcept {
  float sums[16] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float term = d[i] * (static_cast<float>(codes[i]) - zero);
    sums[i % 16] += term;
  }
  double sum = 0;
  for (const float s : sums) sum += static_cast<double>(s);
  return sum;
}

constexpr CodesKernel kKernels[] = {{"hwy", runs_always, write_f32_hwy, write_bf16_hwy, dot_hwy},
                                    {"ref", runs_always, write_f32_ref, write_bf16_ref, dot_ref}};

}  // namespace

std::span<const CodesKernel> codes_kernels() { return kKernels; }
const CodesKernel& codes_kernel() { return pick_kernel("codes", kKernels); }

}  // namespace signround::kernels
#endif
