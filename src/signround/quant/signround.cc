#include "signround/quant/signround.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/fake_quant.h"
#include "signround/kernels/cpu/range_step.h"
#include "signround/kernels/dispatch.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_tuner.h"

namespace signround {

// Of alpha and beta.
struct FactorStep {
  float lr, momentum;
  bool scalar;  // group by group
};

namespace {

// What a group holds beside its parameters.
int64_t bytes_per_group(const SignRoundOptions& options) {
  return options.scales == ScaleTuning::kFree ? 3 * 4 + static_cast<int64_t>(sizeof(ScaleMoments))
                                              : 4 * 4;
}
int64_t factors_per_group(const SignRoundOptions& options) {
  return options.scales == ScaleTuning::kFree ? 1 : 2;
}

// Groups that `step` works on at a time: the scalar work between two passes over a group is one
// long chain, and those of several groups overlap. Their data, 1024 weights, stays in L1.
constexpr int64_t kBatchGroups = 32, kBatchWeights = 1024;

float sign(float v) { return v > 0 ? 1.0f : v < 0 ? -1.0f : 0.0f; }

// One step of alpha or beta: as v in kernels/cpu/fake_quant.h, then into [0, 1].
void descend_factor(float gradient, FactorStep step, float& factor, float* buffer) {
  if (buffer != nullptr) gradient = *buffer = step.momentum * *buffer + gradient;
  factor = std::clamp(factor - step.lr * sign(gradient), 0.0f, 1.0f);
}

void check_weight(const char* where, DType dtype, int64_t stride, int64_t in) {
  require(dtype == DType::kF32 || dtype == DType::kBF16, where, "the weight to write is ",
          name_of(dtype), ", expected F32 or BF16");
  require(stride >= in, where, "rows of ", in, " weights are ", stride, " elements apart");
}

}  // namespace

double sign_round_lr(const SignRoundOptions& options, int bits) {
  if (options.lr != 0) return options.lr;
  return (options.iters >= 1000 && bits <= 3 ? 2.0 : 1.0) / std::max(options.iters, 1);
}

double offset_unit(const SignRoundOptions& options, int bits) {
  constexpr int64_t kMost = 32767;
  const int64_t n = std::max(options.iters, 1), all = n * (n + 1) / 2;
  const double last_step = sign_round_lr(options, bits) / static_cast<double>(n);
  return all <= kMost ? last_step / static_cast<double>(kMost / all)
                      : last_step * static_cast<double>(all) / kMost;
}

int offset_units(double lr, float unit, double& travelled) {
  const double before = std::nearbyint(travelled / unit);
  travelled += lr;
  return static_cast<int>(std::clamp(std::nearbyint(travelled / unit) - before, 0.0, 32767.0));
}

SignRoundSlot::SignRoundSlot(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const SignRoundOptions& options, const QuantizedLinear* start)
    : scheme_(scheme), options_(options), out_(out), in_(in), w_dtype_(DType::kF32) {
  adopt(w, start);
}

SignRoundSlot::SignRoundSlot(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const SignRoundOptions& options, const QuantizedLinear* start)
    : scheme_(scheme), options_(options), out_(out), in_(in), w_dtype_(DType::kBF16) {
  adopt(w, start);
}

int64_t SignRoundSlot::bytes(int64_t out, int64_t in, const QuantScheme& scheme,
                             const SignRoundOptions& options, DType w_dtype, bool keeps_best) {
  const int64_t groups = out * scheme.groups(in), factors = factors_per_group(options) * groups;
  return out * in * (size_of(w_dtype) + (keeps_best ? 4 : 2)) + bytes_per_group(options) * groups +
         2 * 4 * factors + (options.momentum != 0 ? 4 * (out * in + factors) : 0);
}

template <class W>
void SignRoundSlot::adopt(const W* w, const QuantizedLinear* start) {
  check_rounding("signround", out_, in_, scheme_);
  require(options_.iters >= 0 && options_.lr >= 0 && options_.minmax_lr >= 0 &&
              options_.momentum >= 0 && options_.scale_lr >= 0,
          "signround", "iters ", options_.iters, ", lr ", options_.lr, ", minmax_lr ",
          options_.minmax_lr, ", momentum ", options_.momentum, ", scale_lr ", options_.scale_lr,
          ", expected none below 0");
  require(start == nullptr ||
              (free() && start->scheme == scheme_ && start->out == out_ && start->in == in_),
          "signround", "the start is of another size or scheme, or the scales are not free");
  group_ = scheme_.group(in_);
  groups_ = scheme_.groups(in_);
  groups_all_ = out_ * groups_;
  const int64_t factors = factors_per_group(options_) * groups_all_;
  unit_ = static_cast<float>(signround::offset_unit(options_, scheme_.bits));
  w_ = Buffer(out_ * in_ * static_cast<int64_t>(sizeof(W)));
  range_ = Buffer((free() ? 4 : 8) * groups_all_);
  if (free()) adam_ = Buffer(static_cast<int64_t>(sizeof(ScaleMoments)) * groups_all_);
  grid_ = Buffer(8 * groups_all_);
  v_ = Buffer(2 * out_ * in_);
  factors_ = Buffer(4 * factors);
  best_factors_ = Buffer(4 * factors);
  if (options_.momentum != 0) momentum_ = Buffer(4 * (out_ * in_ + factors));
  std::fill_n(factors_.as<float>(), factors, free() ? 0.0f : 1.0f);
  std::fill_n(best_factors_.as<float>(), factors, free() ? 0.0f : 1.0f);

  const auto& functions = kernels::fake_quant_functions<W>();
  auto* first = range_.as<float>();
  std::mutex mutex;
  parallel_for(out_, rows_per_thread(in_), [&](int64_t begin, int64_t end) {
    std::copy(w + begin * in_, w + end * in_, w_.as<W>() + begin * in_);
    NonFinite found;
    bool ordinary = true;
    for (int64_t k = begin * groups_; k < end * groups_; ++k) {
      const int64_t column = k % groups_ * group_, at = k / groups_ * in_ + column;
      const int64_t n = std::min(group_, in_ - column);
      kernels::Extent extent = functions.extent(w_.as<W>() + at, n);
      if (!extent.finite) {
        found.merge(replace_non_finite(w_.as<W>() + at, n, at));
        extent = functions.extent(w_.as<W>() + at, n);
      }
      ordinary &= extent.ordinary;
      const GroupRange<float> range{extent.min, extent.max};
      const auto grid = group_grid_fwd<float>(scheme_, range, 1.0f, 1.0f);
      scale()[k] = grid.scale;
      zero()[k] = grid.zero;
      if (start != nullptr) {
        scale()[k] = floored_scale(start->scales[static_cast<size_t>(k)], scheme_.scale_dtype);
        zero()[k] = start->zeros[static_cast<size_t>(k)];
      }
      first[k] = free() ? scale()[k] : range.min;
      if (!free()) first[groups_all_ + k] = range.max;
    }
    const std::lock_guard lock(mutex);
    non_finite_.merge(found);
    ordinary_ &= ordinary;
  });
}

// body(W{}, Out{}) with the types of the weight kept and of the weight to write.
template <class Body>
void SignRoundSlot::with_types(DType dtype, Body&& body) const {
  if (w_dtype_ == DType::kF32)
    dtype == DType::kF32 ? body(float{}, float{}) : body(float{}, BF16{});
  else
    dtype == DType::kF32 ? body(BF16{}, float{}) : body(BF16{}, BF16{});
}

template <class W>
void write_group(const kernels::FakeQuantFunctions<W>& functions, const W* w, kernels::Offsets v,
                 int64_t n, kernels::CodeGrid grid, float* weight) {
  functions.write_f32(w, v, n, grid, weight);
}
template <class W>
void write_group(const kernels::FakeQuantFunctions<W>& functions, const W* w, kernels::Offsets v,
                 int64_t n, kernels::CodeGrid grid, BF16* weight) {
  functions.write_bf16(w, v, n, grid, weight);
}

template <class W>
kernels::GroupGrad descend_group(const kernels::FakeQuantFunctions<W>& functions, const W* w,
                                 const float* d_w, int64_t n, kernels::CodeGrid grid,
                                 const kernels::Descent& descent) {
  return functions.descend_f32(w, d_w, n, grid, descent);
}
template <class W>
kernels::GroupGrad descend_group(const kernels::FakeQuantFunctions<W>& functions, const W* w,
                                 const BF16* d_w, int64_t n, kernels::CodeGrid grid,
                                 const kernels::Descent& descent) {
  return functions.descend_bf16(w, d_w, n, grid, descent);
}

template <class W, class Out>
void SignRoundSlot::write_rows(Out* weight, int64_t stride) const {
  const auto& functions = kernels::fake_quant_functions<W>();
  const int max_code = scheme_.max_code();
  parallel_for(out_, rows_per_thread(in_), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t g = 0, column = 0; g < groups_; ++g, column += group_) {
        const int64_t k = row * groups_ + g, at = row * in_ + column;
        write_group(functions, w_.as<W>() + at, offsets(at), std::min(group_, in_ - column),
                    code_grid(scale()[k], zero()[k], max_code, ordinary_),
                    weight + row * stride + column);
      }
    }
  });
}

