#include "signround/text/tokenizer_sources.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "signround/base/error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::string varint(uint64_t v) {
  std::string out;
  for (; v >= 128; v >>= 7) out += static_cast<char>(v | 128);
  return out + static_cast<char>(v);
}
std::string number(int field, uint64_t v) {
  return varint(static_cast<uint64_t>(field) << 3) + varint(v);
}
std::string bytes(int field, const std::string& v) {
  return varint(static_cast<uint64_t>(field) << 3 | 2) + varint(v.size()) + v;
}
std::string piece(const std::string& text, float score, uint64_t type) {
  std::string real(4, '\0');
  std::memcpy(real.data(), &score, 4);
  return bytes(1, bytes(1, text) + varint(2 << 3 | 5) + real + number(3, type));
}

// Tokens <unk> <s> </s>, then as given, then the 256 bytes.
std::string sentencepiece(uint64_t model_type,
                          const std::vector<std::pair<std::string, float>>& tokens,
                          bool byte_fallback) {
  std::string file = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  for (const auto& [text, score] : tokens) file += piece(text, score, 1);
  for (int b = 0; byte_fallback && b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    file += piece(name, -50, 6);
  }
  return file + bytes(2, number(3, model_type) + number(35, byte_fallback) + number(40, 0) +
                             number(41, 1) + number(42, 2));
}

TEST(TokenizerSources, SentencePieceBpeMergesByTheIdsOfItsTokens) {
  // "ab" stands before "bc": it merges first although "bc" has the higher score.
  const auto file = sentencepiece(
      2, {{"ab", -2}, {"bc", -1}, {"▁", -3}, {"a", -4}, {"b", -5}, {"c", -6}, {"▁a", -7}}, true);
  const auto t = make_tokenizer(sentencepiece_model(file, {{"add_bos_token", true}}));
  EXPECT_EQ(t->encode("abc"), (Ids{1, 5, 3, 8}));
  EXPECT_EQ(t->encode("é", false), (Ids{5, 10 + 0xC3, 10 + 0xA9}));
  EXPECT_EQ(t->encode("a</s> a", false),
            (Ids{9, 2, 9}));  // the dummy prefix only at the start of all
  EXPECT_EQ(t->decode(t->encode("abc é"), true), "abc é");
  EXPECT_EQ(t->bos_id(), 1);
  EXPECT_EQ(t->eos_id(), 2);
  EXPECT_TRUE(t->is_special(2));
}

TEST(TokenizerSources, SentencePieceAddsBosIfNothingSaysOtherwise) {
  const auto file = sentencepiece(2, {{"▁", -3}, {"a", -4}}, false);
  const auto t = make_tokenizer(sentencepiece_model(file, nullptr));
  EXPECT_EQ(t->encode("a"), (Ids{1, 3, 4}));
  EXPECT_EQ(t->notes().size(), 1u);
  EXPECT_EQ(make_tokenizer(sentencepiece_model(file, {{"add_bos_token", false}}))->encode("a"),
            (Ids{3, 4}));
}

TEST(TokenizerSources, SentencePieceUnigramTakesTheBestScore) {
  const auto file = sentencepiece(1, {{"▁a", -1}, {"b", -1}, {"▁ab", -3}, {"▁", -9}}, false);
  const auto t = make_tokenizer(sentencepiece_model(file, {{"tokenizer_class", "T5Tokenizer"}}));
  EXPECT_EQ(t->encode("ab"), (Ids{3, 4, 2}));
  EXPECT_EQ(t->encode("ab  zz ", false), (Ids{3, 4, 6, 0}));
}

TEST(TokenizerSources, BrokenSentencePieceFilesAreErrors) {
  const auto file = sentencepiece(2, {{"a", 0}}, false);
  for (size_t n = 0; n < file.size(); ++n) {
    try {
      make_tokenizer(sentencepiece_model(std::string_view(file).substr(0, n), nullptr));
    } catch (const Error&) {
    }
  }
  EXPECT_THROW(sentencepiece_model("", nullptr), Error);
  EXPECT_THROW(
      sentencepiece_model(std::string("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11), nullptr),
      Error);
  EXPECT_THROW(sentencepiece_model(sentencepiece(3, {{"a", 0}}, false), nullptr), Error);
}

TEST(TokenizerSources, TiktokenRanksAreIdsAndOrderOfMerges) {
  const std::string file = "YQ== 0\nYg== 1\nYw== 2\nYmM= 3\nYWI= 4\nYWJj 5\n";  // a b c bc ab abc
  ASSERT_TRUE(is_tiktoken(file));
  EXPECT_FALSE(is_tiktoken(sentencepiece(2, {{"a", 0}}, false)));
  const auto t = make_tokenizer(tiktoken_model(
      file, {{"added_tokens_decoder", {{"7", {{"content", "<e>"}, {"special", true}}}}}}));
  EXPECT_EQ(t->encode("abc"), (Ids{5}));
  EXPECT_EQ(t->encode("abcb"), (Ids{5, 1}));
  EXPECT_EQ(t->encode("ab<e>"), (Ids{4, 7}));
  EXPECT_EQ(t->id_to_token(6), "<|reserved_token_6|>");
  EXPECT_THROW(tiktoken_model("YQ== x\n", nullptr), Error);
  EXPECT_THROW(tiktoken_model("Y 1\n", nullptr), Error);
}

TEST(TokenizerSources, FolderWithVocabAndMergesIsItsClasssTokenizer) {
  testing::TempDir dir;
  write(dir.path() / "vocab.json",
        R"({"a": 0, "Ġ": 1, "Ġa": 2, "1": 3, "Ã©": 4, "Ã": 5, "©": 6, "11": 7})");
  write(dir.path() / "merges.txt", "#version: 0.2\nĠ a\nÃ ©\n1 1\n");
  write(dir.path() / "added_tokens.json", R"({"<x>": 9, "<y>": 8})");
  write(dir.path() / "tokenizer_config.json",
        R"({"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": ["<x>"]})");
  const auto qwen = Tokenizer::load(dir.path());
  EXPECT_EQ(qwen->encode("a a11"), (Ids{0, 2, 3, 3}));    // Qwen2: digits one by one
  EXPECT_EQ(qwen->encode("e\u0301"), qwen->encode("é"));  // and NFC
  EXPECT_EQ(qwen->encode("<y><x>"), (Ids{8, 9}));
  EXPECT_TRUE(qwen->is_special(9));
  write(dir.path() / "tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
  EXPECT_EQ(Tokenizer::load(dir.path())->encode("a a11"), (Ids{0, 2, 7}));
}

TEST(TokenizerSources, FolderWithoutATokenizerIsAnError) {
  testing::TempDir dir;
  EXPECT_THROW(Tokenizer::load(dir.path()), Error);
}

}  // namespace
}  // namespace signround
