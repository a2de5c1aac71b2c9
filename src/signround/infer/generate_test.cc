#include "signround/infer/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "signround/formats/decoded_checkpoint.h"
#include "signround/infer/device_weights.h"
#include "signround/quant/rtn.h"
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

// ---- a GPU, where there is one (or one is emulated) ----
const Device kGpu{Device::Kind::kCuda, 0};

// A checkpoint with its linear layers rounded, as a file of packed ones would show them.
class RoundedModel : public QuantizedCheckpoint {
 public:
  RoundedModel(std::unique_ptr<Checkpoint> inner,
               const std::function<QuantScheme(std::string_view)>& scheme)
      : inner_(std::move(inner)) {
    source_ = inner_->source();
    config_ = inner_->config();
    set_tensors({inner_->tensors().begin(), inner_->tensors().end()});
    for (const TensorInfo& t : inner_->tensors()) {
      if (t.name.find("_proj.weight") == std::string::npos) continue;
      const std::string name = t.name.substr(0, t.name.size() - 7);
      const QuantizedLinear q =
          rtn(inner_->read_all_f32(t.name).data(), t.shape[0], t.shape[1], scheme(name));
      views_.push_back({name, q.scheme, Packing::kGptqV2, q.out, q.in});
      linears_.push_back(q);
    }
  }
  const nlohmann::ordered_json& quantization_config() const override { return section_; }
  std::span<const QuantizedView> layers() const override { return views_; }
  std::span<const std::string> notes() const override { return {}; }
  const QuantizedView* quantized(std::string_view layer) const override {
    for (const QuantizedView& view : views_)
      if (view.name == layer) return &view;
    return nullptr;
  }
  DecodedLinear decode(std::string_view layer) const override {
    DecodedLinear decoded{
        linears_.at(static_cast<size_t>(quantized(layer) - views_.data())), {}, 0, false};
    if (!act_order.empty() && layer.ends_with(act_order))
      for (int64_t i = 0; i < decoded.linear.in; ++i)
        decoded.group_of.push_back(static_cast<int32_t>(i / decoded.linear.scheme.group_size));
    return decoded;
  }
  std::string act_order;  // layers of names that end so have their groups named one by one

  std::span<const std::byte> bytes(std::string_view name,
                                   std::vector<std::byte>& scratch) const override {
    return inner_->bytes(name, scratch);
  }
  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override {
    const auto* view =
        name.ends_with(".weight") ? quantized(name.substr(0, name.size() - 7)) : nullptr;
    if (view == nullptr) return inner_->read_f32(name, row, rows, out);
    const QuantizedLinear& q = linears_[static_cast<size_t>(view - views_.data())];
    for (int64_t r = 0; r < rows; ++r) dequantize_row(q, row + r, out + r * q.in);
  }
  void release(std::string_view name) const override { inner_->release(name); }
  std::vector<ExtraFile> extra_files() const override { return {}; }
  int64_t bytes_on_disk() const override { return 0; }

 private:
  std::unique_ptr<Checkpoint> inner_;
  nlohmann::ordered_json section_;
  std::vector<QuantizedView> views_;
  std::vector<QuantizedLinear> linears_;
};

std::unique_ptr<RoundedModel> rounded_model(const std::string& name) {
  return std::make_unique<RoundedModel>(
      open_hf_checkpoint(testing::testdata() / "models" / name), [](std::string_view layer) {
        QuantScheme scheme{.bits = 4, .group_size = 16, .symmetry = Symmetry::kAsym};
        if (layer.ends_with("k_proj")) scheme.bits = 8;  // q, k and v are three packed weights then
        if (layer.ends_with("o_proj")) scheme.scale_dtype = DType::kF32;  // stays dense
        if (layer.ends_with("down_proj")) scheme.group_size = 32, scheme.bits = 3;
        return scheme;
      });
}

float range_of(const std::vector<float>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return *high - *low;
}

