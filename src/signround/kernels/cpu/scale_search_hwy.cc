// kernels/cpu/scale_search.h on Highway, about ten times faster than trying every candidate, with
// the same result.
//
// As c grows, q of one weight only changes where c |x / g| passes k - 1/2: about four times over
// all candidates. So with u = |x / g|, the loss in units of g^2 is  sum w q^2 / c^2 - 2 sum w q u /
// c + sum w u^2,  and both sums over q are prefix sums over c of what those events add: (2k - 1) w
// and w u. This finds the losses of all candidates to within a bound `tolerance`, and then the few
// that may be the smallest are computed as the reference does.
//
// The bound, with e = 2^-24 and C = sum w u^2, which the loss of no candidate that can win exceeds:
//   160 e C  an event may fall to the neighbour of its candidate, since u, 1 / u and the position
//   of the event carry
//            up to 16 roundings: each then changes (q - c u)^2 by less than 32 e k, and (k / c)^2
//            <= 4 u^2; the rest are the roundings of s, of s q - x and of its square, and of w u
//   n/4 e C  f32 sums of n / 16 terms and their tree, here and in the reference
//   1 e C    whole numbers of 2^-36 for u, where both sums of an event are in one of 64 bits: 8 n
//   events
//            of at most 256 weights miss 2^-26, and C is at least 1 there, since w = 1 and one u is
// on either side of a comparison of two candidates.
#include "signround/kernels/cpu/scale_search.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "signround/kernels/cpu/scale_search_hwy.cc"
#include <hwy/foreach_target.h>  // first: compiles this file once per instruction set

#include <algorithm>
#include <cmath>
#include <utility>

#include "signround/kernels/cpu/ordered_sum-inl.h"
#include "signround/kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace signround::kernels::HWY_NAMESPACE {

constexpr int64_t kBlock = 128;  // weights whose events are listed at a time

// Candidates, as columns of 32: prefix sums run down all columns at once.
constexpr int64_t kRows = kSearchRows, kColumns = kSearchColumns, kPlaces = kRows * kColumns;

using DD = hn::CappedTag<double, kColumns>;
using DD2 = hn::CappedTag<double, 2>;

template <class Io>
HWY_INLINE VF loss_terms(const Io& io, const float* x, const float* w, int64_t j, VF t, VF s, VF lo,
                         VF hi) {
  // ref: q = clamp(round(t * x), -half, half - 1)     e = s * q - x     sums += e * e * w
  const VF value = io.load(x, j);
  const VF q = hn::Min(hn::Max(hn::Round(hn::Mul(t, value)), lo), hi);
  const VF e = hn::Sub(hn::Mul(s, q), value);
  const VF square = hn::Mul(e, e);
  return w == nullptr ? square : hn::Mul(square, io.load(w, j));
}

// ref: loss_of
HWY_INLINE float loss_of(const float* x, const float* w, int64_t n, float t, float s, float half) {
  const VF tv = set(t), sv = set(s), lo = set(-half), hi = set(half - 1);
  HWY_ALIGN float sums[kSums] = {};
  const int64_t width = lanes();
  int64_t j = 0, at = 0;
  for (; j + width <= n; j += width) {
    add_at(loss_terms(Full{}, x, w, j, tv, sv, lo, hi), sums, at);
    at = (at + width) % kSums;
  }
  if (j < n) add_at(loss_terms(Part{n - j}, x, w, j, tv, sv, lo, hi), sums, at);
  return tree_sum(sums);
}

// The best candidate so far, tried in the reference's order.
struct Best {
  const float *x, *w;
  int64_t n;
  const ScaleCandidates& candidates;
  float reciprocal;
  float scale = 0, loss = 0;
  bool any = false;

  HWY_ATTR void attempt(int j) {
    const float t = -candidates.multiplier[static_cast<size_t>(j + candidates.steps)] * reciprocal;
    const float s = std::fabs(t) < kSmallestLargest ? 0.0f : 1 / t;
    const float l = loss_of(x, w, n, t, s, static_cast<float>(candidates.half));
    if (any && !(l < loss)) return;
    any = true;
    scale = s;
    loss = l;
  }
};

