// Building blocks of attention on Highway: small matrix products in registers, 2^x, transposition,
// the keys that a tile of rows may see. Compiled once per instruction set.
#if defined(SIGNROUND_KERNELS_CPU_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SIGNROUND_KERNELS_CPU_ATTENTION_TILE_INL_H_
#undef SIGNROUND_KERNELS_CPU_ATTENTION_TILE_INL_H_
#else
#define SIGNROUND_KERNELS_CPU_ATTENTION_TILE_INL_H_
#endif

#include <utility>

#include "signround/kernels/cpu/attention_plan.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

// The register block of a product: kBlockRows x kBlockVecs accumulators, kBlockVecs vectors of the
// right side and one value of the left. 4 x 4 of 32 registers, 4 x 3 of the 16 of AVX2 and SSE. As
// fast as 6 x 4 (99% against 96% of the peak from L1), and loses less at the edge of a mask.
constexpr int kBlockRows = 4;
#if HWY_ARCH_X86 && HWY_TARGET > HWY_AVX3
constexpr int kBlockVecs = 3;
#else
constexpr int kBlockVecs = 4;
#endif
constexpr int64_t kLanes = int64_t{hn::MaxLanes(DF())};
static_assert(kTileRows % kBlockRows == 0 && 16 % kBlockRows == 0 && 16 % kLanes == 0);

// c (rows, vecs * kLanes) = or += a (rows, k) * b (k, vecs * kLanes). a is stored as (k, rows)
// where kTransposed. c is aligned.
struct Product {
  const float* a;
  int64_t lda;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  int64_t k;
  bool accumulate;
};

template <bool kTransposed, int kRows, int kVecs>
HWY_NOINLINE void multiply_block(const Product& p) {
  const DF d;
  VF sum[kRows][kVecs];
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r) {
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::Zero(d);
  }
  const float *a = p.a, *b = p.b;
  const int64_t a_step = kTransposed ? p.lda : 1, a_row = kTransposed ? 1 : p.lda, ldb = p.ldb;
  for (int64_t k = p.k; k > 0; --k, a += a_step, b += ldb) {
    VF right[kVecs];
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) right[v] = hn::LoadU(d, b + v * kLanes);
    HWY_UNROLL(4)
    for (int r = 0; r < kRows; ++r) {
      const VF left = hn::Set(d, a[r * a_row]);
      HWY_UNROLL(4)
      for (int v = 0; v < kVecs; ++v) sum[r][v] = hn::MulAdd(left, right[v], sum[r][v]);
    }
  }
  float* c = p.c;
  HWY_UNROLL(4)
  for (int r = 0; r < kRows; ++r, c += p.ldc) {
    HWY_UNROLL(4)
    for (int v = 0; v < kVecs; ++v) {
      const VF old = p.accumulate ? hn::Load(d, c + v * kLanes) : hn::Zero(d);
      hn::Store(hn::Add(old, sum[r][v]), d, c + v * kLanes);
    }
  }
}

template <bool kTransposed>
HWY_INLINE void multiply(const Product& p, int64_t rows, int64_t vecs) {
  using Block = void (*)(const Product&);
  static constexpr auto kBlocks = []<int... kIndex>(std::integer_sequence<int, kIndex...>) {
    struct Table {
      Block of[sizeof...(kIndex)];
    };
    return Table{
        {multiply_block<kTransposed, kIndex / kBlockVecs + 1, kIndex % kBlockVecs + 1>...}};
  }
  (std::make_integer_sequence<int, kBlockRows * kBlockVecs>());
  kBlocks.of[(rows - 1) * kBlockVecs + vecs - 1](p);
}

// max(low, x) and min(high, x), and NaN where x is NaN. One instruction each: x86 gives the second
// operand where one is NaN, others give NaN; Highway's scalar code would drop it.
HWY_INLINE VF at_least(float low, VF x) {
#if HWY_TARGET == HWY_SCALAR
  return hn::IfThenElse(hn::Lt(x, set(low)), set(low), x);
#else
  return hn::Max(set(low), x);
#endif
}
HWY_INLINE VF at_most(float high, VF x) {
#if HWY_TARGET == HWY_SCALAR
  return hn::IfThenElse(hn::Gt(x, set(high)), set(high), x);
#else
  return hn::Min(set(high), x);
#endif
}