void SignRoundSlot::write_weight(void* weight, DType dtype, int64_t stride) const {
  check_weight("signround", dtype, stride, in_);
  with_types(dtype,
             [&]<class W, class Out>(W, Out) { write_rows<W>(static_cast<Out*>(weight), stride); });
}

GroupRange<float> SignRoundSlot::range(int64_t k) const {
  return {range_.as<float>()[k], range_.as<float>()[groups_all_ + k]};
}

// The grid of group k under these factors: (2, out, groups) alpha and beta, or (out, groups) log
// factors.
GroupGrid<float> SignRoundSlot::grid_of(int64_t k, const float* factors) const {
  if (!free())
    return group_grid_fwd<float>(scheme_, range(k), factors[k], factors[groups_all_ + k]);
  GroupGrid<float> grid{.zero = zero()[k]};
  kernels::scale_step_kernel().scales(1, factors + k, range_.as<float>() + k,
                                      scale_limits(scheme_.scale_dtype), &grid.scale);
  return grid;
}

// The free scales of groups [k, k + count). d loss / d t = scale d loss / d scale; what a scale's
// rounding and its floor do to it is passed by, so that a scale at the floor can leave it.
void SignRoundSlot::step_scales(const kernels::ScaleStepKernel& kernel, int64_t k, int64_t count,
                                double lr, const float* d_scale) {
  double gradient[kBatchGroups] = {};
  for (int64_t i = 0; i < count; ++i)
    gradient[i] = static_cast<double>(d_scale[i]) * static_cast<double>(scale()[k + i]);
  float* t = factors_.as<float>() + k;
  kernel.move(count, gradient, lr, adam_.as<ScaleMoments>() + k, t);
  kernel.scales(count, t, range_.as<float>() + k, scale_limits(scheme_.scale_dtype), scale() + k);
}