float first_largest(const float* x, int64_t n) {
  const int64_t width = lanes();
  VF largest = set(0);
  int64_t j = 0;
  for (; j + width <= n; j += width) largest = hn::Max(largest, hn::Abs(load(x + j)));
  if (j < n) largest = hn::Max(largest, hn::Abs(Part{n - j}.load(x, j)));
  const VF all = hn::MaxOfLanes(DF(), largest);
  const float magnitude = hn::GetLane(all);
  for (j = 0; j + width <= n; j += width)
    if (!hn::AllFalse(DF(), hn::Eq(hn::Abs(load(x + j)), all))) break;
  while (std::fabs(x[j]) != magnitude) ++j;
  return x[j];
}

#if HWY_TARGET == HWY_SCALAR  // without vectors every candidate is tried
template <bool kWeighted>
bool search_events(float, Best&) {
  return false;
}
#else

// Without weights both sums of up to kPackedWeights weights fit into a whole number: w q^2 above
// kLowBits bits, u in units of 2^-kUnitBits below: at most 8 events of each
// weight, u <= 1, and 64 in all for q^2.
constexpr int64_t kPackedWeights = 256, kUnitBits = 36, kLowBits = 48;

// What the events of the candidates m = 0 .. 2 * steps (c ascending) add, and what holds before the
// first of them.
struct Events {
  HWY_ALIGN double sums[2 * kPlaces];  // w q^2 and w q u side by side: an event adds to both
  HWY_ALIGN int64_t packed[kPlaces];   // or both in one
  double qq_start = 0, qu_start = 0, uu = 0;
  float largest_weight = 0;
};

// Event e adds per_weight w and w u to the pair at places[e]. Lists are readable for a vector
// beyond `count`.
template <bool kWeighted>
HWY_INLINE void add_events(double per_weight, const float* u, const float* w, const int32_t* places,
                           int64_t count, double* sums) {
  const DD d;
  const hn::Rebind<float, DD> df;
  const DD2 pair;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d)), half = width / 2;
  HWY_ALIGN double pairs[2 * kColumns];
  const auto add = [&](int64_t e, int64_t slot) HWY_ATTR {
    double* to = sums + 2 * places[e];
    hn::Store(hn::Add(hn::Load(pair, to), hn::Load(pair, pairs + 2 * slot)), pair, to);
  };
  for (int64_t e = 0; e < count; e += width) {
    auto qq = hn::Set(d, per_weight), qu = hn::PromoteTo(d, hn::LoadU(df, u + e));
    if constexpr (kWeighted) {
      const auto weight = hn::PromoteTo(d, hn::LoadU(df, w + e));
      qq = hn::Mul(qq, weight), qu = hn::Mul(qu, weight);
    }
    // Events 0, 2, 4, ... and then 1, 3, 5, ...
    hn::Store(hn::InterleaveLower(d, qq, qu), d, pairs);
    hn::Store(hn::InterleaveUpper(d, qq, qu), d, pairs + width);
    if (e + width <= count) {
      for (int64_t i = 0; i < half; ++i) add(e + 2 * i, i), add(e + 2 * i + 1, half + i);
    } else {
      for (int64_t i = 0; e + i < count; ++i) add(e + i, i % 2 * half + i / 2);
    }
  }
}

// The same where both sums are packed. Adding 2^(52 - kUnitBits) leaves u in the low bits.
HWY_INLINE void add_packed_events(int64_t per_weight, const float* u, const int32_t* places,
                                  int64_t count, int64_t* sums) {
  const DD d;
  const hn::Rebind<float, DD> df;
  const hn::Rebind<int64_t, DD> di;
  constexpr double kOrigin = static_cast<double>(int64_t{1} << (52 - kUnitBits));
  const auto origin = hn::Set(d, kOrigin);
  const auto base = hn::Sub(hn::Set(di, per_weight << kLowBits), hn::BitCast(di, origin));
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN int64_t values[kColumns];
  for (int64_t e = 0; e < count; e += width) {
    const auto fixed = hn::BitCast(di, hn::Add(hn::PromoteTo(d, hn::LoadU(df, u + e)), origin));
    hn::Store(hn::Add(fixed, base), di, values);
    const int64_t n = std::min(width, count - e);
    if (n == kColumns) {
      for (int64_t i = 0; i < kColumns; ++i) sums[places[e + i]] += values[i];
    } else {
      for (int64_t i = 0; i < n; ++i) sums[places[e + i]] += values[i];
    }
  }
}

