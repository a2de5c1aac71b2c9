// SignRound (arXiv 2309.05516): every weight has a rounding offset v, every group a factor alpha of
// its smallest and beta of its largest weight, and all of them move by a fixed step against the
// sign of their gradient. Formulas of the grid and of the gradients: grid.h.
//
// v is kept as whole numbers of 16 bits, in units of which the steps of a schedule that falls
// linearly are whole multiples (up to 255 of them; the sum of the steps is exact to half a unit for
// more): half of the memory, and nothing lost.
//
// With free scales a group has the logarithm of its scale instead of alpha and beta: scale =
// scale_0 exp(t), moved by Adam (arXiv 1412.6980) from the scales of a start; zero points stay as
// the start has them.
#pragma once

#include <vector>

#include "signround/kernels/cpu/fake_quant.h"
#include "signround/kernels/cpu/scale_step.h"
#include "signround/quant/non_finite.h"
#include "signround/quant/slot.h"
#include "signround/tensor/buffer.h"

namespace signround {

enum class ScaleTuning : uint8_t {
  kRangeFactors,  // alpha and beta in [0, 1]: AutoRound's rule
  kFree,          // the scale itself
};

template <class T>
struct GroupRange;
template <class T>
struct GroupGrid;
struct FactorStep;

struct SignRoundOptions {
  int iters = 200;
  double lr =
      0;  // of v; 0: 1 / iters, but 2 / iters for at least 1000 iterations of at most 3 bits
  double minmax_lr = 0;       // of alpha and beta; 0: as lr
  bool minmax_tuning = true;  // false: alpha and beta (or the free scales) stay as they start
  ScaleTuning scales = ScaleTuning::kRangeFactors;
  double scale_lr = 2e-3;  // first step of a free scale's logarithm
  double momentum = 0;     // 0: the sign of the gradient; m: the sign of m * buffer + gradient
  bool operator==(const SignRoundOptions&) const = default;
};

// The step of v that these options mean for weights of so many bits.
double sign_round_lr(const SignRoundOptions& options, int bits);

// The largest unit of v that every step of the schedule is a whole multiple of, or the smallest one
// that all steps in one direction fit into.
double offset_unit(const SignRoundOptions& options, int bits);
// Units that v moves by in a step of lr. Of all steps together, rounded to units, what those before
// did not take: the sum is never wrong by more than half a unit. travelled: the sum so far.
int offset_units(double lr, float unit, double& travelled);

class SignRoundSlot : public WeightSlot {
 public:
  // Copies w, (out, in) and contiguous, in the type it comes in. Weights that are not finite are
  // replaced as non_finite.h says. Starts at v = 0, alpha = beta = 1, which is round to nearest.
  // start: scales and zero points to begin with, of the same sizes and scheme (its codes are not
  // read); null: those of round to nearest. Only free scales can have one.
  SignRoundSlot(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                const SignRoundOptions& options, const QuantizedLinear* start = nullptr);
  SignRoundSlot(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                const SignRoundOptions& options, const QuantizedLinear* start = nullptr);

  void write_weight(void* weight, DType dtype, int64_t stride) const override;
  void step(const RowsAny& d_weight, double decay, void* weight, DType dtype,
            int64_t stride) override;
  void restart() override;
  void keep_best() override;
  QuantizedLinear finish() const override;

  const NonFinite& non_finite() const { return non_finite_; }

  // Memory that a slot of this size holds, for the memory plan; w_dtype is kF32 or kBF16.
  // keeps_best: keep_best() is called before the last step.
  static int64_t bytes(int64_t out, int64_t in, const QuantScheme& scheme,
                       const SignRoundOptions& options, DType w_dtype, bool keeps_best);

  // The current parameters: v (out, in); alpha, beta (out, groups), or the logarithm t of each free
  // scale's factor.
  std::vector<float> v() const;
  float offset_unit() const { return unit_; }
  const float* alpha() const { return factors_.as<float>(); }
  const float* beta() const { return alpha() + groups_all_; }
  const float* log_factor() const { return alpha(); }

 private:
  template <class W>
  void adopt(const W* w, const QuantizedLinear* start);
  bool free() const { return options_.scales == ScaleTuning::kFree; }
  float* scale() { return grid_.as<float>(); }
  float* zero() { return scale() + groups_all_; }
  const float* scale() const { return grid_.as<float>(); }
  const float* zero() const { return scale() + groups_all_; }
  GroupRange<float> range(int64_t k) const;
  GroupGrid<float> grid_of(int64_t k, const float* factors) const;
  kernels::Offsets offsets(int64_t at) const { return {v_.as<int16_t>() + at, unit_}; }
  int16_t* next_offsets();
  void leave_best();
  template <class W, class Out>
  void write_rows(Out* weight, int64_t stride) const;
  template <class W, class D, class Out>
  void step_rows(const D* d_weight, int64_t d_stride, double decay, Out* weight, int64_t stride);
  void step_range(int64_t k, FactorStep step, float d_scale, float d_clamped);
  void step_ranges(int64_t k, int64_t count, FactorStep step, const float* d_scale,
                   const float* d_clamped);
  void step_scales(const kernels::ScaleStepKernel& kernel, int64_t k, int64_t count, double lr,
                   const float* d_scale);
  template <class Body>
  void with_types(DType dtype, Body&& body) const;
  template <class W>
  void finish_rows(QuantizedLinear& result) const;

  QuantScheme scheme_;
  SignRoundOptions options_;
  int64_t out_, in_, group_, groups_, groups_all_;
  DType w_dtype_;
  Buffer w_;              // (out, in) in w_dtype_
  bool ordinary_ = true;  // all weights are kernels::Extent::ordinary
  Buffer range_;  // (2, out, groups) f32: smallest and largest weight; of free scales: those of the
                  // start, (out, groups)
  Buffer grid_;   // (2, out, groups) f32: scale and zero point of the current parameters
  float unit_;
  Buffer v_;        // (out, in) int16_t, in units
  Buffer factors_;  // f32: alpha, then beta, or the log factors
  // The best v is not copied: the next step writes to best_v_, and the two change places.
  enum class Best : uint8_t { kStart, kCurrent, kKept } best_ = Best::kStart;
  Buffer best_v_;        // as v_; empty until it is needed
  Buffer best_factors_;  // as factors_
  Buffer adam_;          // (out, groups) ScaleMoments of free scales
  int64_t steps_ = 0;
  double travelled_ = 0;  // the sum of all steps of v
  Buffer momentum_;       // f32: of v, then of the factors; empty without momentum
  NonFinite non_finite_;
};

}  // namespace signround