// alpha, beta and the grid of group k: what step_ranges does, in scalars.
void SignRoundSlot::step_range(int64_t k, FactorStep step, float d_scale, float d_clamped) {
  float& alpha = factors_.as<float>()[k];
  float& beta = factors_.as<float>()[groups_all_ + k];
  const RangeGrad<float> d = group_grid_bwd<float>(
      scheme_, range(k), alpha, beta, group_grid_fwd<float>(scheme_, range(k), alpha, beta),
      d_scale, d_clamped);
  float* buffer = momentum_.bytes() == 0 ? nullptr : momentum_.as<float>() + out_ * in_ + k;
  descend_factor(d.alpha, step, alpha, buffer);
  descend_factor(d.beta, step, beta, buffer == nullptr ? nullptr : buffer + groups_all_);
  const GroupGrid<float> grid = group_grid_fwd<float>(scheme_, range(k), alpha, beta);
  scale()[k] = grid.scale;
  zero()[k] = grid.zero;
}

void SignRoundSlot::step_ranges(int64_t k, int64_t count, FactorStep step, const float* d_scale,
                                const float* d_clamped) {
  if (step.scalar) {
    for (int64_t i = 0; i < count; ++i) step_range(k + i, step, d_scale[i], d_clamped[i]);
    return;
  }
  const float* min = range_.as<float>() + k;
  float* alpha = factors_.as<float>() + k;
  float* buffer = momentum_.bytes() == 0 ? nullptr : momentum_.as<float>() + out_ * in_ + k;
  kernels::range_step_hwy(range_rule(scheme_), count, step.lr, step.momentum,
                          {.min = min,
                           .max = min + groups_all_,
                           .d_scale = d_scale,
                           .d_clamped = d_clamped,
                           .alpha = alpha,
                           .beta = alpha + groups_all_,
                           .alpha_buffer = buffer,
                           .beta_buffer = buffer == nullptr ? nullptr : buffer + groups_all_,
                           .scale = scale() + k,
                           .zero = zero() + k});
}

