// SignRound on a GPU: quant/signround.h with everything in the GPU's memory. The same grids, codes
// and steps; only sums over a group come in another order, and exp has other last bits.
#pragma once

#include "signround/kernels/slot_cuda.h"
#include "signround/quant/signround.h"

namespace signround {

// Scales, as floored_scale() gives them, and zero points, (out, groups), in the device's memory:
// see quant/scale_start_cuda.h.
struct DeviceStart {
  const float *scale = nullptr, *zero = nullptr;
};

// All calls are made in the scope of one device; nothing waits for it but finish().
class SignRoundCudaSlot : public WeightSlot {
 public:
  // Copies w (out, in), kF32 or kBF16, on the device, where every value is finite. start: as
  // SignRoundSlot has it, in host memory.
  SignRoundCudaSlot(const RowsAny& w, int64_t out, int64_t in, const QuantScheme& scheme,
                    const SignRoundOptions& options, const QuantizedLinear* start = nullptr);
  // The scales are free; start may go when this returns.
  SignRoundCudaSlot(const RowsAny& w, int64_t out, int64_t in, const QuantScheme& scheme,
                    const SignRoundOptions& options, const DeviceStart& start);

  void write_weight(void* weight, DType dtype, int64_t stride) const override;
  void step(const RowsAny& d_weight, double decay, void* weight, DType dtype,
            int64_t stride) override;
  void restart() override;
  void keep_best() override;
  QuantizedLinear finish() const override;
  // The weight of the best parameters, as finish() has them.
  void write_best(void* weight, DType dtype, int64_t stride) const;

  // Memory of the device that a slot of this size holds.
  static int64_t bytes(int64_t out, int64_t in, const QuantScheme& scheme,
                       const SignRoundOptions& options, DType w_dtype, bool keeps_best);

 private:
  // All but range_ and grid_.
  struct WithoutGrid {};
  SignRoundCudaSlot(WithoutGrid, const RowsAny& w, int64_t out, int64_t in,
                    const QuantScheme& scheme, const SignRoundOptions& options);
  bool free() const { return options_.scales == ScaleTuning::kFree; }
  kernels::cuda::SlotWeights weights() const;
  float* scale() const { return const_cast<float*>(grid_.as<float>()); }
  kernels::cuda::SlotGrid grid() const;
  void grid_of(const float* factors, kernels::cuda::SlotGrid grid) const;
  void start_factors(Buffer& factors) const;
  const int16_t* best_offsets() const;

  QuantScheme scheme_;
  SignRoundOptions options_;
  Device device_;
  int64_t out_, in_, groups_all_;
  DType w_dtype_;
  Buffer w_;      // (out, in)
  Buffer range_;  // (2, groups) smallest and largest weight; of free scales: (groups) the start's
  Buffer grid_;   // (2, groups) scale and zero point
  float unit_;
  Buffer v_, best_v_;              // (out, in) int16_t
  Buffer factors_, best_factors_;  // alpha, then beta; or the log factors
  enum class Best : uint8_t { kStart, kCurrent, kKept } best_ = Best::kStart;
  Buffer moments_, momentum_;
  int64_t steps_ = 0;
  double travelled_ = 0;
};

}  // namespace signround