// The events of one k, in the order of their weights.
struct Listed {
  int64_t count = 0;
  HWY_ALIGN int32_t places[kBlock + kSums];
  HWY_ALIGN float u[kBlock + kSums], w[kBlock + kSums];
};
constexpr int kMostSteps = 8;  // of k

template <bool kWeighted>
HWY_ATTR void add_block(const float* x, const float* w, int64_t n,
                        const ScaleCandidates& candidates, float reciprocal, bool packed,
                        Events& events) {
  Listed listed[kMostSteps];
  const int64_t width = lanes();
  const VF zero = set(0), one = set(1);
  const VF inverse_step = set(static_cast<float>(1 / candidates.step));
  const float c_first = static_cast<float>(candidates.half - candidates.step * candidates.steps);
  const double origin = static_cast<double>(c_first) / candidates.step;
  const VF start = set(static_cast<float>(origin));
  const VF below_start = set(static_cast<float>(origin - 0.5));
  // Beyond this k no weight passes k - 1/2 before the first candidate: u is hardly above 1.
  const int last_at_start = static_cast<int>(c_first * 1.001f + 0.5f);
  const VF last = set(static_cast<float>(2 * candidates.steps));
  VF uu = zero, largest_weight = zero, qq_start = zero, qu_start = zero;
  for (int64_t j = 0; j < n; j += width) {
    const VF value = j + width <= n ? load(x + j) : Part{n - j}.load(x, j);
    const VF ratio = hn::Mul(value, set(reciprocal));
    const VF u = hn::Abs(ratio);
    const VF inverse = hn::Div(inverse_step, u);
    VF weight = one;
    if constexpr (kWeighted) {
      weight = j + width <= n ? load(w + j) : Part{n - j}.load(w, j);
      largest_weight = hn::Max(largest_weight, weight);
    }
    const VF wu = kWeighted ? hn::Mul(weight, u) : u;
    uu = hn::Add(uu, hn::Mul(wu, u));
    VF q_start = zero;  // of the first candidate: as many k as c has passed there
    for (int k = 1; k <= candidates.half; ++k) {
      // c passes (k - 1/2) / u at x, in steps from the first candidate; u = 0 gives infinity, which
      // is past the last. The next candidate is the nearest to x + 1/2; where x is one, q may
      // change there or at the next: it is as far from c u.
      const VF passed = hn::Mul(set(static_cast<float>(k) - 0.5f), inverse);
      const VF x_at = hn::Sub(passed, start);
      auto reached = hn::Le(x_at, last);
      // q of x / g < 0 ends at half - 1, q of the sign of g at half (t is negative).
      if (k == candidates.half) reached = hn::AndNot(hn::Lt(ratio, zero), reached);
      auto after_start = reached;
      if (k <= last_at_start) {
        after_start = hn::And(reached, hn::Gt(x_at, zero));
        q_start = hn::Add(q_start, hn::IfThenElseZero(hn::AndNot(after_start, reached), one));
      }
      // Adding 2^23 leaves m, below 256, in the low bits. place = m mod kRows * kColumns + m /
      // kRows: its 8 bits rotated by 3.
      static_assert(kRows == 32 && kColumns == 8);
      const auto m = hn::BitCast(DI(), hn::Add(hn::Sub(passed, below_start), set(0x1p23f)));
      const auto indices =
          hn::And(hn::Or(hn::ShiftLeft<3>(m), hn::ShiftRight<5>(m)), hn::Set(DI(), 0xff));
      Listed& to = listed[k - 1];
      hn::StoreU(hn::Compress(indices, hn::RebindMask(DI(), after_start)), DI(),
                 to.places + to.count);
      hn::StoreU(hn::Compress(u, after_start), DF(), to.u + to.count);
      if constexpr (kWeighted) hn::StoreU(hn::Compress(weight, after_start), DF(), to.w + to.count);
      to.count += static_cast<int64_t>(hn::CountTrue(DF(), after_start));
    }
    // 1 + 3 + 5 + ... = q^2
    const VF qu = hn::Mul(q_start, wu);
    qu_start = hn::Add(qu_start, qu);
    qq_start = hn::Add(qq_start, hn::Mul(q_start, kWeighted ? hn::Mul(q_start, weight) : q_start));
  }
  for (int k = 1; k <= candidates.half; ++k) {
    const Listed& of = listed[k - 1];
    if (packed)
      add_packed_events(2 * k - 1, of.u, of.places, of.count, events.packed);
    else
      add_events<kWeighted>(2 * k - 1, of.u, of.w, of.places, of.count, events.sums);
  }
  events.uu += sum_lanes_double(uu);
  events.largest_weight =
      kWeighted ? std::max(events.largest_weight, hn::GetLane(hn::MaxOfLanes(DF(), largest_weight)))
                : 1.0f;
  events.qq_start += sum_lanes_double(qq_start);
  events.qu_start += sum_lanes_double(qu_start);
}

