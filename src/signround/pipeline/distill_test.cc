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

constexpr Device kCuda{Device::Kind::kCuda, 0};

// A model of two blocks rounded to 2 bits, and its own predictions as the target; the pass runs on
// the CPU, or on a GPU where there is one (or one is emulated).
class Distill : public ::testing::TestWithParam<Device> {
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
  DistillResult run(DistillOptions options, const Checkpoint& source) {
    options.device = device_;
    return distill({.source = source,
                    .architecture = architecture_,
                    .layers = layers_,
                    .samples = samples_,
                    .masks = masks_,
                    .targets = targets_,
                    .read = [&](const FormatLayer& layer) { return rounded_.at(layer.name); }},
                   options, {});
  }

  void SetUp() override {
    if (GetParam().is_cuda() && why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  }

  Device device_ = GetParam();
  std::unique_ptr<Checkpoint> checkpoint_;
  Architecture architecture_;
  std::vector<std::vector<FormatLayer>> layers_;
  std::map<std::string, QuantizedLinear> rounded_;
  std::vector<std::vector<int32_t>> samples_;
  TokenMasks masks_;
  ActivationStream targets_;
};

TEST_P(Distill, BringsThePredictionsCloser) {
  const auto result = run({.epochs = 30, .lr = 0.01, .batch = 2});
  EXPECT_EQ(result.steps, 60);
  EXPECT_GT(result.kl_first, 0);
  EXPECT_LT(result.kl_last, 0.8 * result.kl_first);
}

TEST_P(Distill, UnroundedModelHasNoDivergence) {
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
TEST_P(Distill, FirstStepGoesDownhillInEveryScale) {
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

// As above for norms: a factor of one element, in the first and the last norm and in those of
// heads.
TEST_P(Distill, FirstStepGoesDownhillInEveryNorm) {
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

TEST_P(Distill, ReadingIntegersAgainGivesTheSame) {
  const DistillOptions options{.epochs = 2, .lr = 0.01, .batch = 2};
  DistillOptions again = options;
  again.integers = IntegerPlace::kInFile;
  const auto kept = run(options), read = run(again);
  EXPECT_EQ(kept.scales, read.scales);
  EXPECT_EQ(kept.norms, read.norms);
  again.integers = IntegerPlace::kInHost;
  const auto uploaded = run(again);
  EXPECT_EQ(kept.scales, uploaded.scales);
  EXPECT_EQ(kept.norms, uploaded.norms);
}

TEST_P(Distill, LayersThatAreNotRoundedStayWhereverTheyWait) {
  for (auto& layer : layers_[0]) layer.scheme.bits = 16;  // no block of it is stepped
  layers_[1][2].scheme.bits = 16;
  DistillOptions options{.epochs = 2, .lr = 0.01, .batch = 2};
  const auto kept = run(options);
  EXPECT_EQ(kept.scales.size(), layers_[1].size() - 1);
  EXPECT_FALSE(kept.scales.contains(layers_[1][2].name));
  EXPECT_FALSE(kept.norms.contains("model.layers.0.input_layernorm.weight"));
  EXPECT_LT(kept.kl_last, kept.kl_first);
  options.integers = IntegerPlace::kInFile;
  const auto read = run(options);
  EXPECT_EQ(kept.scales, read.scales);
  EXPECT_EQ(kept.kl_last, read.kl_last);
}

TEST_P(Distill, LearnsInBf16) {
  const auto result = run({.epochs = 6, .lr = 0.01, .batch = 2, .compute = DType::kBF16});
  EXPECT_LT(result.kl_last, 0.95 * result.kl_first);
}

// Adam's first step is lr against the sign of the gradient, which is noise where a loss is flat:
// the second step's loss hardly shows that.
TEST_P(Distill, TakesTheFirstStepOfTheCpu) {
  for (auto& masks = masks_; masks.size() < kSamples;) {
    masks.emplace_back(kLength, uint8_t{1});
    masks.back()[masks.size()] = 0;
  }
  layers_[0][1].scheme.bits = 16;
  const DistillOptions options{.epochs = 1, .lr = 1e-3, .batch = kSamples};
  const auto found = run(options);
  device_ = {};
  const auto want = run(options);
  EXPECT_NEAR(found.kl_first, want.kl_first, 1e-5 * want.kl_first);
  int64_t count = 0, different = 0;
  const auto compare = [&](const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t k = 0; k < a.size(); ++k)
      ++count, different += !(std::fabs(a[k] - b[k]) <= 1e-6f * std::fabs(b[k]));
  };
  ASSERT_EQ(found.scales.size(), want.scales.size());
  for (const auto& [name, scales] : want.scales) compare(found.scales.at(name), scales);
  ASSERT_EQ(found.norms.size(), want.norms.size());
  for (const auto& [name, factors] : want.norms) {
    EXPECT_EQ(found.norms.at(name).offset, factors.offset);
    compare(found.norms.at(name).rows, factors.rows);
  }
  EXPECT_GT(count, 500);
  EXPECT_LE(different, count / 50);
  const DistillOptions twice{.epochs = 1, .lr = 0.02, .batch = kSamples / 2};
  const double second = run(twice).kl_last;
  device_ = GetParam();
  EXPECT_NEAR(run(twice).kl_last, second, 1e-3 * second);
}

TEST_P(Distill, TargetsMayWaitOnAGpu) {
  if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  const DistillOptions options{.epochs = 1, .lr = 1e-3, .batch = 2};
  const auto want = run(options);
  ActivationStream there(kSamples, kLength, architecture_.hidden, DType::kF32, {}, kCuda);
  {
    const DeviceScope scope(kCuda);
    Buffer rows(kSamples * kLength * architecture_.hidden * 4, kCuda);
    targets_.gather(int64_t{0}, kSamples, rows.as<float>());
    there.scatter(0, kSamples, rows.as<float>());
    synchronize();
  }
  targets_ = std::move(there);
  const auto found = run(options);
  EXPECT_EQ(found.scales, want.scales);
  EXPECT_EQ(found.kl_last, want.kl_last);
}

TEST_P(Distill, NormsStayWhereTheyAreUnlessAsked) {
  DistillOptions options{.epochs = 1, .lr = 0.02, .batch = 2, .norms = false};
  const auto without = run(options);
  EXPECT_TRUE(without.norms.empty());
  // The second step sees what the first one made of them.
  options.norms = true;
  const auto with = run(options);
  EXPECT_EQ(with.kl_first, without.kl_first);
  EXPECT_GT(std::fabs(with.kl_last - without.kl_last), 0.01 * without.kl_last);
}

TEST_P(Distill, TokensThatDoNotCountTeachNothing) {
  for (int64_t s = 0; s < kSamples; ++s) masks_.emplace_back(kLength, uint8_t{0});
  masks_[0][5] = 1;
  const auto one = run({.epochs = 1, .lr = 1e-3, .batch = kSamples});
  // Tokens behind the last one that counts are not seen by it.
  for (size_t t = 6; t < kLength; ++t) samples_[0][t] = 0;
  for (size_t s = 1; s < kSamples; ++s) samples_[s].assign(kLength, 1);
  targets_ = TextModel(*checkpoint_, DType::kF32).hidden_states(samples_);
  const auto same = run({.epochs = 1, .lr = 1e-3, .batch = kSamples});
  EXPECT_NEAR(one.kl_first, same.kl_first, 1e-7);
  int64_t count = 0, different = 0;  // where the loss is flat, noise decides
  for (const auto& [name, scales] : one.scales)
    for (size_t k = 0; k < scales.size(); ++k)
      ++count, different += scales[k] != same.scales.at(name)[k];
  EXPECT_LE(different, count / 50);
  masks_[0][5] = 0;
  EXPECT_THROW(run({.epochs = 1, .lr = 1e-3, .batch = kSamples}), Error);
}

TEST_P(Distill, RefusesBatchesThatAreLargerThanTheSamples) {
  EXPECT_THROW(run({.epochs = 1, .lr = 1e-3, .batch = kSamples + 1}), Error);
}

INSTANTIATE_TEST_SUITE_P(Devices, Distill, ::testing::Values(Device{}, kCuda),
                         [](const auto& param) {
                           return std::string(param.param.is_cuda() ? "cuda" : "cpu");
                         });

}  // namespace
}  // namespace signround
