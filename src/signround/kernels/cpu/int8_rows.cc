#include "signround/kernels/cpu/int8_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/int8_rows.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

using DI8 = hn::Rebind<int8_t, DF>;

// Magnitudes as whole numbers: infinities and what is not a number are above all others.
HWY_INLINE hn::Vec<DI> magnitude_bits(VF v) {
  return hn::And(hn::BitCast(DI(), v), hn::Set(DI(), 0x7fffffff));
}

HWY_INLINE void store_codes(const Full&, VF v, VF inverse, int8_t* out, int64_t j) {
  hn::StoreU(hn::DemoteTo(DI8(), hn::NearestInt(hn::Mul(v, inverse))), DI8(), out + j);
}
HWY_INLINE void store_codes(const Part& part, VF v, VF inverse, int8_t* out, int64_t j) {
  HWY_ALIGN int8_t padded[hn::MaxLanes(DF())];
  store_codes(Full{}, v, inverse, padded, 0);
  for (int64_t i = 0; i < part.n; ++i) out[j + i] = padded[i];
}

HWY_ATTR void round_rows(const Int8Operand& a, int64_t begin, int64_t end, int8_t* codes,
                         float* steps) {
  for (int64_t i = begin; i < end; ++i) {
    const InRow x = row_of(a.x, i);
    auto most = hn::Zero(DI());
    for_vectors(a.k, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      most = hn::Max(most, magnitude_bits(load(io, x, j)));
    });
    const auto largest = hn::BitCast(DF(), hn::MaxOfLanes(DI(), most));
    steps[i] = int8_step(hn::GetLane(largest));
    const VF inverse = set(int8_inverse(steps[i]));
    for_vectors(a.k, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
      store_codes(io, load(io, x, j), inverse, codes + i * a.k, j);
    });
  }
}

// So many columns at a time: their largest magnitudes stay in the first cache, their rows in the
// second until they are read again.
constexpr int64_t kColumns = 256;

HWY_ATTR void round_columns(const Int8Operand& a, int64_t begin, int64_t end, int8_t* codes,
                            float* steps) {
  HWY_ALIGN int32_t most[kColumns + hn::MaxLanes(DF())];
  HWY_ALIGN float inverse[kColumns + hn::MaxLanes(DF())];
  const int64_t bytes = a.x.dtype == DType::kF32 ? 4 : 2;
  for (int64_t first = begin; first < end; first += kColumns) {
    const int64_t n = end - first < kColumns ? end - first : kColumns;
    const auto row = [&](int64_t p) SIGNROUND_LAMBDA {
      const InRow whole = row_of(a.x, p);
      return InRow{static_cast<const char*>(whole.data) + first * bytes, whole.dtype};
    };
    for (int64_t j = 0; j < n; j += lanes()) hn::Store(hn::Zero(DI()), DI(), most + j);
    for (int64_t p = 0; p < a.k; ++p) {
      const InRow x = row(p);
      for_vectors(n, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
        const auto bits = magnitude_bits(load(io, x, j));
        hn::Store(hn::Max(hn::Load(DI(), most + j), bits), DI(), most + j);
      });
    }
    for (int64_t j = 0; j < n; ++j) {
      float largest;
      __builtin_memcpy(&largest, most + j, sizeof largest);
      steps[first + j] = int8_step(largest);
      inverse[j] = int8_inverse(steps[first + j]);
    }
    for (int64_t p = 0; p < a.k; ++p) {
      const InRow x = row(p);
      for_vectors(n, [&](int64_t j, auto io) SIGNROUND_LAMBDA {
        store_codes(io, load(io, x, j), hn::Load(DF(), inverse + j), codes + p * a.outer + first,
                    j);
      });
    }
  }
}

HWY_ATTR void add_sums(const int32_t* sums, int64_t n, float step_a, const float* steps_b,
                       const float* from, void* c, DType dtype) {
  const OutRow row{c, dtype};
  const VF a = set(step_a);
  const int64_t width = lanes();
  int64_t j = 0;
  for (; j + width <= n; j += width) {
    const VF sum = hn::ConvertTo(DF(), hn::LoadU(DI(), sums + j));
    const VF product = hn::Mul(sum, hn::Mul(a, load(steps_b + j)));
    store(Full{}, from ? hn::Add(load(from + j), product) : product, row, j);
  }
  for (; j < n; ++j) {
    const float product = static_cast<float>(sums[j]) * (step_a * steps_b[j]);
    const float value = from ? from[j] + product : product;
    if (dtype == DType::kF32)
      static_cast<float*>(c)[j] = value;
    else
      static_cast<BF16*>(c)[j] = to_bf16(value);
  }
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(round_rows);
HWY_EXPORT(round_columns);
HWY_EXPORT(add_sums);

void round_to_int8(const Int8Operand& a, int64_t begin, int64_t end, int8_t* codes,
                   float* steps) noexcept {
  if (a.k_major)
    HWY_DYNAMIC_DISPATCH(round_columns)(a, begin, end, codes, steps);
  else
    HWY_DYNAMIC_DISPATCH(round_rows)(a, begin, end, codes, steps);
}

void add_int8_sums(const int32_t* sums, int64_t n, float step_a, const float* steps_b,
                   const float* from, void* c, DType dtype) noexcept {
  HWY_DYNAMIC_DISPATCH(add_sums)(sums, n, step_a, steps_b, from, c, dtype);
}

}  // namespace signround::kernels
#endif
