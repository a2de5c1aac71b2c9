#include "signround/eval/text_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "signround/eval/perplexity.h"
#include "signround/io/file.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> golden_models() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(testing::testdata() / "models"))
    if (fs::exists(entry.path() / "golden.json")) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

// The CPU, and a GPU where there is one (or one is emulated).
std::vector<Device> devices() {
  std::vector<Device> all = {{}};
  if (why_no_cuda() == nullptr) all.push_back({Device::Kind::kCuda, 0});
  return all;
}

std::vector<float> logits_of(TextModel& model, const ActivationStream& states, int64_t sample,
                             int64_t first, int64_t rows, Device device) {
  const DeviceScope scope(device);
  std::vector<float> logits(static_cast<size_t>(rows * model.architecture().vocab));
  copy_from_current(logits.data(), model.logits(states, sample, first, rows),
                    static_cast<int64_t>(logits.size()) * 4);
  return logits;
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i)
    worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

float range_of(const std::vector<float>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return *high - *low;
}

class GoldenModel : public ::testing::TestWithParam<std::string> {};

// Largest difference 1e-4 of the logits' range: f32 sums in another order, through two blocks.
TEST_P(GoldenModel, LogitsEqualTransformers) {
  const fs::path folder = testing::testdata() / "models" / GetParam();
  const auto golden =
      nlohmann::json::parse(read_text_file("test", folder / "golden.json", 1 << 20));
  const auto tokens = golden["tokens"].get<std::vector<int32_t>>();
  std::vector<float> want;
  int64_t rows = 0;
  for (const auto& row : golden["logits"].get<std::vector<std::vector<float>>>())
    want.insert(want.end(), row.begin(), row.end()), ++rows;
  EXPECT_GT(range_of(want), 1);
  const auto checkpoint = open_hf_checkpoint(folder);
  for (const Device device : devices()) {
    TextModel model(*checkpoint, DType::kF32, device);
    const ActivationStream states = model.hidden_states({tokens});
    EXPECT_EQ(states.device(), device);
    const auto found =
        logits_of(model, states, 0, static_cast<int64_t>(tokens.size()) - rows, rows, device);
    EXPECT_LT(largest_difference(found, want), 1e-4f * range_of(want)) << name_of(device);
  }
}

INSTANTIATE_TEST_SUITE_P(Llama, GoldenModel, ::testing::ValuesIn(golden_models()),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(TextModel, HasAGoldenForEveryModelTypeOfTheFamily) { EXPECT_GE(golden_models().size(), 12u); }

std::vector<std::vector<int32_t>> some_sequences(int64_t count, int64_t length, int64_t vocab) {
  std::vector<std::vector<int32_t>> all(static_cast<size_t>(count));
  uint64_t state = 5;
  for (auto& ids : all)
    for (int64_t t = 0; t < length; ++t) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      ids.push_back(static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab)));
    }
  return all;
}

// Each product of two blocks and the head rounds its inputs to bf16, 2^-9 of each: about a dozen
// roundings in a row that are as good as random.
TEST(TextModel, AGpuReadsWhatTheCpuReads) {
  if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  const Device cuda{Device::Kind::kCuda, 0};
  const auto checkpoint = open_hf_checkpoint(testing::testdata() / "models" / "qwen3");
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    TextModel host(*checkpoint, compute), there(*checkpoint, compute, cuda);
    const auto sequences = some_sequences(3, 20, host.architecture().vocab);
    const ActivationStream want = host.hidden_states(sequences),
                           found = there.hidden_states(sequences);
    const float tolerance = compute == DType::kF32 ? 1e-4f : 12 * 0x1p-9f;
    for (int64_t s = 0; s < 3; ++s)
      for (const int64_t first : {int64_t{0}, int64_t{9}}) {
        const auto expected = logits_of(host, want, s, first, 11, {});
        const float most = tolerance * range_of(expected);
        EXPECT_LT(largest_difference(logits_of(there, found, s, first, 11, cuda), expected), most);
        // States that did not fit there wait in the host's memory.
        EXPECT_LT(largest_difference(logits_of(there, want, s, first, 11, cuda), expected), most);
      }
  }
}

// Means over 76 positions of what single rows say; those differ by at most twice the logits'
// difference above, of a range of less than 20.
TEST(Evaluate, AGpuMeasuresWhatTheCpuMeasures) {
  if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  const auto model = open_hf_checkpoint(testing::testdata() / "models" / "qwen2"),
             original = open_hf_checkpoint(testing::testdata() / "models" / "qwen3");
  const auto chunks = some_sequences(4, 20, 64);
  const auto measure = [&](const Checkpoint* reference, Device device) {
    return evaluate(*model, reference, chunks, {.device = device});
  };
  const Device cuda{Device::Kind::kCuda, 0};
  const EvalResult host = measure(original.get(), {}), there = measure(original.get(), cuda);
  EXPECT_EQ(host.perplexity.tokens, 4 * 19);
  EXPECT_EQ(there.perplexity.tokens, 4 * 19);
  constexpr double kNoise = 2 * 20 * 1e-4;
  const auto expect_near = [](double a, double b, double relative) {
    EXPECT_NEAR(a, b, relative * std::abs(b));
  };
  expect_near(there.perplexity.value, host.perplexity.value, kNoise);
  expect_near(there.reference_perplexity.value, host.reference_perplexity.value, kNoise);
  EXPECT_GT(host.kl.mean, 0.1);
  EXPECT_NEAR(there.kl.mean, host.kl.mean, kNoise);
  EXPECT_NEAR(there.kl.max, host.kl.max, kNoise);
  EXPECT_NEAR(there.kl.median, host.kl.median, kNoise);
  EXPECT_EQ(there.kl.same_top, host.kl.same_top);
  expect_near(measure(nullptr, cuda).perplexity.value, measure(nullptr, {}).perplexity.value,
              kNoise);
  // A model has no divergence from itself, to the bit.
  EXPECT_EQ(evaluate(*model, model.get(), chunks, {.device = cuda}).kl.max, 0);
}

// Behind the original length transformers takes the other factors, which this program does not
// have.
TEST(TextModel, LongRopeIsRightUpToTheOriginalLength) {
  const auto longest = [](const char* name) {
    return read_architecture(*open_hf_checkpoint(testing::testdata() / "models" / name))
        .max_position;
  };
  EXPECT_EQ(longest("llama-longrope"), 64);
  EXPECT_EQ(longest("llama-yarn"), 256) << "one set of angles for all of its length";
}

}  // namespace
}  // namespace signround
