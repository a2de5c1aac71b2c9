#include <cmath>

#include "signround/base/error.h"
#include "signround/kernels/cuda/launch.h"
#include "signround/kernels/cuda/range_grid.cuh"
#include "signround/kernels/search_cuda.h"

namespace signround::kernels::cuda {
namespace {

using namespace signround::cuda;

// Half a warp has a group: lane l adds up elements l, l + 16, ..., and sum_lanes then adds the
// lanes, which is the order of kernels/cpu/grid_loss.h. Nothing is contracted.
constexpr int kThreads = 256, kLanes = 16;
constexpr int kAtOnce = 4;  // trials whose losses are summed side by side
static_assert(kLanes % kAtOnce == 0);

__device__ __forceinline__ float value(float v) { return v; }
__device__ __forceinline__ float value(uint16_t bits) { return bf16_to_f32(bits); }

// This lane's elements of a group: at most kHeld, in registers; kHeld 0: any number, in memory.
template <int kHeld, class W>
struct Elements {
  float x[kHeld], importance[kHeld];

  __device__ __forceinline__ Elements(const W* w, const float* given, int lane, int n) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int at = lane + i * kLanes;
      const bool inside = at < n;
      x[i] = inside ? value(w[at]) : 0.0f;
      importance[i] = !inside ? 0.0f : given == nullptr ? 1.0f : given[at];
    }
  }
  template <class Body>
  __device__ __forceinline__ void each(Body&& body) const {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) body(x[i], importance[i]);
  }
};
template <class W>
struct Elements<0, W> {
  const W* w;
  const float* given;
  int lane, n;

  __device__ __forceinline__ Elements(const W* w_, const float* given_, int lane_, int n_)
      : w(w_), given(given_), lane(lane_), n(n_) {}
  template <class Body>
  __device__ __forceinline__ void each(Body&& body) const {
    for (int at = lane; at < n; at += kLanes)
      body(value(w[at]), given == nullptr ? 1.0f : given[at]);
  }
};

// A scale of 0: no trial.
struct Trial {
  float scale, zero;
};

struct Codes {
  float inverse, lo, hi;

  __device__ __forceinline__ void set(float inverse_scale, float zero, float last) {
    inverse = inverse_scale;
    lo = -zero;
    hi = __fadd_rn(last, -zero);
  }
  // clamp(round(x / scale)): bounds are whole numbers, so that clamping may come first, and then
  // adding this leaves no digits behind the point.
  __device__ __forceinline__ float of(float x) const {
    constexpr float kNoDigits = 0x1.8p23f;
    const float q = fminf(fmaxf(__fmul_rn(x, inverse), lo), hi);
    return __fadd_rn(__fadd_rn(q, kNoDigits), -kNoDigits);
  }
};

__device__ __forceinline__ float loss_term(float x, float importance, float scale,
                                           const Codes& codes) {
  const float e = __fadd_rn(__fmul_rn(scale, codes.of(x)), -x);
  return __fmul_rn(__fmul_rn(importance, e), e);
}

template <int kHeld, class W>
__device__ __forceinline__ float loss_of(const Elements<kHeld, W>& elements, const Trial& trial,
                                         float last) {
  Codes codes;
  codes.set(__fdiv_rn(1.0f, trial.scale), trial.zero, last);
  float sum = 0;
  elements.each([&](float x, float importance) {
    sum = __fadd_rn(sum, loss_term(x, importance, trial.scale, codes));
  });
  return sum_lanes(sum, kLanes);
}

__device__ __forceinline__ Trial allowed(const SearchRule& rule, float scale, float zero) {
  scale = limited(scale, rule.grid.limits);
  return {rule.grid.rule == RangeRule::kFullRange || scale > 0 ? scale : 0.0f, zero};
}

__device__ __forceinline__ float factor_of(const SearchRule& rule, int i) {
  const float wide =
      __fmul_rn(__fadd_rn(rule.largest_factor, -rule.smallest_factor), static_cast<float>(i));
  return __fadd_rn(rule.smallest_factor, __fdiv_rn(wide, static_cast<float>(rule.factors - 1)));
}

