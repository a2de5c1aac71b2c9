// What the row kernels share on Highway: loads and stores of f32, bf16 and f16 as f32 vectors,
// tails of a row, sums. Compiled once per instruction set; include it after foreach_target.h.
#if defined(SIGNROUND_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIGNROUND_KERNELS_CPU_SIMD_INL_H_
#undef SIGNROUND_KERNELS_CPU_SIMD_INL_H_
#else
#define SIGNROUND_KERNELS_CPU_SIMD_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <cstdint>

#include "signround/tensor/rows.h"

// Lambdas do not inherit the instruction set of their surroundings, and GCC would call them.
#ifndef SIGNROUND_LAMBDA
#define SIGNROUND_LAMBDA HWY_ATTR __attribute__((always_inline))
#endif

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::ScalableTag<float>;
using VF = hn::Vec<DF>;
using DU = hn::RebindToUnsigned<DF>;
using DI = hn::RebindToSigned<DF>;
using DU16 = hn::Rebind<uint16_t, DF>;

HWY_INLINE VF set(float value) { return hn::Set(DF(), value); }
HWY_INLINE int64_t lanes() { return static_cast<int64_t>(hn::Lanes(DF())); }

// Full vectors. The conversions give the bits of to_f32, to_bf16 and to_f16 in tensor/dtype.h.
HWY_INLINE VF load(const float* p) { return hn::LoadU(DF(), p); }

HWY_INLINE VF load(const BF16* p) {
  const auto bits = hn::PromoteTo(DU(), hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(DF(), hn::ShiftLeft<16>(bits));
}

// Whole numbers; what an int16_t cannot have becomes its nearest.
HWY_INLINE hn::Vec<DI> load_int(const int16_t* p) {
  return hn::PromoteTo(DI(), hn::LoadU(hn::Rebind<int16_t, DF>(), p));
}
HWY_INLINE void store_int(hn::Vec<DI> v, int16_t* p) {
  const hn::Rebind<int16_t, DF> d16;
  hn::StoreU(hn::DemoteTo(d16, v), d16, p);
}
HWY_INLINE VF load(const int16_t* p) { return hn::ConvertTo(DF(), load_int(p)); }

HWY_INLINE VF load(const F16* p) {
  const DI di;
  const auto bits =
      hn::BitCast(di, hn::PromoteTo(DU(), hn::LoadU(DU16(), reinterpret_cast<const uint16_t*>(p))));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(di, 0x7fff)));
  const auto rebias = hn::Set(di, 112 << 23);
  const auto normal = hn::Add(magnitude, rebias);
  // Subnormal: 2^-14 * (1 + m) - 2^-14 is exact, and no f32 subnormal is touched.
  const VF small = hn::Sub(hn::BitCast(DF(), hn::Add(normal, hn::Set(di, 1 << 23))), set(0x1p-14f));
  const auto special = hn::Gt(magnitude, hn::Set(di, (0x7c00 << 13) - 1));
  const auto tiny = hn::Lt(magnitude, hn::Set(di, 0x0400 << 13));
  auto value = hn::IfThenElse(tiny, hn::BitCast(di, small), normal);
  value = hn::IfThenElse(special, hn::Add(normal, rebias), value);
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(di, 0x8000)));
  return hn::BitCast(DF(), hn::Or(value, sign));
}

HWY_INLINE void store(VF v, float* p) { hn::StoreU(v, DF(), p); }

// The upper halves are those of the nearest bf16, half to even.
HWY_INLINE hn::Vec<DU> rounded_to_bf16(VF v) {
  const DU du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  return hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7fffu)));
}
HWY_INLINE void store_high(hn::Vec<DU> bits, BF16* p) {
  hn::StoreU(hn::DemoteTo(DU16(), hn::BitCast(DI(), hn::ShiftRight<16>(bits))), DU16(),
             reinterpret_cast<uint16_t*>(p));
}

// Of values that are not NaN.
HWY_INLINE void store_finite(VF v, float* p) { store(v, p); }
HWY_INLINE void store_finite(VF v, BF16* p) { store_high(rounded_to_bf16(v), p); }