// 2^x for x <= 0; 2^-126 below -126, NaN for NaN. Error below 1 ulp: x = n + f with |f| <= 1/2, and
// a minimax polynomial of 2^f (relative error 2e-9) times 2^n.
HWY_INLINE VF exp2_nonpositive(VF x) {
  x = at_least(-126, x);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  const VF n = hn::Round(x);
  const VF f = hn::Sub(x, n);
#else
  const VF magic = set(0x1.8p23f);
  const VF shifted = hn::Add(x, magic);  // its low bits are n
  const VF f = hn::Sub(x, hn::Sub(shifted, magic));
#endif
  VF p = set(0x1.41d334p-13f);
  p = hn::MulAdd(p, f, set(0x1.5f456ap-10f));
  p = hn::MulAdd(p, f, set(0x1.3b2dbcp-7f));
  p = hn::MulAdd(p, f, set(0x1.c6aed4p-5f));
  p = hn::MulAdd(p, f, set(0x1.ebfbdap-3f));
  p = hn::MulAdd(p, f, set(0x1.62e43p-1f));
  p = hn::MulAdd(p, f, set(1.0f));
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  return VF{_mm512_scalef_ps(p.raw, n.raw)};
#else
  const DI di;
  const auto exponent = hn::ShiftLeft<23>(hn::BitCast(di, shifted));
  return hn::BitCast(DF(), hn::Add(hn::BitCast(di, p), exponent));
#endif
}

#if HWY_TARGET != HWY_SCALAR
HWY_INLINE auto load_four(const float* p) { return hn::LoadU(hn::FixedTag<float, 4>(), p); }
HWY_INLINE auto load_four(const BF16* p) {
  const hn::FixedTag<float, 4> d4;
  const hn::RebindToUnsigned<decltype(d4)> du4;
  const hn::Rebind<uint16_t, decltype(d4)> du16;
  const auto bits = hn::PromoteTo(du4, hn::LoadU(du16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d4, hn::ShiftLeft<16>(bits));
}
#endif
HWY_INLINE float widened(float v) { return v; }
HWY_INLINE float widened(BF16 v) { return to_f32(v); }

// to (columns, keys, ldt apart) = transpose of the rows of from; columns beyond `keys` are zeroed
// up to a whole vector.
template <class T>
HWY_INLINE void transpose_rows(const T* from, int64_t stride, int64_t keys, int64_t columns,
                               float* to, int64_t ldt) {
  int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d4;
  for (; j + 4 <= keys; j += 4) {
    const T* row = from + j * stride;
    int64_t c = 0;
    for (; c + 4 <= columns; c += 4) {
      const auto r0 = load_four(row + c), r1 = load_four(row + stride + c);
      const auto r2 = load_four(row + 2 * stride + c), r3 = load_four(row + 3 * stride + c);
      const auto even_low = hn::InterleaveLower(d4, r0, r2),
                 odd_low = hn::InterleaveLower(d4, r1, r3);
      const auto even_high = hn::InterleaveUpper(d4, r0, r2);
      const auto odd_high = hn::InterleaveUpper(d4, r1, r3);
      float* out = to + c * ldt + j;
      hn::Store(hn::InterleaveLower(d4, even_low, odd_low), d4, out);
      hn::Store(hn::InterleaveUpper(d4, even_low, odd_low), d4, out + ldt);
      hn::Store(hn::InterleaveLower(d4, even_high, odd_high), d4, out + 2 * ldt);
      hn::Store(hn::InterleaveUpper(d4, even_high, odd_high), d4, out + 3 * ldt);
    }
    for (; c < columns; ++c)
      for (int64_t n = 0; n < 4; ++n) to[c * ldt + j + n] = widened(row[n * stride + c]);
  }
#endif
  const int64_t end = whole_vectors(keys);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t n = j; n < end; ++n)
      to[c * ldt + n] = n < keys ? widened(from[n * stride + c]) : 0.0f;
}
HWY_INLINE void transpose_rows(InRow from, int64_t stride, int64_t keys, int64_t columns, float* to,
                               int64_t ldt) {
  if (from.dtype == DType::kF32)
    transpose_rows(static_cast<const float*>(from.data), stride, keys, columns, to, ldt);
  else
    transpose_rows(static_cast<const BF16*>(from.data), stride, keys, columns, to, ldt);
}