__device__ __forceinline__ int trials_of(const SearchRule& rule) {
  return 1 + (rule.grid.rule == RangeRule::kFullRange ? 2 : 1) * rule.factors;
}

// base: the grid of [min, max], which is trial 0.
__device__ inline Trial trial_of(const SearchRule& rule, const Grid& base, float min, float max,
                                 int index) {
  if (index == 0) return {base.scale, base.zero};
  if (index >= trials_of(rule)) return {0, 0};
  const bool both_signs = rule.grid.rule == RangeRule::kFullRange;
  const float factor = factor_of(rule, both_signs ? (index - 1) / 2 : index - 1);
  if (rule.grid.rule == RangeRule::kAsym) {
    const Grid narrow = range_grid(rule.grid, min, max, factor, factor);
    return allowed(rule, narrow.scale, narrow.zero);
  }
  const float scale = __fmul_rn(base.scale, factor);
  return allowed(rule, both_signs && index % 2 == 0 ? -scale : scale, base.zero);
}

// Where the trial, one for each half of the warp, loses less, it becomes the best.
template <int kHeld, class W>
__device__ __forceinline__ bool keep_better(const Elements<kHeld, W>& elements, const Trial& trial,
                                            float last, Trial& best, float& least) {
  const float loss = loss_of(elements, trial, last);
  const bool better = trial.scale != 0 && loss < least;
  if (better) best = trial, least = loss;
  return better;
}

// Of either half.
__device__ __forceinline__ bool in_warp(bool any) {
  const int other = __shfl_xor_sync(0xffffffffu, static_cast<int>(any), kLanes);
  return any || other != 0;
}

// Least squares with the codes of `best` held; see scale_start.cc. False: nothing better was found,
// or this half of the warp is done.
template <int kHeld, class W>
__device__ __forceinline__ bool refit(const SearchRule& rule, const Elements<kHeld, W>& elements,
                                      bool going, float last, Trial& best, float& least) {
  Codes codes;
  codes.set(__fdiv_rn(1.0f, best.scale), best.zero, last);
  float sums[5] = {};
  elements.each([&](float x, float importance) {
    const float q = codes.of(x), wq = __fmul_rn(importance, q), wx = __fmul_rn(importance, x);
    sums[0] = __fadd_rn(sums[0], importance);
    sums[1] = __fadd_rn(sums[1], wq);
    sums[2] = __fadd_rn(sums[2], __fmul_rn(wq, q));
    sums[3] = __fadd_rn(sums[3], wx);
    sums[4] = __fadd_rn(sums[4], __fmul_rn(wx, q));
  });
#pragma unroll
  for (float& sum : sums) sum = sum_lanes(sum, kLanes);
  const double w = static_cast<double>(sums[0]), q = static_cast<double>(sums[1]),
               qq = static_cast<double>(sums[2]), x = static_cast<double>(sums[3]),
               xq = static_cast<double>(sums[4]);
  bool found = false;
  if (rule.grid.rule == RangeRule::kAsym) {
    const double determinant = __dadd_rn(__dmul_rn(w, qq), -__dmul_rn(q, q));
    const double slope =
        determinant > 0 ? __dadd_rn(__dmul_rn(w, xq), -__dmul_rn(q, x)) / determinant : 0.0;
    Trial trial{0, 0};
    if (going && slope > 0) {
      const double shift = __dadd_rn(__dmul_rn(q, slope), -x) / __dmul_rn(w, slope);
      const double zero = rint(__dadd_rn(static_cast<double>(best.zero), shift));
      trial = allowed(rule, static_cast<float>(slope),
                      static_cast<float>(fmin(fmax(zero, 0.0), static_cast<double>(last))));
    }
    found = keep_better(elements, trial, last, best, least);
  }
  const bool again = going && !found && qq > 0;
  if (in_warp(again)) {
    const Trial trial = again ? allowed(rule, static_cast<float>(xq / qq), best.zero) : Trial{0, 0};
    found = keep_better(elements, trial, last, best, least) || found;
  }
  return found;
}

struct Shape {
  int64_t all, in, group, groups, stride;
};