// The same, and a quiet NaN for NaN.
HWY_INLINE hn::Vec<DU> rounded_or_nan(VF v) {
  const DU du;
  const auto quiet = hn::Or(hn::BitCast(du, v), hn::Set(du, 0x400000u));
  // Not Ne: with AVX, Highway 1.0 says that a NaN does not differ from itself.
  return hn::IfThenElse(hn::RebindMask(du, hn::Eq(v, v)), rounded_to_bf16(v), quiet);
}
HWY_INLINE void store(VF v, BF16* p) { store_high(rounded_or_nan(v), p); }

// Two vectors of bf16 values for operations to which their order means nothing: those of even and
// those of odd places, which need no lane moved. The bits of load and store.
#define SIGNROUND_HAS_HALVES (HWY_TARGET != HWY_SCALAR)
#if SIGNROUND_HAS_HALVES
struct Halves {
  VF even, odd;
};
using DHalves = hn::Repartition<uint16_t, DF>;
HWY_INLINE Halves load_halves(const BF16* p) {
  const DU du;
  const auto bits = hn::BitCast(du, hn::LoadU(DHalves(), reinterpret_cast<const uint16_t*>(p)));
  return {hn::BitCast(DF(), hn::ShiftLeft<16>(bits)),
          hn::BitCast(DF(), hn::And(bits, hn::Set(du, 0xffff0000u)))};
}
HWY_INLINE Halves load_halves(const int16_t* p) {
  const auto bits = hn::BitCast(DI(), hn::LoadU(hn::Repartition<int16_t, DF>(), p));
  return {hn::ConvertTo(DF(), hn::ShiftRight<16>(hn::ShiftLeft<16>(bits))),
          hn::ConvertTo(DF(), hn::ShiftRight<16>(bits))};
}
HWY_INLINE void store_high_halves(hn::Vec<DU> even, hn::Vec<DU> odd, BF16* p) {
  const auto bits = hn::Or(hn::ShiftRight<16>(even), hn::And(odd, hn::Set(DU(), 0xffff0000u)));
  hn::StoreU(hn::BitCast(DHalves(), bits), DHalves(), reinterpret_cast<uint16_t*>(p));
}
HWY_INLINE void store_finite_halves(Halves v, BF16* p) {
  store_high_halves(rounded_to_bf16(v.even), rounded_to_bf16(v.odd), p);
}
HWY_INLINE void store_halves(Halves v, BF16* p) {
  store_high_halves(rounded_or_nan(v.even), rounded_or_nan(v.odd), p);
}
#endif

HWY_INLINE void store(VF v, F16* p) {
  const DU du;
  const DI di;
  const auto bits = hn::BitCast(du, v);
  const auto magnitude = hn::BitCast(di, hn::And(bits, hn::Set(du, 0x7fffffffu)));
  const auto odd = hn::And(hn::ShiftRight<13>(magnitude), hn::Set(di, 1));
  auto value =
      hn::ShiftRight<13>(hn::Add(hn::Add(magnitude, odd), hn::Set(di, 0xfff - 0x38000000)));
  // Below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits.
  const auto subnormal = hn::And(hn::BitCast(di, hn::Add(hn::BitCast(DF(), magnitude), set(0.5f))),
                                 hn::Set(di, 0xffff));
  value = hn::IfThenElse(hn::Lt(magnitude, hn::Set(di, 0x38800000)), subnormal, value);
  value = hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x477fefff)), hn::Set(di, 0x7c00), value);
  const auto nan =
      hn::Or(hn::Set(di, 0x7e00), hn::And(hn::ShiftRight<13>(magnitude), hn::Set(di, 0x1ff)));
  value = hn::IfThenElse(hn::Gt(magnitude, hn::Set(di, 0x7f800000)), nan, value);
  const auto sign = hn::BitCast(di, hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u)));
  hn::StoreU(hn::DemoteTo(DU16(), hn::Or(value, sign)), DU16(), reinterpret_cast<uint16_t*>(p));
}

// Asks for what lies 512 values behind p, for loops over more than the caches hold: a core's own
// prefetching begins anew at each page's end, and loses where several rows are read side by side.
// Half and twice the distance were slower; rows of few values gain nothing.
constexpr int64_t kAhead = 512;
template <class T>
HWY_INLINE void fetch_ahead(const T* p) {
  hwy::Prefetch(p + kAhead);
}

