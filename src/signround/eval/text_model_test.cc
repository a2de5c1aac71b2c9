#include "signround/eval/text_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

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

class GoldenModel : public ::testing::TestWithParam<std::string> {};

// Largest difference 1e-4 of the logits' range: f32 sums in another order, through two blocks.
TEST_P(GoldenModel, LogitsEqualTransformers) {
  const fs::path folder = testing::testdata() / "models" / GetParam();
  const auto golden =
      nlohmann::json::parse(read_text_file("test", folder / "golden.json", 1 << 20));
  const auto tokens = golden["tokens"].get<std::vector<int32_t>>();
  const auto want = golden["logits"].get<std::vector<std::vector<float>>>();
  const auto checkpoint = open_hf_checkpoint(folder);
  TextModel model(*checkpoint, DType::kF32);
  const ActivationStream states = model.hidden_states({tokens});
  const auto rows = static_cast<int64_t>(want.size()), hidden = model.architecture().hidden;
  const float* last = static_cast<const float*>(states.sample(0).data) +
                      (static_cast<int64_t>(tokens.size()) - rows) * hidden;
  const float* logits = model.logits(last, rows);
  float low = 1e30f, high = -1e30f, worst = 0;
  for (const auto& row : want)
    for (float v : row) low = std::min(low, v), high = std::max(high, v);
  for (int64_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < want[0].size(); ++c)
      worst = std::max(
          worst,
          std::abs(logits[r * static_cast<int64_t>(want[0].size()) + static_cast<int64_t>(c)] -
                   want[static_cast<size_t>(r)][c]));
  EXPECT_GT(high - low, 1);
  EXPECT_LT(worst, 1e-4f * (high - low));
}

INSTANTIATE_TEST_SUITE_P(Llama, GoldenModel, ::testing::ValuesIn(golden_models()),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(TextModel, HasAGoldenForEveryModelTypeOfTheFamily) { EXPECT_GE(golden_models().size(), 12u); }

// Behind the original length transformers takes the other factors, which this program does not have.
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