template <int kHeld, class W>
__global__ void __launch_bounds__(kThreads)
    search_kernel(Shape shape, SearchRule rule, const W* w, const float* given, float* scales,
                  float* zeros) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const bool inside = thread / kLanes < shape.all;
  const int64_t k = inside ? thread / kLanes : shape.all - 1;
  const int64_t row = k / shape.groups, column = k % shape.groups * shape.group;
  const int n = static_cast<int>(shape.in - column < shape.group ? shape.in - column : shape.group);
  const float last = static_cast<float>((1 << rule.grid.bits) - 1);
  const Elements<kHeld, W> elements(w + row * shape.stride + column,
                                    given == nullptr ? nullptr : given + column, lane, n);

  float min = 0, max = 0;
  elements.each([&](float x, float) { min = fminf(min, x), max = fmaxf(max, x); });
  min = -max_lanes(-min, kLanes);
  max = max_lanes(max, kLanes);
  const Grid base = range_grid(rule.grid, min, max, 1.0f, 1.0f);

  Trial best{base.scale, base.zero};
  float least = INFINITY;
  const int trials = trials_of(rule);
  for (int first = 0; first < trials; first += kLanes) {
    // Each lane makes one trial, and all of them judge it.
    const Trial mine = trial_of(rule, base, min, max, first + lane);
    const float inverse = __fdiv_rn(1.0f, mine.scale);
#pragma unroll 1
    for (int from = 0; from < kLanes && first + from < trials; from += kAtOnce) {
      Trial trial[kAtOnce];
      Codes codes[kAtOnce];
      float loss[kAtOnce] = {};
#pragma unroll
      for (int t = 0; t < kAtOnce; ++t) {
        trial[t].scale = __shfl_sync(0xffffffffu, mine.scale, from + t, kLanes);
        trial[t].zero = __shfl_sync(0xffffffffu, mine.zero, from + t, kLanes);
        codes[t].set(__shfl_sync(0xffffffffu, inverse, from + t, kLanes), trial[t].zero, last);
      }
      elements.each([&](float x, float importance) {
#pragma unroll
        for (int t = 0; t < kAtOnce; ++t)
          loss[t] = __fadd_rn(loss[t], loss_term(x, importance, trial[t].scale, codes[t]));
      });
#pragma unroll
      for (int t = 0; t < kAtOnce; ++t) {
        loss[t] = sum_lanes(loss[t], kLanes);
        if (trial[t].scale != 0 && loss[t] < least) best = trial[t], least = loss[t];
      }
    }
  }
  bool going = true;
  for (int i = 0; i < rule.refits && in_warp(going); ++i)
    going = refit(rule, elements, going, last, best, least) && going;
  if (inside && lane == 0) {
    scales[k] = best.scale;
    zeros[k] = __fadd_rn(best.zero, 0.0f);  // no negative zero
  }
}

template <class W>
void search_of(const SearchWeights& s, const SearchRule& rule, const W* w, const float* importance,
               float* scale, float* zero) {
  const int64_t all = s.out * s.groups(), group = std::min(s.group, s.in);
  const auto kernel = group <= 2 * kLanes    ? search_kernel<2, W>
                      : group <= 4 * kLanes  ? search_kernel<4, W>
                      : group <= 8 * kLanes  ? search_kernel<8, W>
                      : group <= 16 * kLanes ? search_kernel<16, W>
                                             : search_kernel<0, W>;
  launch(kernel, grid_of(ceil_div(all * kLanes, kThreads)), dim3(kThreads), 0,
         Shape{all, s.in, s.group, s.groups(), s.w.stride}, rule, w, importance, scale, zero);
}

}  // namespace

void search_scales(const SearchWeights& s, const SearchRule& rule, const float* importance,
                   float* scale, float* zero) {
  if (s.w.dtype == DType::kF32)
    search_of(s, rule, static_cast<const float*>(s.w.data), importance, scale, zero);
  else
    search_of(s, rule, static_cast<const uint16_t*>(s.w.data), importance, scale, zero);
}

}  // namespace signround::kernels::cuda