// Where the next step leaves v: the best one stays where it is.
int16_t* SignRoundSlot::next_offsets() {
  if (best_ != Best::kCurrent) return v_.as<int16_t>();
  if (best_v_.bytes() == 0) best_v_ = Buffer(v_.bytes());
  return best_v_.as<int16_t>();
}

// The current v is where next_offsets() was.
void SignRoundSlot::leave_best() {
  if (best_ != Best::kCurrent) return;
  std::swap(v_, best_v_);
  best_ = Best::kKept;
}

// One pass: what belongs to a batch of groups comes from memory once and is still in L1 when the
// new weight is written.
template <class W, class D, class Out>
void SignRoundSlot::step_rows(const D* d_weight, int64_t d_stride, double decay, Out* weight,
                              int64_t stride) {
  const auto& functions = kernels::fake_quant_functions<W>();
  const int max_code = scheme_.max_code();
  const double lr = sign_round_lr(options_, scheme_.bits);
  const double minmax_lr = options_.minmax_lr != 0 ? options_.minmax_lr : lr;
  const float momentum = static_cast<float>(options_.momentum);
  const kernels::SignStep v_step{offset_units(decay * lr, unit_, travelled_), momentum};
  const FactorStep factor_step{static_cast<float>(decay * minmax_lr), momentum,
                               kernel_forced("ref")};
  const double scale_lr = corrected_scale_lr(decay * options_.scale_lr, steps_);
  const auto& scales = kernels::scale_step_kernel();
  const int64_t batch = std::clamp<int64_t>(kBatchWeights / group_, 1, kBatchGroups);
  const W* w = w_.as<W>();
  const auto grid_at = [&](int64_t k) {
    return code_grid(scale()[k], zero()[k], max_code, ordinary_);
  };
  int16_t* next = next_offsets();
  float* buffer = momentum_.as<float>();
  parallel_for(out_, rows_per_thread(in_), [&](int64_t begin, int64_t end) {
    float d_scale[kBatchGroups], d_clamped[kBatchGroups];
    const int64_t end_group = end * groups_;
    for (int64_t first = begin * groups_; first < end_group; first += batch) {
      const int64_t count = std::min(batch, end_group - first);
      const auto for_each_group = [&](auto&& body) {  // body(k, row, column, weights)
        int64_t row = first / groups_, column = first % groups_ * group_;
        for (int64_t k = first; k < first + count; ++k) {
          body(k, row, column, std::min(group_, in_ - column));
          column += group_;
          if (column >= in_) column = 0, ++row;
        }
      };
      for_each_group([&](int64_t k, int64_t row, int64_t column, int64_t n) {
        const int64_t at = row * in_ + column;
        const auto [of_scale, of_clamped] =
            descend_group(functions, w + at, d_weight + row * d_stride + column, n, grid_at(k),
                          {.v = offsets(at),
                           .step = v_step,
                           .next = next + at,
                           .buffer = buffer == nullptr ? nullptr : buffer + at});
        d_scale[k - first] = of_scale;
        d_clamped[k - first] = of_clamped;
      });
      if (options_.minmax_tuning && free())
        step_scales(scales, first, count, scale_lr, d_scale);
      else if (options_.minmax_tuning)
        step_ranges(first, count, factor_step, d_scale, d_clamped);
      for_each_group([&](int64_t k, int64_t row, int64_t column, int64_t n) {
        const int64_t at = row * in_ + column;
        write_group(functions, w + at, {next + at, unit_}, n, grid_at(k),
                    weight + row * stride + column);
      });
    }
  });
}