// One row in memory whose type is known at run time. The branch per vector is predicted; it costs
// nothing next to memory, and saves an instantiation of each kernel per type.
struct InRow {
  const void* data;
  DType dtype;
};
struct OutRow {
  void* data;
  DType dtype;
};

HWY_INLINE InRow at_value(InRow row, int64_t j) {
  return {static_cast<const char*>(row.data) + j * (row.dtype == DType::kF32 ? 4 : 2), row.dtype};
}
HWY_INLINE InRow row_of(const RowsAny& rows, int64_t r) {
  return at_value({rows.data, rows.dtype}, r * rows.stride);
}
HWY_INLINE OutRow out_at(const RowsOut& rows, int64_t offset) {
  return {static_cast<char*>(rows.data) + offset * (rows.dtype == DType::kF32 ? 4 : 2), rows.dtype};
}
HWY_INLINE void fetch_ahead(OutRow row, int64_t j) {
  const char* at = static_cast<const char*>(row.data);
  hwy::Prefetch(at + (j + kAhead) * (row.dtype == DType::kF32 ? 4 : 2));
}
HWY_INLINE void fetch_ahead(InRow row, int64_t j) {
  const char* at = static_cast<const char*>(row.data);
  hwy::Prefetch(at + (j + kAhead) * (row.dtype == DType::kF32 ? 4 : 2));
}
// A whole short row, for rows that lie apart.
HWY_INLINE void fetch_row(InRow row, int64_t n) {
  const char* at = static_cast<const char*>(row.data);
  for (int64_t b = 0; b < n * (row.dtype == DType::kF32 ? 4 : 2); b += 64) hwy::Prefetch(at + b);
}
HWY_INLINE OutRow row_of(const RowsOut& rows, int64_t r) { return out_at(rows, r * rows.stride); }
HWY_INLINE const float* row_of(const RowsIn& rows, int64_t r) {
  return rows.data + r * rows.stride;
}

// A whole vector at element j of a row.
struct Full {
  template <class T>
  HWY_INLINE VF load(const T* p, int64_t j) const {
    return HWY_NAMESPACE::load(p + j);
  }
  template <class T>
  HWY_INLINE void store(VF v, T* p, int64_t j) const {
    HWY_NAMESPACE::store(v, p + j);
  }
  HWY_INLINE hn::Vec<DI> load_int(const int16_t* p, int64_t j) const {
    return HWY_NAMESPACE::load_int(p + j);
  }
  HWY_INLINE void store_int(hn::Vec<DI> v, int16_t* p, int64_t j) const {
    HWY_NAMESPACE::store_int(v, p + j);
  }
  HWY_INLINE VF inside(VF v) const { return v; }
  HWY_INLINE VF outside(VF v, VF) const { return v; }
};

// The last n < lanes() elements, through a padded copy: nothing outside of the row is read or
// written, on any instruction set, and the lanes outside read as zero.
struct Part {
  int64_t n;
  template <class T>
  HWY_INLINE VF load(const T* p, int64_t j) const {
    HWY_ALIGN T padded[hn::MaxLanes(DF())] = {};
    for (int64_t i = 0; i < n; ++i) padded[i] = p[j + i];
    return HWY_NAMESPACE::load(padded);
  }
  template <class T>
  HWY_INLINE void store(VF v, T* p, int64_t j) const {
    HWY_ALIGN T padded[hn::MaxLanes(DF())];
    HWY_NAMESPACE::store(v, padded);
    for (int64_t i = 0; i < n; ++i) p[j + i] = padded[i];
  }
  HWY_INLINE hn::Vec<DI> load_int(const int16_t* p, int64_t j) const {
    HWY_ALIGN int16_t padded[hn::MaxLanes(DF())] = {};
    for (int64_t i = 0; i < n; ++i) padded[i] = p[j + i];
    return HWY_NAMESPACE::load_int(padded);
  }
  HWY_INLINE void store_int(hn::Vec<DI> v, int16_t* p, int64_t j) const {
    HWY_ALIGN int16_t padded[hn::MaxLanes(DF())];
    HWY_NAMESPACE::store_int(v, padded);
    for (int64_t i = 0; i < n; ++i) p[j + i] = padded[i];
  }
  // Zero outside the row: for terms that do not vanish where the loaded values do.
  HWY_INLINE VF inside(VF v) const {
    return hn::IfThenElseZero(hn::FirstN(DF(), static_cast<size_t>(n)), v);
  }
  // `filler` outside the row.
  HWY_INLINE VF outside(VF v, VF filler) const {
    return hn::IfThenElse(hn::FirstN(DF(), static_cast<size_t>(n)), v, filler);
  }
};