// One row into aligned memory, zeroed up to a whole vector.
HWY_INLINE void copy_row(InRow from, int64_t columns, float* to) {
  for_vectors(columns, [&](int64_t c, auto io)
                           SIGNROUND_LAMBDA { hn::Store(load(io, from, c), DF(), to + c); });
}

HWY_INLINE void write_row(const float* from, float scale, int64_t columns, OutRow to) {
  const VF factor = set(scale);
  for_vectors(columns, [&](int64_t c, auto io) SIGNROUND_LAMBDA {
    store(io, hn::Mul(factor, hn::Load(DF(), from + c)), to, c);
  });
}

// Head `at.head` of a token, in rows of all heads.
HWY_INLINE InRow head_of(const RowsAny& rows, const RowPlace& at, int64_t dim) {
  return at_value(row_of(rows, at.token), at.head * dim);
}
HWY_INLINE OutRow head_of(const RowsOut& rows, const RowPlace& at, int64_t dim) {
  return out_at(rows, at.token * rows.stride + at.head * dim);
}

// A tile of rows against a tile of keys: which keys, counted from the tile's first, a row sees.
struct Visible {
  int64_t rows, keys;
  int64_t first[kTileRows], end[kTileRows];  // [first, end) within [0, keys]; never falling
  bool any;                                  // some row sees some key
  bool starts, ends;                         // no row sees a key before this tile's, after it

  Visible(const AttentionShape& shape, int64_t row, int64_t n_rows, int64_t key, int64_t n_keys)
      : rows(n_rows), keys(n_keys) {
    const int64_t group = shape.group();
    int64_t token = row / group, left = group - row % group;
    for (int64_t r = 0; r < rows; ++r, --left) {
      if (left == 0) ++token, left = group;
      first[r] = std::clamp(shape.first_key(token) - key, int64_t{0}, keys);
      end[r] = std::clamp(shape.end_key(token) - key, int64_t{0}, keys);
    }
    any = shape.end_key(token) > key && shape.first_key(row / group) < key + keys;
    starts = key == 0 || shape.first_key(row / group) >= key;
    ends = shape.end_key(token) <= key + keys;
  }
  // All keys that one of the rows [r, r + n) sees, and some between.
  int64_t first_of(int64_t r) const { return first[r]; }
  int64_t end_of(int64_t r, int64_t n) const { return end[r + n - 1]; }
};

// scores (rows, keys) = left (rows, depth) * right (depth, keys) where some row of a block sees
// the keys; undefined elsewhere.
HWY_INLINE void multiply_visible(const Visible& see, const float* left, int64_t lda,
                                 const float* right, int64_t ldb, int64_t depth, float* scores,
                                 int64_t ldc) {
  const int64_t all = ceil_div(see.keys, kLanes);
  for (int64_t panel = 0; panel < all; panel += kBlockVecs) {
    for (int64_t r = 0; r < see.rows; r += kBlockRows) {
      const int64_t n = std::min<int64_t>(kBlockRows, see.rows - r);
      const int64_t begin = std::max(panel, see.first_of(r) / kLanes);
      const int64_t end =
          std::min(std::min(panel + kBlockVecs, all), ceil_div(see.end_of(r, n), kLanes));
      if (begin >= end) continue;
      multiply<false>({left + r * lda, lda, right + begin * kLanes, ldb,
                       scores + r * ldc + begin * kLanes, ldc, depth, false},
                      n, end - begin);
    }
  }
}

