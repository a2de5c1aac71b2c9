#include "signround/pipeline/distill.h"

#include <gtest/gtest.h>

#include <cmath>

#include "signround/base/error.h"
#include "signround/base/random.h"
#include "signround/eval/text_model.h"
#include "signround/model/load.h"
#include "signround/model/scaled_checkpoint.h"
#include "signround/quant/rtn.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

constexpr int64_t kSamples = 4, kLength = 16;

// A model of two blocks rounded to 2 bits, and its own predictions as the target.
class Distill : public ::testing::Test {
 protected:
  Distill()
      : checkpoint_(open_hf_checkpoint(testing::testdata() / "models" / "qwen3")),
        architecture_(read_architecture(*checkpoint_)) {
    QuantScheme scheme;
    scheme.bits = 2;
    scheme.group_size = 16;
    scheme.scale_dtype = DType::kF32;
    for (int64_t i = 0; i < architecture_.blocks; ++i) {
      layers_.emplace_back();
      for (const auto& param : architecture_.block(i).linear_params()) {
        layers_.back().push_back({.name = param.name,
                                  .scheme = scheme,
                                  .out = param.out,
                                  .in = param.in,
                                  .dtype = DType::kF32});
        const auto rows = read_linear(*checkpoint_, param);
        rounded_[param.name] = rtn(rows.data(), param.out, param.in, scheme);
      }
    }
    PythonRandom random(uint64_t{7});
    for (int64_t s = 0; s < kSamples; ++s) {
      samples_.emplace_back();
      for (int64_t t = 0; t < kLength; ++t)
        samples_.back().push_back(
            static_cast<int32_t>(random.below(static_cast<uint64_t>(architecture_.vocab))));
    }
    targets_ = TextModel(*checkpoint_, DType::kF32).hidden_states(samples_);
  }

