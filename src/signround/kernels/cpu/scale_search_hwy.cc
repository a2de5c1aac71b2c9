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

// Candidates, as columns of 26: prefix sums run down all columns at once.
constexpr int64_t kRows = kSearchRows, kColumns = kSearchColumns, kPlaces = kRows * kColumns;

using DD = hn::CappedTag<double, kColumns>;

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

// What the events of the candidates m = 0 .. 2 * steps (c ascending) add, and what holds before the
// first of them.
struct Events {
  HWY_ALIGN double qq[kPlaces];  // w q^2
  HWY_ALIGN double qu[kPlaces];  // w q u
  double qq_start = 0, qu_start = 0, uu = 0;
  float largest_weight = 0;
};

template <bool kWeighted>
HWY_ATTR void add_block(const float* x, const float* w, int64_t n,
                        const ScaleCandidates& candidates, float reciprocal, Events& events) {
  HWY_ALIGN float u[kBlock], inverse[kBlock], limit[kBlock], weight[kBlock];
  HWY_ALIGN int32_t places[kBlock + kSums];
  HWY_ALIGN float listed_u[kBlock + kSums], listed_w[kBlock + kSums];
  const int64_t width = lanes(), vectors = (n + width - 1) / width;
  const VF zero = set(0);
  const VF inverse_step = set(static_cast<float>(1 / candidates.step));
  VF uu = zero, largest_weight = zero;
  for (int64_t i = 0, j = 0; i < vectors; ++i, j += width) {
    const VF value = j + width <= n ? load(x + j) : Part{n - j}.load(x, j);
    // q of x / g < 0 ends at half - 1, q of the sign of g at half (t is negative).
    const VF ratio = hn::Mul(value, set(reciprocal));
    const VF magnitude = hn::Abs(ratio);
    const float half = static_cast<float>(candidates.half);
    hn::Store(magnitude, DF(), u + j);
    hn::Store(hn::Div(inverse_step, magnitude), DF(), inverse + j);
    hn::Store(hn::IfThenElse(hn::Lt(ratio, zero), set(half - 1), set(half)), DF(), limit + j);
    if constexpr (kWeighted) {
      const VF wv = j + width <= n ? load(w + j) : Part{n - j}.load(w, j);
      hn::Store(wv, DF(), weight + j);
      uu = hn::Add(uu, hn::Mul(wv, hn::Mul(magnitude, magnitude)));
      largest_weight = hn::Max(largest_weight, wv);
    } else {
      uu = hn::Add(uu, hn::Mul(magnitude, magnitude));
    }
  }
  events.uu += sum_lanes_double(uu);
  events.largest_weight =
      kWeighted ? std::max(events.largest_weight, hn::GetLane(hn::MaxOfLanes(DF(), largest_weight)))
                : 1.0f;

  const float c_first = static_cast<float>(candidates.half - candidates.step * candidates.steps);
  const VF origin = set(static_cast<float>(static_cast<double>(c_first) / candidates.step));
  const VF last = set(static_cast<float>(2 * candidates.steps));
  VF qq_start = zero, qu_start = zero;
  for (int k = 1; k <= candidates.half; ++k) {
    const VF threshold = set(static_cast<float>(k) - 0.5f),
             step_of_qq = set(static_cast<float>(2 * k - 1));
    const VF this_k = set(static_cast<float>(k));
    int64_t count = 0;
    for (int64_t i = 0, j = 0; i < vectors; ++i, j += width) {
      // The first m with c >= (k - 1/2) / u. u = 0 gives infinity, which is past the last.
      const VF first = hn::Ceil(hn::Sub(hn::Mul(threshold, hn::Load(DF(), inverse + j)), origin));
      const VF magnitude = hn::Load(DF(), u + j);
      const auto reached = hn::And(hn::Le(this_k, hn::Load(DF(), limit + j)), hn::Le(first, last));
      const auto listed = hn::And(reached, hn::Gt(first, zero));
      const auto before = hn::AndNot(listed, reached);
      const VF wv = kWeighted ? hn::Load(DF(), weight + j) : set(1);
      qq_start = hn::Add(qq_start, hn::IfThenElseZero(before, hn::Mul(step_of_qq, wv)));
      qu_start = hn::Add(qu_start, hn::IfThenElseZero(before, hn::Mul(wv, magnitude)));
      // place = m mod kRows * kColumns + column, column = floor(m / kRows): exact in f32. Adding
      // 2^23 leaves it in the low bits.
      const VF column =
          hn::Floor(hn::Mul(hn::Add(first, set(0.5f)), set(1.0f / static_cast<float>(kRows))));
      const VF place = hn::Sub(hn::Mul(first, set(kColumns)), hn::Mul(column, set(kPlaces - 1)));
      const auto bits = hn::BitCast(DI(), hn::Add(place, set(0x1p23f)));
      const auto indices = hn::And(bits, hn::Set(DI(), 0x7fffff));
      hn::StoreU(hn::Compress(indices, hn::RebindMask(DI(), listed)), DI(), places + count);
      hn::StoreU(hn::Compress(magnitude, listed), DF(), listed_u + count);
      if constexpr (kWeighted) hn::StoreU(hn::Compress(wv, listed), DF(), listed_w + count);
      count += static_cast<int64_t>(hn::CountTrue(DF(), listed));
    }
    const double per_weight = 2 * k - 1;
    for (int64_t e = 0; e < count; ++e) {
      const int32_t p = places[e];
      if constexpr (kWeighted) {
        const double wd = static_cast<double>(listed_w[e]);
        events.qq[p] += per_weight * wd;
        events.qu[p] += wd * static_cast<double>(listed_u[e]);
      } else {
        events.qq[p] += per_weight;
        events.qu[p] += static_cast<double>(listed_u[e]);
      }
    }
  }
  events.qq_start += sum_lanes_double(qq_start);
  events.qu_start += sum_lanes_double(qu_start);
}

