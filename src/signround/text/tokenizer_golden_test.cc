// Every kind of tokenizer against what the reference (tokenizers 0.23.3) made of the same texts:
// testdata/tokenizers, written by scripts/peers/make_tokenizer_goldens.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "signround/testing/testdata.h"
#include "signround/text/tokenizer.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return std::move(text).str();
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(testing::testdata() / "tokenizers"))
    if (entry.path().extension() == ".json") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

class TokenizerGolden : public ::testing::TestWithParam<std::string> {
 protected:
  TokenizerGolden() {
    const fs::path base = testing::testdata() / "tokenizers" / GetParam();
    tokenizer_ = Tokenizer::from_json(read_file(base.string() + ".json"));
    std::istringstream lines(read_file(base.string() + ".jsonl"));
    for (std::string line; std::getline(lines, line);)
      goldens_.push_back(nlohmann::json::parse(line));
  }
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<nlohmann::json> goldens_;
};

TEST_P(TokenizerGolden, EncodesLikeTheReference) {
  ASSERT_GE(goldens_.size(), 20u);
  for (const auto& golden : goldens_) {
    const std::string text = golden["text"];
    EXPECT_EQ(tokenizer_->encode(text), golden["ids"].get<std::vector<int32_t>>()) << text;
    EXPECT_EQ(tokenizer_->encode(text, false), golden["plain"].get<std::vector<int32_t>>()) << text;
  }
}

TEST_P(TokenizerGolden, DecodesLikeTheReference) {
  for (const auto& golden : goldens_) {
    const std::vector<int32_t> ids = golden["ids"];
    EXPECT_EQ(tokenizer_->decode(ids), golden["decoded"].get<std::string>()) << golden["text"];
    EXPECT_EQ(tokenizer_->decode(ids, true), golden["skipped"].get<std::string>())
        << golden["text"];
  }
}

TEST_P(TokenizerGolden, StreamsWhatItDecodes) {
  for (const auto& golden : goldens_) {
    const std::vector<int32_t> ids = golden["ids"];
    StreamDecoder stream(*tokenizer_);
    std::string text;
    for (const int32_t id : ids) text += stream.push(id);
    text += stream.flush();
    EXPECT_EQ(text, golden["decoded"].get<std::string>()) << golden["text"];
  }
}

std::string test_name(const ::testing::TestParamInfo<std::string>& golden) {
  std::string name = golden.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerGolden, ::testing::ValuesIn(golden_names()), test_name);

}  // namespace
}  // namespace signround
