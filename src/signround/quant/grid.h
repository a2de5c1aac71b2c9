// The grids of a group of weights, forward and backward, on one page. This is the definition that
// every fast path is tested against. Formulas: AutoRound's int_sym, int_asym and int_sym_gptq
// (arXiv 2309.05516, equations 2 to 5).
//
//   lo = alpha * min(0, min w)    hi = beta * max(0, max w)    M = 2^(bits-1)    N = 2^bits - 1
//
//   full range  scale = (hi < -lo ? +1 : -1) * max(-lo, hi) / M     zero = M
//               the largest magnitude sits on code 0, whatever its sign
//   asymmetric  scale = (hi - lo) / N                               zero = round(-lo / scale)
//   classic     scale = 2 max(-lo, hi) / N, or hi / N if lo = 0     zero = M
//
//   then scale is rounded to scale_dtype, and after that its magnitude is raised to scale_floor
//   code = clamp(round(w / scale + v) + zero, 0, N)    weight = scale * (code - zero)
//
// round is half to even. Gradients go straight through every round; clamps and the floor block
// them. A value that sits on a bound of the clamp, as the outermost codes do, is not clamped: its
// gradient passes. So did torch's until 2026; torch 2.15 blocks it, so AutoRound on it no longer
// moves the offsets of those codes.
//
// T is float, double, or std::complex<double> (gradient checks: branches look at real parts only).
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>

#include "signround/kernels/cpu/fake_quant.h"
#include "signround/kernels/cpu/range_step.h"
#include "signround/kernels/cpu/scale_step.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"