// The losses of all candidates without sum w u^2, in units of g^2; returns the smallest. The sums
// of events become those up to each candidate within its column.
HWY_ATTR double losses_of(Events& events, const ScaleCandidates& candidates, double* losses) {
  const DD d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t column = 0; column < 2 * kColumns; column += width) {
    auto sum = hn::Zero(d);
    for (int64_t p = column; p < 2 * kPlaces; p += 2 * kColumns) {
      sum = hn::Add(sum, hn::Load(d, events.sums + p));
      hn::Store(sum, d, events.sums + p);
    }
  }
  HWY_ALIGN double qq_before[kColumns], qu_before[kColumns];
  double qq = events.qq_start, qu = events.qu_start;
  for (int64_t column = 0; column < kColumns; ++column) {
    const double* last = events.sums + 2 * (kPlaces - kColumns + column);
    qq_before[column] = qq;
    qu_before[column] = qu;
    qq += last[0];
    qu += last[1];
  }
  auto smallest = hn::Zero(d);  // c = infinity; no candidate that can win is worse
  for (int64_t column = 0; column < kColumns; column += width) {
    const auto qq_offset = hn::Load(d, qq_before + column);
    const auto qu_offset = hn::Load(d, qu_before + column);
    for (int64_t p = column; p < kPlaces; p += kColumns) {
      const auto inverse = hn::LoadU(d, candidates.inverse_in_columns.data() + p);
      const auto low = hn::Load(d, events.sums + 2 * p),
                 high = hn::Load(d, events.sums + 2 * p + width);
      const auto sum_qq = hn::Mul(hn::Add(hn::ConcatEven(d, high, low), qq_offset), inverse);
      const auto sum_qu = hn::Add(hn::ConcatOdd(d, high, low), qu_offset);
      const auto loss = hn::Mul(hn::Sub(sum_qq, hn::Add(sum_qu, sum_qu)), inverse);
      hn::Store(loss, d, losses + p);
      smallest = hn::Min(smallest, loss);
    }
  }
  return hn::GetLane(hn::MinOfLanes(d, smallest));
}

// A whole number from 0 to 2^52.
template <class D>
HWY_INLINE hn::Vec<D> to_double(D d, hn::Vec<hn::RebindToSigned<D> > v) {
  const auto origin = hn::Set(d, 0x1p52);
  const hn::RebindToSigned<D> di;
  return hn::Sub(hn::BitCast(d, hn::Or(v, hn::BitCast(di, origin))), origin);
}

// The same of packed sums.
HWY_ATTR double losses_of_packed(Events& events, const ScaleCandidates& candidates,
                                 double* losses) {
  const DD d;
  const hn::RebindToSigned<DD> di;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t column = 0; column < kColumns; column += width) {
    auto sum = hn::Zero(di);
    for (int64_t p = column; p < kPlaces; p += kColumns) {
      sum = hn::Add(sum, hn::Load(di, events.packed + p));
      hn::Store(sum, di, events.packed + p);
    }
  }
  HWY_ALIGN int64_t before[kColumns];
  int64_t all = 0;
  for (int64_t column = 0; column < kColumns; ++column) {
    before[column] = all;
    all += events.packed[kPlaces - kColumns + column];
  }
  const auto low = hn::Set(di, (int64_t{1} << kLowBits) - 1);
  const auto qq_start = hn::Set(d, events.qq_start), qu_start = hn::Set(d, events.qu_start);
  const auto unit = hn::Set(d, 1 / static_cast<double>(int64_t{1} << kUnitBits));
  auto smallest = hn::Zero(d);
  for (int64_t column = 0; column < kColumns; column += width) {
    const auto offset = hn::Load(di, before + column);
    for (int64_t p = column; p < kPlaces; p += kColumns) {
      const auto inverse = hn::LoadU(d, candidates.inverse_in_columns.data() + p);
      const auto sum = hn::Add(hn::Load(di, events.packed + p), offset);
      const auto qq = hn::Add(to_double(d, hn::ShiftRight<kLowBits>(sum)), qq_start);
      const auto qu = hn::Add(hn::Mul(to_double(d, hn::And(sum, low)), unit), qu_start);
      const auto loss = hn::Mul(hn::Sub(hn::Mul(qq, inverse), hn::Add(qu, qu)), inverse);
      hn::Store(loss, d, losses + p);
      smallest = hn::Min(smallest, loss);
    }
  }
  return hn::GetLane(hn::MinOfLanes(d, smallest));
}

