#include "signround/quant/scale_tuner_cuda.h"

#include <cmath>

#include "signround/base/error.h"
#include "signround/quant/grid.h"
#include "signround/quant/scale_tuner.h"

namespace signround {
namespace {

template <class T>
Buffer on_gpu(const std::vector<T>& values) {
  Buffer there(static_cast<int64_t>(values.size() * sizeof(T)), current_device());
  copy_to_device(there.data(), values.data(), there.bytes());
  return there;
}

std::vector<float> on_host(const Buffer& there) {
  std::vector<float> values(static_cast<size_t>(there.bytes() / 4));
  copy_to_host(values.data(), there.data(), there.bytes());
  return values;
}

constexpr int64_t kMoments = sizeof(ScaleMoments);

}  // namespace

ScaleTunerCuda::ScaleTunerCuda(const QuantizedLinear& linear)
    : scheme_(linear.scheme),
      out_(linear.out),
      in_(linear.in),
      groups_all_(linear.out * linear.groups()),
      start_(on_gpu(linear.scales)),
      scales_(on_gpu(linear.scales)),
      log_factor_(4 * groups_all_, current_device()),
      moments_(kMoments * groups_all_, current_device()),
      zeros_(on_gpu(linear.zeros)) {
  synchronize();  // before `linear` goes
}

int64_t ScaleTunerCuda::bytes(int64_t out, int64_t in, const QuantScheme& scheme) {
  return out * scheme.groups(in) * (3 * int64_t{sizeof(float)} + kMoments + 1);
}

void ScaleTunerCuda::hold(const QuantizedLinear& linear) {
  require(linear.scheme == scheme_ && linear.out == out_ && linear.in == in_, "scale_tuner",
          "a layer of another size or scheme");
  codes_ = on_gpu(linear.codes);
  synchronize();  // before `linear` goes
}

kernels::cuda::Codes ScaleTunerCuda::codes() const {
  require(holds(), "scale_tuner", "internal: the integers are not there");
  return {out_, in_, scheme_.group(in_), codes_.as<uint8_t>(), zeros_.as<uint8_t>()};
}

void ScaleTunerCuda::write(const RowsOut& weight) const {
  kernels::cuda::codes_write(codes(), scales_.as<float>(), weight);
}

void ScaleTunerCuda::step(const RowsAny& d_weight, double lr) {
  require(
      (d_weight.dtype == DType::kF32 || d_weight.dtype == DType::kBF16) && d_weight.stride >= in_,
      "scale_tuner", "gradients are ", name_of(d_weight.dtype), " with rows ", d_weight.stride,
      " apart, expected F32 or BF16 and at least ", in_);
  kernels::cuda::codes_step(codes(), d_weight,
                            {.limits = scale_limits(scheme_.scale_dtype),
                             .lr = corrected_scale_lr(lr, ++steps_),
                             .start = start_.as<float>(),
                             .t = log_factor_.as<float>(),
                             .scale = scales_.as<float>(),
                             .moments = moments_.as<ScaleMoments>()});
}

std::vector<float> ScaleTunerCuda::scales() const { return on_host(scales_); }

FactorTunerCuda::FactorTunerCuda(int64_t count)
    : count_(count),
      log_factor_(4 * count, current_device()),
      moments_(kMoments * count, current_device()) {}

int64_t FactorTunerCuda::bytes(int64_t count) { return count * (4 + kMoments); }

void FactorTunerCuda::step(std::span<const float> gradient, std::span<const float> value,
                           float offset, double lr) {
  require(static_cast<int64_t>(gradient.size()) == count_ &&
              static_cast<int64_t>(value.size()) == count_,
          "factor_tuner", "gradients of ", gradient.size(), " and ", value.size(),
          " values, expected ", count_);
  kernels::cuda::factors_step(count_, gradient.data(), value.data(), offset,
                              corrected_scale_lr(lr, ++steps_), moments_.as<ScaleMoments>(),
                              log_factor_.as<float>());
}

void FactorTunerCuda::apply(std::span<float> value, float offset) const {
  require(static_cast<int64_t>(value.size()) == count_, "factor_tuner", value.size(),
          " values, expected ", count_);
  kernels::cuda::factors_apply(count_, log_factor_.as<float>(), offset, value.data());
}

std::vector<float> FactorTunerCuda::factors() const {
  std::vector<float> factors = on_host(log_factor_);
  for (float& t : factors) t = std::exp(t);
  return factors;
}

}  // namespace signround