  DistillResult run(const DistillOptions& options) { return run(options, *checkpoint_); }
  DistillResult run(const DistillOptions& options, const Checkpoint& source) {
    return distill({.source = source,
                    .architecture = architecture_,
                    .layers = layers_,
                    .samples = samples_,
                    .masks = masks_,
                    .targets = targets_,
                    .read = [&](const FormatLayer& layer) { return rounded_.at(layer.name); }},
                   options, {});
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  Architecture architecture_;
  std::vector<std::vector<FormatLayer>> layers_;
  std::map<std::string, QuantizedLinear> rounded_;
  std::vector<std::vector<int32_t>> samples_;
  TokenMasks masks_;
  ActivationStream targets_;
};

TEST_F(Distill, BringsThePredictionsCloser) {
  const auto result = run({.epochs = 30, .lr = 0.01, .batch = 2});
  EXPECT_EQ(result.steps, 60);
  EXPECT_GT(result.kl_first, 0);
  EXPECT_LT(result.kl_last, 0.8 * result.kl_first);
}

TEST_F(Distill, UnroundedModelHasNoDivergence) {
  for (auto& [name, linear] : rounded_) {
    const auto rows = read_linear(*checkpoint_, {name, linear.out, linear.in, false});
    QuantScheme scheme = linear.scheme;
    scheme.bits = 8;
    scheme.group_size = 1;
    linear = rtn(rows.data(), linear.out, linear.in, scheme);
  }
  for (auto& layers : layers_)
    for (auto& layer : layers) layer.scheme = rounded_.at(layer.name).scheme;
  EXPECT_LT(run({.epochs = 1, .lr = 0, .batch = kSamples}).kl_first, 1e-9);
}

// Adam's first step is lr against the sign of the gradient. The sign must be that of the loss's own
// difference when the scale alone is moved by 1%, in both blocks and in layers at their beginning
// and end.
TEST_F(Distill, FirstStepGoesDownhillInEveryScale) {
  const DistillOptions options{.epochs = 1, .lr = 1e-3, .batch = kSamples};
  const auto learned = run(options);
  int checked = 0;
  for (const char* name : {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj",
                           "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.gate_proj"}) {
    QuantizedLinear& linear = rounded_.at(name);
    for (size_t k = 0; k < linear.scales.size(); k += 13) {
      const float scale = linear.scales[k];
      const auto loss_at = [&](float factor) {
        linear.scales[k] = scale * factor;
        const double loss = run({.epochs = 1, .lr = 0, .batch = kSamples}).kl_first;
        linear.scales[k] = scale;
        return loss;
      };
      const double slope = loss_at(1.01f) - loss_at(0.99f);
      // f32 activations: the loss, about 0.1, is good to 1e-7; flat places are left out.
      if (std::fabs(slope) < 2e-6) continue;
      ++checked;
      const double change = std::log(static_cast<double>(learned.scales.at(name)[k] / scale));
      EXPECT_NEAR(change, slope > 0 ? -1e-3 : 1e-3, 1e-6) << name << " scale " << k;
    }
  }
  EXPECT_GT(checked, 8);
}

// As above for norms: a factor of one element, in the first and the last norm and in those of heads.
TEST_F(Distill, FirstStepGoesDownhillInEveryNorm) {
  const auto learned = run({.epochs = 1, .lr = 1e-3, .batch = kSamples});
  int checked = 0;
  for (const char* name :
       {"model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_norm.weight",
        "model.layers.1.post_attention_layernorm.weight"}) {
    const auto& rows = learned.norms.at(name).rows;
    for (size_t k = 0; k < rows.size(); k += 5) {
      const auto loss_at = [&](float factor) {
        std::vector<float> one(rows.size(), 1.0f);
        one[k] = factor;
        const ScaledCheckpoint moved(*checkpoint_, {{name, {.rows = one, .columns = {}}}});
        return run({.epochs = 1, .lr = 0, .batch = kSamples}, moved).kl_first;
      };
      const double slope = loss_at(1.01f) - loss_at(0.99f);
      if (std::fabs(slope) < 2e-6) continue;
      ++checked;
      EXPECT_NEAR(std::log(static_cast<double>(rows[k])), slope > 0 ? -1e-3 : 1e-3, 1e-6)
          << name << " element " << k;
    }
  }
  EXPECT_GT(checked, 6);
}

TEST_F(Distill, ReadingIntegersAgainGivesTheSame) {
  const DistillOptions options{.epochs = 2, .lr = 0.01, .batch = 2};
  DistillOptions again = options;
  again.keep_integers = false;
  const auto kept = run(options), read = run(again);
  EXPECT_EQ(kept.scales, read.scales);
  EXPECT_EQ(kept.norms, read.norms);
}

TEST_F(Distill, NormsStayWhereTheyAreUnlessAsked) {
  EXPECT_TRUE(run({.epochs = 1, .lr = 1e-3, .batch = kSamples, .norms = false}).norms.empty());
}

TEST_F(Distill, TokensThatDoNotCountTeachNothing) {
  for (int64_t s = 0; s < kSamples; ++s) masks_.emplace_back(kLength, uint8_t{0});
  masks_[0][5] = 1;
  const auto one = run({.epochs = 1, .lr = 1e-3, .batch = kSamples});
  // Tokens behind the last one that counts are not seen by it.
  for (size_t t = 6; t < kLength; ++t) samples_[0][t] = 0;
  for (size_t s = 1; s < kSamples; ++s) samples_[s].assign(kLength, 1);
  targets_ = TextModel(*checkpoint_, DType::kF32).hidden_states(samples_);
  const auto same = run({.epochs = 1, .lr = 1e-3, .batch = kSamples});
  EXPECT_NEAR(one.kl_first, same.kl_first, 1e-7);
  masks_[0][5] = 0;
  EXPECT_THROW(run({.epochs = 1, .lr = 1e-3, .batch = kSamples}), Error);
}

TEST_F(Distill, RefusesBatchesThatAreLargerThanTheSamples) {
  EXPECT_THROW(run({.epochs = 1, .lr = 1e-3, .batch = kSamples + 1}), Error);
}

}  // namespace
}  // namespace signround