// False where a magnitude is so extreme that the bound above does not hold.
template <bool kWeighted>
HWY_ATTR bool search_events(float largest, Best& best) {
  Events events;
  const DD d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  const bool packed = !kWeighted && best.n <= kPackedWeights;
  if (packed)
    std::fill_n(events.packed, kPlaces, int64_t{0});
  else
    std::fill_n(events.sums, 2 * kPlaces, 0.0);
  for (int64_t j = 0; j < best.n; j += kBlock) {
    const int64_t n = std::min(kBlock, best.n - j);
    add_block<kWeighted>(best.x + j, kWeighted ? best.w + j : nullptr, n, best.candidates,
                         best.reciprocal, packed, events);
  }
  // The reference squares in f32: a term may lose 2^-149 to underflow, and must not overflow.
  const double unit = static_cast<double>(largest) * static_cast<double>(largest);
  const double raw = events.uu * unit, n = static_cast<double>(best.n);
  const double heaviest = std::max(1.0, static_cast<double>(events.largest_weight));
  if (!(raw > n * heaviest * 0x1p-120) || !(unit * heaviest * n < 0x1p120)) return false;

  const double tolerance = 2 * (161 + n / 4) * 0x1p-24 * events.uu;
  HWY_ALIGN double losses[kPlaces];
  const double smallest = packed ? losses_of_packed(events, best.candidates, losses)
                                 : losses_of(events, best.candidates, losses);
  const double bound = smallest + tolerance;
  const int steps = best.candidates.steps;
  int found[kPlaces];
  int count = 0;
  for (int64_t p = 0; p < kPlaces; p += width) {
    if (hn::AllFalse(d, hn::Le(hn::Load(d, losses + p), hn::Set(d, bound)))) continue;
    for (int64_t i = p; i < p + width; ++i) {
      if (!(losses[i] <= bound) || best.candidates.inverse_in_columns[static_cast<size_t>(i)] == 0)
        continue;
      const int j =
          steps - static_cast<int>(i % kColumns * kRows + i / kColumns);  // c descends as j grows
      found[count++] = j == 0 ? -steps - 1 : j;                           // j = 0 is the first
    }
  }
  for (int i = 1; i < count; ++i)  // into the order of the reference; a handful
    for (int k = i; k > 0 && found[k] < found[k - 1]; --k) std::swap(found[k], found[k - 1]);
  for (int i = 0; i < count; ++i) best.attempt(found[i] < -steps ? 0 : found[i]);
  return count > 0;
}

#endif

float search(const float* x, const float* w, int64_t n, const ScaleCandidates& candidates) {
  const float largest = n > 0 ? first_largest(x, n) : 0.0f;
  if (std::fabs(largest) < kSmallestLargest) return 0;
  Best best{x, w, n, candidates, 1 / largest};
  const int count = 2 * candidates.steps + 1;
  // Many codes have many events, and few candidates are soon tried.
  if (candidates.half <= 8 && count > 20 && count <= kPlaces && std::fabs(largest) < 1e25f &&
      (w == nullptr ? search_events<false>(largest, best) : search_events<true>(largest, best)))
    return best.scale;
  best.attempt(0);
  for (int j = -candidates.steps; j <= candidates.steps; ++j)
    if (j != 0) best.attempt(j);
  return best.scale;
}

bool search_fits() { return vectors_fit(); }

}  // namespace signround::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace signround::kernels {

HWY_EXPORT(search);
HWY_EXPORT(search_fits);

float scale_search_hwy(const float* x, const float* w, int64_t n,
                       const ScaleCandidates& candidates) noexcept {
  return HWY_DYNAMIC_DISPATCH(search)(x, w, n, candidates);
}
const char* scale_search_hwy_why_not() {
  return HWY_DYNAMIC_DISPATCH(search_fits)() ? nullptr : "vectors are longer than 16 floats";
}

}  // namespace signround::kernels
#endif
