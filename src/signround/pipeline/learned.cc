#include "signround/pipeline/learned.h"

#include "signround/base/error.h"
#include "signround/model/scaled_checkpoint.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_tuner.h"
#include "signround/quant/scale_tuner_cuda.h"

namespace signround {
namespace {

class LayerOnCpu final : public LearnedLayer {
 public:
  LayerOnCpu(QuantizedLinear linear, bool keep, std::function<QuantizedLinear()> read)
      : tuner_(linear), keep_(keep), read_(std::move(read)) {
    if (keep) kept_ = std::move(linear);
  }
  void write(const WeightView& place) override {
    with_integers([&](const QuantizedLinear& linear) {
      dequantize(linear, place.data, place.dtype, place.stride);
    });
  }
  void step(const RowsAny& d_weight, double lr) override {
    require(d_weight.dtype == DType::kF32, "distill", "internal: gradients are ",
            name_of(d_weight.dtype));
    with_integers([&](const QuantizedLinear& linear) {
      tuner_.step(linear, static_cast<const float*>(d_weight.data), d_weight.stride, lr);
    });
  }
  std::vector<float> scales() const override { return tuner_.scales(); }

 private:
  // With its scales as they are now.
  template <class Use>
  void with_integers(Use&& use) {
    QuantizedLinear again;
    if (!keep_) again = read_();
    QuantizedLinear& linear = keep_ ? kept_ : again;
    linear.scales = tuner_.scales();
    use(linear);
  }
  ScaleTuner tuner_;
  bool keep_;
  QuantizedLinear kept_;
  std::function<QuantizedLinear()> read_;
};

class LayerOnGpu final : public LearnedLayer {
 public:
  LayerOnGpu(QuantizedLinear linear, IntegerPlace place, std::function<QuantizedLinear()> read)
      : tuner_(linear), place_(place), read_(std::move(read)) {
    if (place == IntegerPlace::kThere) tuner_.hold(linear);
    if (place == IntegerPlace::kInHost) kept_ = std::move(linear);
  }
  void write(const WeightView& place) override {
    if (!tuner_.holds()) {
      if (place_ == IntegerPlace::kInHost) {
        tuner_.hold(kept_);
      } else {
        QuantizedLinear again;
        {
          const DeviceScope on_host({});
          again = read_();
        }
        tuner_.hold(again);
      }
    }
    tuner_.write({place.data, place.dtype, place.stride});
  }
  void step(const RowsAny& d_weight, double lr) override { tuner_.step(d_weight, lr); }
  void rest() override {
    if (place_ != IntegerPlace::kThere) tuner_.let_go();
  }
  std::vector<float> scales() const override { return tuner_.scales(); }

 private:
  ScaleTunerCuda tuner_;
  IntegerPlace place_;
  QuantizedLinear kept_;
  std::function<QuantizedLinear()> read_;
};

class NormOnCpu final : public LearnedNorm {
 public:
  NormOnCpu(int64_t size, float offset) : tuner_(static_cast<size_t>(size)), offset_(offset) {}
  void apply(std::span<float> value) override {
    const TensorFactors factors{.rows = tuner_.factors(), .columns = {}, .offset = offset_};
    for (size_t r = 0; r < value.size(); ++r)
      value[r] = scaled(value[r], factors, static_cast<int64_t>(r), 0);
  }
  void step(std::span<const float> gradient, std::span<const float> value, double lr) override {
    std::vector<float> multiplied;  // what the factor multiplies, times the factor
    for (float w : value) multiplied.push_back(w + offset_);
    tuner_.step(gradient, multiplied, lr);
  }
  std::vector<float> factors() const override { return tuner_.factors(); }

 private:
  FactorTuner tuner_;
  float offset_;
};

class NormOnGpu final : public LearnedNorm {
 public:
  NormOnGpu(int64_t size, float offset) : tuner_(size), offset_(offset) {}
  void apply(std::span<float> value) override { tuner_.apply(value, offset_); }
  void step(std::span<const float> gradient, std::span<const float> value, double lr) override {
    tuner_.step(gradient, value, offset_, lr);
  }
  std::vector<float> factors() const override { return tuner_.factors(); }

 private:
  FactorTunerCuda tuner_;
  float offset_;
};

}  // namespace

std::unique_ptr<LearnedLayer> learned_layer(QuantizedLinear linear, IntegerPlace integers,
                                            std::function<QuantizedLinear()> read) {
  if (on_cuda()) return std::make_unique<LayerOnGpu>(std::move(linear), integers, std::move(read));
  return std::make_unique<LayerOnCpu>(std::move(linear), integers != IntegerPlace::kInFile,
                                      std::move(read));
}

std::unique_ptr<LearnedNorm> learned_norm(int64_t size, float offset) {
  if (on_cuda()) return std::make_unique<NormOnGpu>(size, offset);
  return std::make_unique<NormOnCpu>(size, offset);
}

int64_t learned_layer_bytes(int64_t out, int64_t in, const QuantScheme& scheme, Device device) {
  return device.is_cuda() ? ScaleTunerCuda::bytes(out, in, scheme)
                          : ScaleTuner::bytes(out, in, scheme);
}

int64_t integer_bytes(int64_t out, int64_t in, const QuantScheme& scheme) {
  return out * in + out * scheme.groups(in) * static_cast<int64_t>(sizeof(float) + sizeof(uint8_t));
}

}  // namespace signround
