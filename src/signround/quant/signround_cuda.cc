#include "signround/quant/signround_cuda.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_tuner.h"

namespace signround {

using namespace kernels::cuda;

namespace {

int64_t factors_of(const SignRoundOptions& options) {
  return options.scales == ScaleTuning::kFree ? 1 : 2;
}

void upload(Buffer& to, const std::vector<float>& values) {
  copy_to_device(to.data(), values.data(), static_cast<int64_t>(values.size()) * 4);
}

}  // namespace

int64_t SignRoundCudaSlot::bytes(int64_t out, int64_t in, const QuantScheme& scheme,
                                 const SignRoundOptions& options, DType w_dtype, bool keeps_best) {
  const int64_t groups = out * scheme.groups(in), factors = factors_of(options) * groups;
  const int64_t held =
      options.scales == ScaleTuning::kFree ? 4 + static_cast<int64_t>(sizeof(ScaleMoments)) : 8;
  return out * in * (size_of(w_dtype) + (keeps_best ? 4 : 2)) + (held + 8) * groups +
         2 * 4 * factors + (options.momentum != 0 ? 4 * (out * in + factors) : 0);
}

SignRoundCudaSlot::SignRoundCudaSlot(WithoutGrid, const RowsAny& w, int64_t out, int64_t in,
                                     const QuantScheme& scheme, const SignRoundOptions& options)
    : scheme_(scheme),
      options_(options),
      device_(current_device()),
      out_(out),
      in_(in),
      groups_all_(out * scheme.groups(in)),
      w_dtype_(w.dtype) {
  check_rounding("signround", out, in, scheme);
  require(w.dtype == DType::kF32 || w.dtype == DType::kBF16, "signround", "weights are ",
          name_of(w.dtype), ", expected F32 or BF16");
  require(w.stride >= in, "signround", "rows of ", in, " weights are ", w.stride, " elements apart");
  unit_ = static_cast<float>(offset_unit(options, scheme.bits));
  const int64_t size = size_of(w.dtype), factors = factors_of(options) * groups_all_;
  w_ = Buffer(out * in * size, device_);
  copy_rows_on_device(w_.data(), in * size, w.data, w.stride * size, in * size, out);
  range_ = Buffer((free() ? 4 : 8) * groups_all_, device_);
  grid_ = Buffer(8 * groups_all_, device_);
  v_ = Buffer(2 * out * in, device_);
  factors_ = Buffer(4 * factors, device_);
  best_factors_ = Buffer(4 * factors, device_);
  if (free()) moments_ = Buffer(static_cast<int64_t>(sizeof(ScaleMoments)) * groups_all_, device_);
  if (options.momentum != 0) momentum_ = Buffer(4 * (out * in + factors), device_);
  start_factors(factors_);
  start_factors(best_factors_);
}

SignRoundCudaSlot::SignRoundCudaSlot(const RowsAny& w, int64_t out, int64_t in,
                                     const QuantScheme& scheme, const SignRoundOptions& options,
                                     const DeviceStart& start)
    : SignRoundCudaSlot(WithoutGrid{}, w, out, in, scheme, options) {
  require(free(), "signround", "there is a start, and the scales are not free");
  copy_on_device(range_.data(), start.scale, 4 * groups_all_);
  copy_on_device(scale(), start.scale, 4 * groups_all_);
  copy_on_device(scale() + groups_all_, start.zero, 4 * groups_all_);
  synchronize();  // before the start goes
}

SignRoundCudaSlot::SignRoundCudaSlot(const RowsAny& w, int64_t out, int64_t in,
                                     const QuantScheme& scheme, const SignRoundOptions& options,
                                     const QuantizedLinear* start)
    : SignRoundCudaSlot(WithoutGrid{}, w, out, in, scheme, options) {
  require(start == nullptr ||
              (free() && start->scheme == scheme && start->out == out && start->in == in),
          "signround", "the start is of another size or scheme, or the scales are not free");
  if (start != nullptr) {
    std::vector<float> scales(start->scales), zeros(start->zeros.begin(), start->zeros.end());
    for (float& s : scales) s = floored_scale(s, scheme.scale_dtype);
    upload(range_, scales);
    copy_to_device(scale(), scales.data(), 4 * groups_all_);
    copy_to_device(scale() + groups_all_, zeros.data(), 4 * groups_all_);
    synchronize();  // before the vectors go
    return;
  }
  Buffer ranges(8 * groups_all_, device_), ones(8 * groups_all_, device_);
  float* min = ranges.as<float>();
  slot_extent(weights(), min, min + groups_all_);
  upload(ones, std::vector<float>(static_cast<size_t>(2 * groups_all_), 1.0f));
  slot_ranges(range_rule(scheme), groups_all_, min, min + groups_all_, ones.as<float>(),
              ones.as<float>(), grid());
  copy_on_device(range_.data(), free() ? scale() : min, range_.bytes());
  synchronize();  // before the buffers go
}

SlotWeights SignRoundCudaSlot::weights() const {
  return {out_, in_, scheme_.group(in_), w_dtype_, w_.data()};
}

SlotGrid SignRoundCudaSlot::grid() const {
  return {scale(), scale() + groups_all_, scheme_.max_code()};
}

void SignRoundCudaSlot::start_factors(Buffer& factors) const {
  if (free()) return zero_on_device(factors.data(), factors.bytes());
  upload(factors, std::vector<float>(static_cast<size_t>(factors.bytes() / 4), 1.0f));
  synchronize();
}

// The grid under these factors; free scales: the zero points stay as they are.
void SignRoundCudaSlot::grid_of(const float* factors, SlotGrid grid) const {
  const auto* range = range_.as<float>();
  if (free())
    slot_scales(scale_limits(scheme_.scale_dtype), groups_all_, range, factors, grid.scale);
  else
    slot_ranges(range_rule(scheme_), groups_all_, range, range + groups_all_, factors,
                factors + groups_all_, grid);
}

void SignRoundCudaSlot::write_weight(void* weight, DType dtype, int64_t stride) const {
  slot_write(weights(), v_.as<int16_t>(), unit_, grid(), {weight, dtype, stride});
}

void SignRoundCudaSlot::step(const RowsAny& d_weight, double decay, void* weight, DType dtype,
                             int64_t stride) {
  require(d_weight.dtype == DType::kF32 || d_weight.dtype == DType::kBF16, "signround",
          "gradients are ", name_of(d_weight.dtype), ", expected F32 or BF16");
  ++steps_;
  const double lr = sign_round_lr(options_, scheme_.bits);
  const double minmax_lr = options_.minmax_lr != 0 ? options_.minmax_lr : lr;
  const bool leaves_best = best_ == Best::kCurrent;
  if (leaves_best && best_v_.bytes() == 0) best_v_ = Buffer(v_.bytes(), device_);
  auto* factors = factors_.as<float>();
  SlotStep s{.v = v_.as<int16_t>(),
             .next = leaves_best ? best_v_.as<int16_t>() : v_.as<int16_t>(),
             .unit = unit_,
             .units = offset_units(decay * lr, unit_, travelled_),
             .momentum = static_cast<float>(options_.momentum),
             .buffer = momentum_.as<float>()};
  if (options_.minmax_tuning && free()) {
    s.scales = SlotStep::Scales::kFree;
    s.limits = scale_limits(scheme_.scale_dtype);
    s.start = range_.as<float>();
    s.t = s.t_next = factors;
    s.moments = moments_.as<ScaleMoments>();
    s.scale_lr = corrected_scale_lr(decay * options_.scale_lr, steps_);
  } else if (options_.minmax_tuning) {
    s.scales = SlotStep::Scales::kRange;
    s.rule = range_rule(scheme_);
    s.min = range_.as<float>();
    s.max = s.min + groups_all_;
    s.alpha = s.alpha_next = factors;
    s.beta = s.beta_next = factors + groups_all_;
    if (momentum_.bytes() > 0) {
      s.alpha_buffer = momentum_.as<float>() + out_ * in_;
      s.beta_buffer = s.alpha_buffer + groups_all_;
    }
    s.factor_lr = static_cast<float>(decay * minmax_lr);
  }
  slot_step(weights(), s, grid(), d_weight, {weight, dtype, stride});
  if (leaves_best) {
    std::swap(v_, best_v_);
    best_ = Best::kKept;
  }
}

void SignRoundCudaSlot::restart() {
  if (best_ == Best::kCurrent) {
    if (best_v_.bytes() == 0) best_v_ = Buffer(v_.bytes(), device_);
    std::swap(v_, best_v_);
    best_ = Best::kKept;
  }
  zero_on_device(v_.data(), v_.bytes());
  start_factors(factors_);
  grid_of(factors_.as<float>(), grid());
  if (free()) zero_on_device(moments_.data(), moments_.bytes());
  if (momentum_.bytes() > 0) zero_on_device(momentum_.data(), momentum_.bytes());
  steps_ = 0;
  travelled_ = 0;
}

void SignRoundCudaSlot::keep_best() {
  best_ = Best::kCurrent;
  copy_on_device(best_factors_.data(), factors_.data(), factors_.bytes());
}

const int16_t* SignRoundCudaSlot::best_offsets() const {
  return best_ == Best::kStart     ? nullptr
         : best_ == Best::kCurrent ? v_.as<int16_t>()
                                   : best_v_.as<int16_t>();
}

void SignRoundCudaSlot::write_best(void* weight, DType dtype, int64_t stride) const {
  Buffer best(8 * groups_all_, device_);
  copy_on_device(best.data(), grid_.data(), best.bytes());
  const SlotGrid of_best{best.as<float>(), best.as<float>() + groups_all_, scheme_.max_code()};
  grid_of(best_factors_.as<float>(), of_best);
  slot_write(weights(), best_offsets(), unit_, of_best, {weight, dtype, stride});
  synchronize();  // before the buffer goes
}

QuantizedLinear SignRoundCudaSlot::finish() const {
  QuantizedLinear result = make_quantized("signround", out_, in_, scheme_);
  Buffer best(8 * groups_all_, device_), codes(out_ * in_, device_);
  copy_on_device(best.data(), grid_.data(), best.bytes());
  const SlotGrid of_best{best.as<float>(), best.as<float>() + groups_all_, scheme_.max_code()};
  grid_of(best_factors_.as<float>(), of_best);
  slot_codes(weights(), best_offsets(), unit_, of_best, codes.as<uint8_t>());
  std::vector<float> zeros(static_cast<size_t>(groups_all_));
  copy_to_host(result.codes.data(), codes.data(), out_ * in_);
  copy_to_host(result.scales.data(), of_best.scale, 4 * groups_all_);
  copy_to_host(zeros.data(), of_best.zero, 4 * groups_all_);
  std::transform(zeros.begin(), zeros.end(), result.zeros.begin(),
                 [](float zero) { return static_cast<uint8_t>(zero); });
  return result;
}

}  // namespace signround