namespace signround {

inline float real_part(float v) { return v; }
inline double real_part(double v) { return v; }
inline double real_part(std::complex<double> v) { return v.real(); }

// The nearest value that a scale of this type can have; a scale that is too large becomes the
// largest finite one.
float round_scale(float scale, DType scale_dtype);
// scale_floor() as scale_dtype holds it: 1e-5 is 1.00136e-05 in F16 and in BF16.
float scale_floor_of(DType scale_dtype);
kernels::ScaleLimits scale_limits(DType scale_dtype);

// round_scale, and then its magnitude raised to the floor; 0 and -0 give the positive floor.
float floored_scale(float scale, DType scale_dtype);

// What rounds: the usual rounding here; a gradient check replays the residuals of one run as
// constants instead.
struct RoundNearest {
  template <class T>
  T scale(T v, DType dtype) const {
    return static_cast<T>(round_scale(static_cast<float>(v), dtype));
  }
  template <class T>
  T code(T v) const {
    return std::nearbyint(v);
  }
};

// Smallest and largest weight of a group, and zero.
template <class T>
struct GroupRange {
  T min{}, max{};
};

template <class T>
struct GroupGrid {
  T scale{};               // never 0; negative only for kFullRange
  T zero{};                // a whole number, 0 .. max_code
  bool floored = false;    // the floor replaced the scale: no gradient passes
  bool zero_held = false;  // the zero point does not depend on the range
};

// The same for kernels/cpu/range_step.h.
inline kernels::RangeGridRule range_rule(const QuantScheme& scheme) {
  const auto rule = scheme.symmetry == Symmetry::kFullRange ? kernels::RangeRule::kFullRange
                    : scheme.symmetry == Symmetry::kAsym    ? kernels::RangeRule::kAsym
                                                            : kernels::RangeRule::kClassic;
  return {rule, scheme.bits, scale_limits(scheme.scale_dtype)};
}

// For kernels/cpu/fake_quant.h, which rounds to q = code - zero. 0 - zero: never a
// negative zero.
inline kernels::CodeGrid code_grid(float scale, float zero, int max_code, bool ordinary = false) {
  return {scale, 0.0f - zero, static_cast<float>(max_code) - zero, ordinary};
}
inline kernels::CodeGrid code_grid(const GroupGrid<float>& grid, int max_code) {
  return code_grid(grid.scale, grid.zero, max_code);
}

// The larger of two; equal ones count half each, as the derivative of torch.max has it.
template <class T>
T larger(T a, T b) {
  if (real_part(a) == real_part(b)) return (a + b) * T(0.5f);
  return real_part(a) < real_part(b) ? b : a;
}

template <class T, class Round = RoundNearest>
GroupGrid<T> group_grid_fwd(const QuantScheme& scheme, GroupRange<T> range, T alpha, T beta,
                            Round&& round = {}) {
  const T max_code(static_cast<float>(scheme.max_code()));
  const T half(static_cast<float>(1 << (scheme.bits - 1)));
  const T floor(scale_floor_of(scheme.scale_dtype));
  const T lo = range.min * alpha, hi = range.max * beta;
  GroupGrid<T> grid;
  switch (scheme.symmetry) {
    case Symmetry::kFullRange:
      grid.scale = larger(-lo, hi) * T(1.0f / static_cast<float>(1 << (scheme.bits - 1)));
      if (!(real_part(hi) < -real_part(lo))) grid.scale = -grid.scale;
      break;
    case Symmetry::kAsym:
      grid.scale = (hi - lo) / max_code;
      break;
    case Symmetry::kClassic:
      // A group without negative weights keeps half of its codes for them and clamps its larger
      // half: GPTQ's rule.
      grid.scale = (larger(-lo, hi) - (real_part(lo) < 0 ? -larger(-lo, hi) : lo)) / max_code;
      break;
  }
  grid.scale = round.scale(grid.scale, scheme.scale_dtype);
  const bool negative = real_part(grid.scale) < 0;  // -0 counts as positive
  grid.floored = negative ? real_part(grid.scale) > -real_part(floor)
                          : real_part(grid.scale) < real_part(floor);
  if (grid.floored) grid.scale = negative ? -floor : floor;
  grid.zero = half;
  grid.zero_held = true;
  if (scheme.symmetry == Symmetry::kAsym) {
    grid.zero = round.code(-lo / grid.scale);
    // Scales below 2^-14 lose digits in F16, which can lift the zero point of 8 bits to 256.
    grid.zero_held = real_part(grid.zero) > real_part(max_code);
    if (grid.zero_held) grid.zero = max_code;
  }
  return grid;
}

template <class T, class Round = RoundNearest>
T fake_quant_fwd(T w, T v, GroupGrid<T> grid, int max_code, Round&& round = {}) {
  const T last(static_cast<float>(max_code));
  const T code = round.code(w / grid.scale + v) + grid.zero;
  if (real_part(code) < 0) return grid.scale * -grid.zero;
  if (real_part(code) > real_part(last)) return grid.scale * (last - grid.zero);
  return grid.scale * (code - grid.zero);
}

// Gradients of one weight. scale: of the loss by the scale, with the zero point held; clamped: d_y
// of a clamped weight, which is all that the zero point needs.
template <class T>
struct FakeQuantGrad {
  T v{}, scale{}, clamped{};
};

template <class T>
FakeQuantGrad<T> fake_quant_bwd(T w, T v, GroupGrid<T> grid, int max_code, T d_y) {
  const T q = std::nearbyint(w / grid.scale + v);
  const T lo = -grid.zero, hi = T(max_code) - grid.zero;
  if (q < lo) return {T(0), d_y * lo, d_y};  // fwd: scale * -zero
  if (q > hi) return {T(0), d_y * hi, d_y};  // fwd: scale * (last - zero)
  // fwd: scale * (round(w / scale + v) + zero - zero): the zero point cancels
  return {d_y * grid.scale, d_y * (q - w / grid.scale), T(0)};
}

template <class T>
struct RangeGrad {
  T alpha{}, beta{};
};

// grid: what group_grid_fwd returned. d_scale, d_clamped: sums of FakeQuantGrad over the group.
template <class T>
RangeGrad<T> group_grid_bwd(const QuantScheme& scheme, GroupRange<T> range, T alpha, T beta,
                            const GroupGrid<T>& grid, T d_scale, T d_clamped) {
  const T max_code(static_cast<float>(scheme.max_code()));
  const T half(static_cast<float>(1 << (scheme.bits - 1)));
  const T lo = range.min * alpha, hi = range.max * beta;
  T d_lo(0), d_hi(0), d_larger(0);
  if (!grid.zero_held) {
    // fwd: zero = round(-lo / scale); a clamped weight is scale * (bound - zero), so d_zero =
    // -scale * d_clamped
    d_lo += d_clamped;
    d_scale -= d_clamped * (lo / grid.scale);
  }
  if (grid.floored) d_scale = T(0);
  switch (scheme.symmetry) {
    case Symmetry::kFullRange:  // fwd: scale = +-larger(-lo, hi) / half
      d_larger = (hi < -lo ? d_scale : -d_scale) / half;
      break;
    case Symmetry::kAsym:  // fwd: scale = (hi - lo) / max_code
      d_hi += d_scale / max_code;
      d_lo -= d_scale / max_code;
      break;
    case Symmetry::kClassic:  // fwd: scale = (larger(-lo, hi) - (lo < 0 ? -larger(-lo, hi) : lo)) /
                              // max_code
      d_larger = (lo < T(0) ? T(2) * d_scale : d_scale) / max_code;
      if (!(lo < T(0))) d_lo -= d_scale / max_code;
      break;
  }
  // fwd: larger(-lo, hi)
  d_lo -= -lo == hi ? d_larger * T(0.5f) : -lo > hi ? d_larger : T(0);
  d_hi += -lo == hi ? d_larger * T(0.5f) : -lo > hi ? T(0) : d_larger;
  return {range.min * d_lo, range.max * d_hi};
}

}  // namespace signround
