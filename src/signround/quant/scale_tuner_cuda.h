// ScaleTuner and FactorTuner on the current device, a GPU. Its memory is theirs; work is queued.
#pragma once

#include <span>
#include <vector>

#include "signround/kernels/scale_tuner_cuda.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/buffer.h"
#include "signround/tensor/rows.h"

namespace signround {

class ScaleTunerCuda {
 public:
  // Begins at the scales of `linear`, whose integers are not there yet.
  explicit ScaleTunerCuda(const QuantizedLinear& linear);

  // The layer's integers, until they are let go. Waits.
  void hold(const QuantizedLinear& linear);
  void let_go() { codes_ = Buffer(); }
  bool holds() const { return codes_.bytes() > 0; }

  // Both REQUIRE that the integers are there. weight: (out, in), f32 or bf16. d_weight: the same,
  // the gradient of the loss by it.
  void write(const RowsOut& weight) const;
  void step(const RowsAny& d_weight, double lr);

  std::vector<float> scales() const;  // (out, groups), as scale_dtype holds them; waits

  // Without the integers; and of those.
  static int64_t bytes(int64_t out, int64_t in, const QuantScheme& scheme);
  static int64_t code_bytes(int64_t out, int64_t in) { return out * in; }

 private:
  kernels::cuda::Codes codes() const;

  QuantScheme scheme_;
  int64_t out_, in_, groups_all_;
  Buffer start_, scales_, log_factor_, moments_, zeros_, codes_;
  int64_t steps_ = 0;
};

class FactorTunerCuda {
 public:
  explicit FactorTunerCuda(int64_t count);
  // gradient: of the loss by `value`; value[i] + offset is what the factor multiplies, times the
  // factor.
  void step(std::span<const float> gradient, std::span<const float> value, float offset, double lr);
  // value becomes (value + offset) * factor - offset.
  void apply(std::span<float> value, float offset) const;
  std::vector<float> factors() const;  // waits

  static int64_t bytes(int64_t count);

 private:
  int64_t count_;
  Buffer log_factor_, moments_;
  int64_t steps_ = 0;
};

}  // namespace signround