// out (rows, columns) = or += weights (rows, keys) * values (keys, columns).
HWY_INLINE void weigh_keys(const Visible& see, const float* weights, int64_t lda,
                           const float* values, int64_t ldb, int64_t columns, float* out,
                           int64_t ldc, bool accumulate) {
  const int64_t all = ceil_div(columns, kLanes);
  for (int64_t panel = 0; panel < all; panel += kBlockVecs) {
    const int64_t vecs = std::min<int64_t>(kBlockVecs, all - panel);
    for (int64_t r = 0; r < see.rows; r += kBlockRows) {
      const int64_t n = std::min<int64_t>(kBlockRows, see.rows - r);
      const int64_t begin = see.first_of(r), depth = std::max(see.end_of(r, n) - begin, int64_t{0});
      if (depth == 0 && accumulate) continue;
      multiply<false>({weights + r * lda + begin, lda, values + begin * ldb + panel * kLanes, ldb,
                       out + r * ldc + panel * kLanes, ldc, depth, accumulate},
                      n, vecs);
    }
  }
}

// out (keys, columns) = or += transpose of weights (rows, keys) * values (rows, columns).
HWY_INLINE void weigh_rows(const Visible& see, const float* weights, int64_t lda,
                           const float* values, int64_t ldb, int64_t columns, float* out,
                           int64_t ldc, bool accumulate) {
  const int64_t all = ceil_div(columns, kLanes);
  for (int64_t panel = 0; panel < all; panel += kBlockVecs) {
    const int64_t vecs = std::min<int64_t>(kBlockVecs, all - panel);
    int64_t begin = 0, end = 0;
    for (int64_t j = 0; j < see.keys; j += kBlockRows) {
      const int64_t n = std::min<int64_t>(kBlockRows, see.keys - j);
      while (begin < see.rows && see.end[begin] <= j) ++begin;
      while (end < see.rows && see.first[end] < j + n) ++end;
      const int64_t depth = std::max(end - begin, int64_t{0});
      if (depth == 0 && accumulate) continue;
      multiply<true>({weights + begin * lda + j, lda, values + begin * ldb + panel * kLanes, ldb,
                      out + j * ldc + panel * kLanes, ldc, depth, accumulate},
                     n, vecs);
    }
  }
}

// The lanes of a vector of scores that a row sees.
struct AllSeen {
  HWY_INLINE VF or_else(VF seen, float) const { return seen; }
};
struct SomeSeen {
  hn::Mask<DF> lanes;
  SomeSeen(int64_t at, int64_t first, int64_t end) {
    const VF lane = hn::Iota(DF(), static_cast<float>(at));
    lanes = hn::And(hn::Ge(lane, set(static_cast<float>(first))),
                    hn::Lt(lane, set(static_cast<float>(end))));
  }
  HWY_INLINE VF or_else(VF seen, float other) const {
    return hn::IfThenElse(lanes, seen, set(other));
  }
};

// body(j, lanes) for each vector of a row that holds one of the keys [first, end).
template <class Body>
HWY_INLINE void for_seen(int64_t first, int64_t end, Body body) {
  int64_t j = first / kLanes * kLanes;
  if (j < first && j < end) {
    body(j, SomeSeen(j, first, end));
    j += kLanes;
  }
  for (; j + kLanes <= end; j += kLanes) body(j, AllSeen());
  if (j < end) body(j, SomeSeen(j, first, end));
}

// Zeros in the vectors of a row of scores that hold none of its keys [first, end), as far as the
// products over its register block and over its 16 keys read them.
HWY_INLINE void zero_unseen(const Visible& see, int64_t r, float* s) {
  const int64_t block = r / kBlockRows * kBlockRows;
  const int64_t last = std::min(see.rows, block + kBlockRows) - 1;
  for (int64_t j = see.first[block] / 16 * 16; j + kLanes <= see.first[r]; j += kLanes)
    hn::Store(set(0), DF(), s + j);
  for (int64_t j = ceil_div(see.end[r], kLanes) * kLanes; j < whole_vectors(see.end[last]);
       j += kLanes)
    hn::Store(set(0), DF(), s + j);
}

constexpr float kLog2e = 0x1.715476p0f, kLn2 = 0x1.62e43p-1f;

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
