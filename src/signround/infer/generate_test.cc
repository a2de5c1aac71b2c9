#include "signround/infer/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "signround/testing/expect_error.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

struct TinyModel {
  std::unique_ptr<Checkpoint> checkpoint =
      open_hf_checkpoint(testing::testdata() / "models" / "qwen3");
  Generator generator{*checkpoint, DType::kF32};
};

const std::vector<int32_t> kPrompt = {3, 17, 42, 5};

// The cache gives the same logits as reading everything again, but for f32 sums of another order;
// the largest logit is the same unless two are that close, which the test rules out.
TEST(Generator, GreedyTokensAreTheMostLikelyOnesStepByStep) {
  TinyModel model;
  const auto tokens = model.generator.generate(kPrompt, {.max_tokens = 12});
  ASSERT_EQ(tokens.size(), 12u);
  std::vector<int32_t> ids = kPrompt;
  for (int32_t token : tokens) {
    auto logits = model.generator.next_logits(ids);
    EXPECT_EQ(token, std::max_element(logits.begin(), logits.end()) - logits.begin())
        << "behind " << ids.size() << " tokens";
    std::partial_sort(logits.begin(), logits.begin() + 2, logits.end(), std::greater<>());
    EXPECT_GT(logits[0] - logits[1], 1e-4f) << "a tie decides nothing";
    ids.push_back(token);
  }
}

TEST(Generator, StopsAtAStopTokenWithoutGivingIt) {
  TinyModel model;
  const auto all = model.generator.generate(kPrompt, {.max_tokens = 12});
  const auto until = model.generator.generate(kPrompt, {.max_tokens = 12, .stop = {all[5]}});
  const auto end = std::find(all.begin(), all.end(), all[5]);
  EXPECT_EQ(until, std::vector<int32_t>(all.begin(), end));
}

TEST(Generator, ShowsEachTokenAndStopsWhenTold) {
  TinyModel model;
  std::vector<int32_t> seen;
  const auto tokens = model.generator.generate(kPrompt, {.max_tokens = 12}, [&](int32_t token) {
    seen.push_back(token);
    return seen.size() < 3;
  });
  EXPECT_EQ(seen.size(), 3u);
  EXPECT_EQ(tokens, seen);
}

TEST(Generator, TheSeedDecidesTheDraws) {
  TinyModel model;
  const auto draw = [&](uint64_t seed) {
    return model.generator.generate(kPrompt, {.max_tokens = 16, .temperature = 1, .seed = seed});
  };
  EXPECT_EQ(draw(1), draw(1));
  EXPECT_NE(draw(1), draw(2));
}

TEST(Generator, RefusesPromptsWithoutTokensAndTokensThatAreNone) {
  TinyModel model;
  testing::expect_error(ErrorKind::kInvalidArgument, "no tokens",
                        [&] { model.generator.generate({}, {}); });
  testing::expect_error(ErrorKind::kInvalidArgument, "token 64 is outside",
                        [&] { model.generator.generate({64}, {}); });
  testing::expect_error(ErrorKind::kInvalidArgument, "token -1 is outside",
                        [&] { model.generator.next_logits({-1}); });
}

// Logits of given probabilities.
std::vector<float> logits_of(const std::vector<double>& p) {
  std::vector<float> logits;
  for (double v : p) logits.push_back(static_cast<float>(std::log(v)) + 5);
  return logits;
}

std::vector<double> shares(const std::vector<float>& logits, SampleOptions options) {
  constexpr int kDraws = 4000;
  PythonRandom random(11);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; ++i)
    ++counts[static_cast<size_t>(
        sample_token(logits.data(), static_cast<int64_t>(logits.size()), options, random))];
  std::vector<double> share;
  for (int count : counts) share.push_back(static_cast<double>(count) / kDraws);
  return share;
}

// Five standard errors of a share of 4000 draws are at most 5 * 0.5 / sqrt(4000).
constexpr double kFiveSigma = 0.04;

TEST(SampleToken, DrawsWithTheProbabilitiesOfTheLogits) {
  const auto found = shares(logits_of({0.2, 0.7, 0.1}), {.temperature = 1});
  EXPECT_NEAR(found[0], 0.2, kFiveSigma);
  EXPECT_NEAR(found[1], 0.7, kFiveSigma);
  EXPECT_NEAR(found[2], 0.1, kFiveSigma);
}

TEST(SampleToken, TemperatureIsAPowerOfTheProbabilities) {
  // p^(1/2): 0.5 and 0.25 become 0.7071 : 0.5.
  const auto found = shares(logits_of({0.5, 0.25}), {.temperature = 2});
  EXPECT_NEAR(found[0], 0.7071 / 1.2071, kFiveSigma);
}

TEST(SampleToken, TopPKeepsTheFewestTokensThatReachIt) {
  const auto logits = logits_of({0.15, 0.5, 0.05, 0.3});
  const auto two = shares(logits, {.temperature = 1, .top_p = 0.75});
  EXPECT_NEAR(two[1], 0.5 / 0.8, kFiveSigma);
  EXPECT_EQ(two[0] + two[2], 0);
  EXPECT_EQ(shares(logits, {.temperature = 1, .top_p = 0})[1], 1);
  EXPECT_GT(shares(logits, {.temperature = 1, .top_p = 1})[2], 0);
}

TEST(SampleToken, RefusesLogitsThatAreNotFinite) {
  const std::vector<float> logits = {0, std::numeric_limits<float>::infinity()};
  PythonRandom random(1);
  testing::expect_error(ErrorKind::kInternal, "not finite",
                        [&] { sample_token(logits.data(), 2, {}, random); });
}

}  // namespace
}  // namespace signround
