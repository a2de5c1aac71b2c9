#include "signround/pipeline/sensitivity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "signround/base/error.h"
#include "signround/base/random.h"
#include "signround/eval/text_model.h"
#include "signround/model/load.h"
#include "signround/pipeline/distill.h"
#include "signround/quant/scale_start.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

constexpr int64_t kSamples = 64, kLength = 16;

class Sensitivity : public ::testing::Test {
 protected:
  Sensitivity()
      : checkpoint_(open_hf_checkpoint(testing::testdata() / "models" / "qwen3")),
        architecture_(read_architecture(*checkpoint_)) {
    for (int bits : {3, 4, 8, 16}) {
      QuantScheme scheme{.bits = bits, .group_size = 16};
      scheme.scale_dtype = DType::kF32;
      schemes_.push_back(scheme);
    }
    for (int64_t i = 0; i < architecture_.blocks; ++i) {
      layers_.emplace_back();
      for (const auto& param : architecture_.block(i).linear_params())
        layers_.back().push_back({.name = param.name,
                                  .scheme = schemes_[0],
                                  .out = param.out,
                                  .in = param.in,
                                  .dtype = DType::kF32});
    }
    PythonRandom random(uint64_t{7});
    for (int64_t s = 0; s < kSamples; ++s) {
      samples_.emplace_back();
      for (int64_t t = 0; t < kLength; ++t)
        samples_.back().push_back(
            static_cast<int32_t>(random.below(static_cast<uint64_t>(architecture_.vocab))));
    }
  }

  std::vector<SensitivityUnit> run(uint64_t seed = 1) {
    return measure_sensitivity(
        {.source = *checkpoint_,
         .architecture = architecture_,
         .layers = layers_,
         .samples = samples_,
         .masks = masks_,
         .bytes_of = [](const FormatLayer& l) { return l.out * l.in * l.scheme.bits / 8; }},
        {.schemes = schemes_, .samples = kSamples, .seed = seed}, [](int64_t, int64_t) {});
  }

  // The divergence of the model in which only these layers are rounded.
  double measured(const std::vector<std::string>& names, const QuantScheme& scheme) {
    auto layers = layers_;
    std::map<std::string, QuantizedLinear> rounded;
    for (auto& block : layers)
      for (auto& layer : block) {
        layer.scheme = scheme;
        if (std::find(names.begin(), names.end(), layer.name) == names.end()) {
          layer.scheme.bits = 16;
          continue;
        }
        const auto rows = read_linear(*checkpoint_, {layer.name, layer.out, layer.in, false});
        rounded[layer.name] = search_start(rows.data(), layer.out, layer.in, scheme, nullptr);
      }
    const auto targets = TextModel(*checkpoint_, DType::kF32).hidden_states(samples_);
    return distill({.source = *checkpoint_,
                    .architecture = architecture_,
                    .layers = layers,
                    .samples = samples_,
                    .masks = masks_,
                    .targets = targets,
                    .read = [&](const FormatLayer& layer) { return rounded.at(layer.name); }},
                   {.epochs = 1, .lr = 0, .batch = kSamples}, {})
        .kl_first;
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  Architecture architecture_;
  std::vector<QuantScheme> schemes_;
  std::vector<std::vector<FormatLayer>> layers_;
  std::vector<std::vector<int32_t>> samples_;
  TokenMasks masks_;
};

TEST_F(Sensitivity, UnitsAreWhatEnginesFuse) {
  const auto units = run();
  ASSERT_EQ(units.size(), static_cast<size_t>(4 * architecture_.blocks));
  EXPECT_EQ(units[0].layers, (std::vector<std::string>{"model.layers.0.self_attn.q_proj",
                                                       "model.layers.0.self_attn.k_proj",
                                                       "model.layers.0.self_attn.v_proj"}));
  int64_t weights = 0, all = 0;
  for (const auto& unit : units) {
    weights += unit.weights;
    ASSERT_EQ(unit.choices.size(), schemes_.size());
    EXPECT_EQ(unit.choices[1].bytes, unit.weights / 2);
    EXPECT_EQ(unit.choices[3].kl, 0) << "16 bits change nothing";
  }
  for (const auto& block : layers_)
    for (const auto& layer : block) all += layer.out * layer.in;
  EXPECT_EQ(weights, all);
}

// Summed over units, the estimate is good to about 1 / sqrt(samples) of itself and the measured
// divergences use other scales (no weights of inputs), so half and double would be seen.
TEST_F(Sensitivity, PredictsTheDivergenceOfEachUnit) {
  const auto units = run();
  for (const size_t choice : {size_t{1}, size_t{2}}) {
    double predicted = 0, found = 0;
    for (const auto& unit : units) {
      const double kl = measured(unit.layers, schemes_[choice]);
      EXPECT_GT(unit.choices[choice].kl, 0.3 * kl) << unit.layers[0];
      EXPECT_LT(unit.choices[choice].kl, 3 * kl) << unit.layers[0];
      predicted += unit.choices[choice].kl, found += kl;
    }
    EXPECT_NEAR(predicted / found, 1, 0.35) << schemes_[choice].bits << " bits";
  }
}

TEST_F(Sensitivity, FewerBitsCostMore) {
  for (const auto& unit : run())
    for (size_t c = 0; c + 1 < unit.choices.size(); ++c) {
      EXPECT_GT(unit.choices[c].kl, unit.choices[c + 1].kl) << unit.layers[0];
      EXPECT_GT(unit.choices[c].delta_loss, unit.choices[c + 1].delta_loss);
      if (c + 2 < unit.choices.size()) {
        EXPECT_GT(unit.choices[c].error_db, unit.choices[c + 1].error_db);
      }
    }
}

// What stands behind the only token that counts has no say.
TEST_F(Sensitivity, TokensThatDoNotCountHaveNoSay) {
  for (int64_t s = 0; s < kSamples; ++s) masks_.emplace_back(kLength, uint8_t{0});
  for (auto& mask : masks_) mask[5] = 1;
  schemes_.resize(2);
  const auto before = run();
  for (auto& sample : samples_)
    for (size_t t = 6; t < kLength; ++t) sample[t] = 0;
  const auto after = run();
  // The importance of inputs, and with it the scales, is over all tokens: not equal to the bit.
  double a = 0, b = 0;
  for (size_t u = 0; u < before.size(); ++u)
    a += before[u].choices[1].kl, b += after[u].choices[1].kl;
  EXPECT_NEAR(a / b, 1, 0.3);
  EXPECT_GT(a, 0);
}

TEST_F(Sensitivity, SurvivesItsFile) {
  const auto units = run();
  const auto again = units_from_json(nlohmann::ordered_json::parse(to_json(units).dump()), "f");
  ASSERT_EQ(again.size(), units.size());
  for (size_t u = 0; u < units.size(); ++u) {
    EXPECT_EQ(again[u].layers, units[u].layers);
    EXPECT_EQ(again[u].weights, units[u].weights);
    for (size_t c = 0; c < units[u].choices.size(); ++c) {
      EXPECT_EQ(again[u].choices[c].kl, units[u].choices[c].kl);
      EXPECT_EQ(again[u].choices[c].bytes, units[u].choices[c].bytes);
      EXPECT_EQ(again[u].choices[c].scheme.bits, units[u].choices[c].scheme.bits);
    }
  }
  EXPECT_THROW(units_from_json(nlohmann::ordered_json::parse(R"([{"layers": 3}])"), "f"), Error);
}

}  // namespace
}  // namespace signround
