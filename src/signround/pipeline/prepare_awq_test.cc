#include "signround/pipeline/prepare_awq.h"

#include <gtest/gtest.h>

#include <cmath>

#include "signround/base/random.h"
#include "signround/eval/text_model.h"
#include "signround/io/safetensors.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::TempDir;

constexpr int64_t kSamples = 4, kLength = 16;

// A model with grouped heads and biases, all its layers to 2 bits.
class PrepareAwq : public ::testing::TestWithParam<const char*> {
 protected:
  PrepareAwq() : checkpoint_(open_hf_checkpoint(testing::testdata() / "models" / GetParam())) {
    plan_.architecture = read_architecture(*checkpoint_);
    plan_.nsamples = kSamples, plan_.seqlen = kLength, plan_.micro_batch = 3;
    QuantScheme scheme;
    scheme.bits = 2;
    scheme.group_size = 16;
    for (int64_t i = 0; i < plan_.architecture.blocks; ++i) {
      plan_.blocks.push_back(i);
      plan_.layers.emplace_back();
      for (const auto& param : plan_.architecture.block(i).linear_params())
        plan_.layers.back().push_back({.name = param.name,
                                       .scheme = scheme,
                                       .out = param.out,
                                       .in = param.in,
                                       .dtype = DType::kF32});
    }
    PythonRandom random(uint64_t{7});
    for (int64_t s = 0; s < kSamples; ++s) {
      samples_.emplace_back();
      for (int64_t t = 0; t < kLength; ++t)
        samples_.back().push_back(
            static_cast<int32_t>(random.below(static_cast<uint64_t>(plan_.architecture.vocab))));
    }
  }

  CheckpointFactors prepare() { return prepare_awq(*checkpoint_, plan_, samples_, {}, gains()); }
  std::function<void(int64_t, double)> gains() {
    return [this](int64_t block, double gain) {
      EXPECT_EQ(block, static_cast<int64_t>(gains_.size()));
      gains_.push_back(gain);
    };
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  Plan plan_;
  std::vector<std::vector<int32_t>> samples_;
  std::vector<double> gains_;
};

// Every factor is taken out again in front: the model computes the same, up to f32's rounding.
TEST_P(PrepareAwq, TheModelStaysWhatItIs) {
  const CheckpointFactors factors = prepare();
  ASSERT_FALSE(factors.empty());
  const ScaledCheckpoint scaled(*checkpoint_, factors);
  const ActivationStream before = TextModel(*checkpoint_, DType::kF32).hidden_states(samples_),
                         after = TextModel(scaled, DType::kF32).hidden_states(samples_);
  const int64_t n = kLength * plan_.architecture.hidden;
  std::vector<float> a(static_cast<size_t>(n)), b(a.size());
  double largest = 0, difference = 0;
  for (int64_t s = 0; s < kSamples; ++s) {
    before.gather(s, 1, a.data());
    after.gather(s, 1, b.data());
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max<double>(largest, std::fabs(a[i]));
      difference = std::max<double>(difference, std::fabs(a[i] - b[i]));
    }
  }
  EXPECT_LT(difference, 1e-4 * largest);  // as the logits against transformers'
}

TEST_P(PrepareAwq, NoBlockIsWorseThanPlainRounding) {
  prepare();
  ASSERT_EQ(gains_.size(), static_cast<size_t>(plan_.architecture.blocks));
  for (const double gain : gains_) EXPECT_LT(gain, 0);
}

INSTANTIATE_TEST_SUITE_P(Models, PrepareAwq, ::testing::Values("qwen2", "llama31"),
                         [](const auto& test) { return std::string(test.param); });

TEST(PrepareAwqFile, GivesFactorsBack) {
  const TempDir dir;
  const CheckpointFactors factors = {
      {"a.weight", {.rows = {1, 2}, .columns = {3, 4, 5}}},
      {"norm.weight", {.rows = {0.5f, 0.25f}, .columns = {}, .offset = 1}}};
  write_factors(dir / "f.safetensors", factors);
  EXPECT_EQ(read_factors(dir / "f.safetensors"), factors);
  write_factors(dir / "none.safetensors", {});
  EXPECT_TRUE(read_factors(dir / "none.safetensors").empty());
}

TEST(PrepareAwqFile, OfAnotherKindIsRefused) {
  const TempDir dir;
  SafetensorsWriter file =
      SafetensorsWriter::create(dir / "f.safetensors", {{"a.weight", DType::kF32, {1}}});
  const float one[] = {1};
  file.write("a.weight", std::as_bytes(std::span(one)));
  file.finish();
  expect_error(ErrorKind::kCorruptFile, "a.weight", [&] { read_factors(dir / "f.safetensors"); });
}

}  // namespace
}  // namespace signround