// Replaces qq by the losses without sum w u^2, in units of g^2; returns the smallest of the
// candidates.
HWY_ATTR double losses_of(Events& events, const ScaleCandidates& candidates) {
  const DD d;
  const int64_t width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t column = 0; column < kColumns; column += width) {
    auto qq = hn::Zero(d), qu = hn::Zero(d);
    for (int64_t p = column; p < kPlaces; p += kColumns) {
      qq = hn::Add(qq, hn::Load(d, events.qq + p));
      qu = hn::Add(qu, hn::Load(d, events.qu + p));
      hn::Store(qq, d, events.qq + p);
      hn::Store(qu, d, events.qu + p);
    }
  }
  HWY_ALIGN double qq_before[kColumns], qu_before[kColumns];
  double qq = events.qq_start, qu = events.qu_start;
  for (int64_t column = 0; column < kColumns; ++column) {
    qq_before[column] = qq;
    qu_before[column] = qu;
    qq += events.qq[kPlaces - kColumns + column];
    qu += events.qu[kPlaces - kColumns + column];
  }
  auto smallest = hn::Zero(d);  // c = infinity; no candidate that can win is worse
  for (int64_t column = 0; column < kColumns; column += width) {
    const auto qq_offset = hn::Load(d, qq_before + column);
    const auto qu_offset = hn::Load(d, qu_before + column);
    for (int64_t p = column; p < kPlaces; p += kColumns) {
      const auto inverse = hn::LoadU(d, candidates.inverse_in_columns.data() + p);
      const auto sum_qq = hn::Mul(hn::Add(hn::Load(d, events.qq + p), qq_offset), inverse);
      const auto sum_qu = hn::Add(hn::Load(d, events.qu + p), qu_offset);
      const auto loss = hn::Mul(hn::Sub(sum_qq, hn::Add(sum_qu, sum_qu)), inverse);
      hn::Store(loss, d, events.qq + p);
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
  for (int64_t p = 0; p < kPlaces; p += width) {
    hn::Store(hn::Zero(d), d, events.qq + p);
    hn::Store(hn::Zero(d), d, events.qu + p);
  }
  for (int64_t j = 0; j < best.n; j += kBlock) {
    const int64_t n = std::min(kBlock, best.n - j);
    add_block<kWeighted>(best.x + j, kWeighted ? best.w + j : nullptr, n, best.candidates,
                         best.reciprocal, events);
  }
  // The reference squares in f32: a term may lose 2^-149 to underflow, and must not overflow.
  const double unit = static_cast<double>(largest) * static_cast<double>(largest);
  const double raw = events.uu * unit, n = static_cast<double>(best.n);
  const double heaviest = std::max(1.0, static_cast<double>(events.largest_weight));
  if (!(raw > n * heaviest * 0x1p-120) || !(unit * heaviest * n < 0x1p120)) return false;

  const double tolerance = 2 * (160 + n / 4) * 0x1p-24 * events.uu;
  const double bound = losses_of(events, best.candidates) + tolerance;
  const int steps = best.candidates.steps;
  int found[kPlaces];
  int count = 0;
  for (int64_t p = 0; p < kPlaces; p += width) {
    if (hn::AllFalse(d, hn::Le(hn::Load(d, events.qq + p), hn::Set(d, bound)))) continue;
    for (int64_t i = p; i < p + width; ++i) {
      if (!(events.qq[i] <= bound) ||
          best.candidates.inverse_in_columns[static_cast<size_t>(i)] == 0)
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