// Logits behind every beginning of a text that a GPU went on with, against those of the CPU in f32;
// each token that it chose is the most likely one but for twice that. `relative`: of the logits'
// range. f32: sums in another order. bf16, 2^-9 of each value: in a block the inputs of four
// products, three of attention's and its weights, and four weights; in the head two. Two blocks
// make 26 roundings in a row, and they are as good as random.
void expect_like_the_cpu(const Checkpoint& checkpoint, DType compute, int64_t prompt_rows) {
  const float relative = compute == DType::kF32 ? 1e-4f : 26 * 0x1p-9f;
  Generator host(checkpoint, DType::kF32), there(checkpoint, compute, kGpu);
  there.set_prompt_rows(prompt_rows);
  std::vector<int32_t> ids = kPrompt;
  for (int32_t i = 0; i < 14; ++i) ids.push_back((i * 29 + 7) % 64);
  const auto tokens = there.generate(ids, {.max_tokens = 6});
  ASSERT_EQ(tokens.size(), 6u);
  EXPECT_EQ(there.generate(ids, {.max_tokens = 6}), tokens);
  EXPECT_GT(there.times().prompt_seconds, 0);
  EXPECT_GT(there.times().seconds_per_token, 0);
  for (const int32_t token : tokens) {
    const auto want = host.next_logits(ids), found = there.next_logits(ids);
    const float most = relative * range_of(want);
    ASSERT_EQ(found.size(), want.size());
    for (size_t v = 0; v < want.size(); ++v) ASSERT_NEAR(found[v], want[v], most) << "token " << v;
    EXPECT_GE(want[static_cast<size_t>(token)],
              *std::max_element(want.begin(), want.end()) - 2 * most);
    ids.push_back(token);
  }
}

class OneGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  }
};

class OnAGpu : public OneGpu, public ::testing::WithParamInterface<std::string> {};

TEST_P(OnAGpu, ADenseModelWritesWhatTheCpuWrites) {
  const auto checkpoint = open_hf_checkpoint(testing::testdata() / "models" / GetParam());
  for (const DType compute : {DType::kF32, DType::kBF16})
    expect_like_the_cpu(*checkpoint, compute, 2048);
  expect_like_the_cpu(*checkpoint, DType::kF32, 7);
}

TEST_P(OnAGpu, APackedModelWritesWhatTheCpuWrites) {
  const auto checkpoint = rounded_model(GetParam());
  for (const int64_t prompt_rows : {2048, 7})
    expect_like_the_cpu(*checkpoint, DType::kBF16, prompt_rows);
  expect_like_the_cpu(*checkpoint, DType::kF32, 2048);
}

INSTANTIATE_TEST_SUITE_P(Models, OnAGpu, ::testing::Values("qwen3", "llama-bias", "qwen2-window"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_F(OneGpu, LayersStayPackedWhereTheyCan) {
  const auto checkpoint = rounded_model("qwen3");
  const Graph graph = read_architecture(*checkpoint).block(0);
  const auto weights = GenerationWeights(*checkpoint, DType::kBF16, kGpu).load(graph);
  const auto packed = [&](size_t group) { return weights->group(group).packed.size(); };
  EXPECT_EQ(packed(0), 3u);  // q, k, v
  EXPECT_EQ(packed(1), 0u);  // o
  EXPECT_EQ(packed(2), 1u);  // gate and up in one
  EXPECT_EQ(packed(3), 1u);  // down
  EXPECT_EQ(weights->group(2).weight.bytes(), 0);
  EXPECT_EQ(weights->group(2).packed[0].weight.spec().out, weights->group(2).out);
  EXPECT_GT(weights->group(1).weight.bytes(), 0);
  checkpoint->act_order = "up_proj";
  const auto ordered = GenerationWeights(*checkpoint, DType::kBF16, kGpu).load(graph);
  EXPECT_TRUE(ordered->group(2).packed.empty());
  EXPECT_EQ(ordered->group(3).packed.size(), 1u);
  // A block of the same shape behind it, of which other layers are packed.
  checkpoint->act_order = "1.mlp.up_proj";
  GenerationWeights both(*checkpoint, DType::kBF16, kGpu);
  EXPECT_EQ(both.load(graph)->group(2).packed.size(), 1u);
  EXPECT_TRUE(both.load(read_architecture(*checkpoint).block(1))->group(2).packed.empty());
  const auto exact = GenerationWeights(*checkpoint, DType::kF32, kGpu).load(graph);
  EXPECT_TRUE(exact->group(0).packed.empty());
}

TEST_F(OneGpu, TheSeedDecidesTheDraws) {
  const auto checkpoint = open_hf_checkpoint(testing::testdata() / "models" / "qwen3");
  Generator host(*checkpoint, DType::kF32), there(*checkpoint, DType::kF32, kGpu);
  const SampleOptions options{.max_tokens = 8, .temperature = 1, .seed = 3};
  EXPECT_EQ(there.generate(kPrompt, options), host.generate(kPrompt, options));
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