template <class Io>
HWY_INLINE VF load(const Io& io, InRow row, int64_t j) {
  if (row.dtype == DType::kF32) return io.load(static_cast<const float*>(row.data), j);
  if (row.dtype == DType::kBF16) return io.load(static_cast<const BF16*>(row.data), j);
  return io.load(static_cast<const F16*>(row.data), j);
}

template <class Io>
HWY_INLINE void store(const Io& io, VF v, OutRow row, int64_t j) {
  if (row.dtype == DType::kF32) return io.store(v, static_cast<float*>(row.data), j);
  io.store(v, static_cast<BF16*>(row.data), j);
}

// Gradients: adds to the f32 row where `accumulate`.
template <class Io>
HWY_INLINE void put(const Io& io, VF v, OutRow row, int64_t j, bool accumulate) {
  if (accumulate) v = hn::Add(v, io.load(static_cast<const float*>(row.data), j));
  store(io, v, row, j);
}

// body(j, io) for every vector of a row of n elements; the last one may be a Part.
template <class Body>
HWY_INLINE void for_vectors(int64_t n, Body body) {
  const int64_t step = lanes();
  int64_t j = 0;
  for (; j + step <= n; j += step) body(j, Full{});
  if (j < n) body(j, Part{n - j});
}

HWY_INLINE float sum_lanes(VF v) { return hn::GetLane(hn::SumOfLanes(DF(), v)); }

// Sum of term(j, io) over a row, f32. The terms of lanes outside the row must be zero. Four
// accumulators: the latency of an addition is about four additions long.
template <class Term>
HWY_INLINE float sum_vectors(int64_t n, Term term) {
  const int64_t step = lanes();
  VF s0 = set(0), s1 = s0, s2 = s0, s3 = s0;
  int64_t j = 0;
  for (; j + 4 * step <= n; j += 4 * step) {
    s0 = hn::Add(s0, term(j, Full{}));
    s1 = hn::Add(s1, term(j + step, Full{}));
    s2 = hn::Add(s2, term(j + 2 * step, Full{}));
    s3 = hn::Add(s3, term(j + 3 * step, Full{}));
  }
  for (; j + step <= n; j += step) s0 = hn::Add(s0, term(j, Full{}));
  if (j < n) s1 = hn::Add(s1, term(j, Part{n - j}));
  return sum_lanes(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
}

// The lanes added up in double.
HWY_INLINE double sum_lanes_double(VF v) {
  HWY_ALIGN float values[hn::MaxLanes(DF())];
  hn::Store(v, DF(), values);
  double sum = 0;
  for (int64_t i = 0; i < lanes(); ++i) sum += static_cast<double>(values[i]);
  return sum;
}

// The same sum, f32 within at most kSumRun vectors, double beyond.
constexpr int64_t kSumRun = 64;
template <class Term>
HWY_INLINE double sum_vectors_double(int64_t n, Term term) {
  const int64_t step = lanes();
  const int64_t full = n / step;
  double sum = 0;
  for (int64_t v = 0; v < full;) {
    const int64_t end = v + kSumRun < full ? v + kSumRun : full;
    VF s0 = set(0), s1 = s0, s2 = s0, s3 = s0;
    for (; v + 4 <= end; v += 4) {
      s0 = hn::Add(s0, term(v * step, Full{}));
      s1 = hn::Add(s1, term((v + 1) * step, Full{}));
      s2 = hn::Add(s2, term((v + 2) * step, Full{}));
      s3 = hn::Add(s3, term((v + 3) * step, Full{}));
    }
    for (; v < end; ++v) s0 = hn::Add(s0, term(v * step, Full{}));
    sum += sum_lanes_double(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)));
  }
  if (full * step < n) sum += sum_lanes_double(term(full * step, Part{n - full * step}));
  return sum;
}

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