void SignRoundSlot::step(const RowsAny& d_weight, double decay, void* weight, DType dtype,
                         int64_t stride) {
  check_weight("signround", dtype, stride, in_);
  require(d_weight.dtype == DType::kF32 || d_weight.dtype == DType::kBF16, "signround",
          "gradients are ", name_of(d_weight.dtype), ", expected F32 or BF16");
  require(d_weight.stride >= in_, "signround", "rows of ", in_, " gradients are ", d_weight.stride,
          " elements apart");
  ++steps_;
  with_types(dtype, [&]<class W, class Out>(W, Out) {
    auto* to = static_cast<Out*>(weight);
    if (d_weight.dtype == DType::kF32)
      step_rows<W>(static_cast<const float*>(d_weight.data), d_weight.stride, decay, to, stride);
    else
      step_rows<W>(static_cast<const BF16*>(d_weight.data), d_weight.stride, decay, to, stride);
  });
  leave_best();
}

void SignRoundSlot::restart() {
  next_offsets();
  leave_best();
  std::fill_n(v_.as<int16_t>(), out_ * in_, int16_t{0});
  std::fill_n(factors_.as<float>(), factors_.bytes() / 4, free() ? 0.0f : 1.0f);
  for (int64_t k = 0; k < groups_all_; ++k) {
    const GroupGrid<float> grid = grid_of(k, factors_.as<float>());
    scale()[k] = grid.scale;
    zero()[k] = grid.zero;
  }
  if (free()) std::fill_n(adam_.as<ScaleMoments>(), groups_all_, ScaleMoments{});
  std::fill_n(momentum_.as<float>(), momentum_.bytes() / 4, 0.0f);
  steps_ = 0;
  travelled_ = 0;
}

void SignRoundSlot::keep_best() {
  best_ = Best::kCurrent;
  std::copy_n(factors_.as<float>(), factors_.bytes() / 4, best_factors_.as<float>());
}

std::vector<float> SignRoundSlot::v() const {
  std::vector<float> values(static_cast<size_t>(out_ * in_));
  std::transform(v_.as<int16_t>(), v_.as<int16_t>() + out_ * in_, values.begin(),
                 [&](int16_t units) { return unit_ * units; });
  return values;
}

template <class W>
void SignRoundSlot::finish_rows(QuantizedLinear& result) const {
  const auto& functions = kernels::fake_quant_functions<W>();
  const int16_t* v = best_ == Best::kStart     ? nullptr
                     : best_ == Best::kCurrent ? v_.as<int16_t>()
                                               : best_v_.as<int16_t>();
  parallel_for(out_, rows_per_thread(in_), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin * groups_; k < end * groups_; ++k) {
      const int64_t column = k % groups_ * group_, at = k / groups_ * in_ + column;
      const GroupGrid<float> grid = grid_of(k, best_factors_.as<float>());
      functions.codes(w_.as<W>() + at, {v == nullptr ? nullptr : v + at, unit_},
                      std::min(group_, in_ - column), code_grid(grid, scheme_.max_code()),
                      grid.zero, result.codes.data() + at);
      result.scales[static_cast<size_t>(k)] = grid.scale;
      result.zeros[static_cast<size_t>(k)] = static_cast<uint8_t>(grid.zero);
    }
  });
}

QuantizedLinear SignRoundSlot::finish() const {
  QuantizedLinear result = make_quantized("signround", out_, in_, scheme_);
  w_dtype_ == DType::kF32 ? finish_rows<float>(result) : finish_rows<BF16>(result);
  return result;
}

}  // namespace signround
