#include "signround/text/bpe.h"

#include <gtest/gtest.h>

#include <map>

#include "signround/base/error.h"
#include "signround/base/random.h"
#include "signround/text/unicode.h"

namespace signround {
namespace {

using nlohmann::json;

std::unique_ptr<TokenModel> model(const json& config) {
  std::vector<std::string> notes;
  return make_token_model(config, notes);
}

std::vector<int32_t> encode(const TokenModel& m, const std::string& text) {
  TokenModel::Scratch scratch;
  std::vector<int32_t> ids;
  m.encode(text, scratch, ids);
  return ids;
}

// A random BPE over the letters a-d and ▁, some merges with ▁ inside a token or not, as chance has
// it.
json random_bpe(PythonRandom& random, bool space_inside) {
  std::vector<std::string> tokens = {"a", "b", "c", "d", "▁"};
  json merges = json::array();
  for (int i = 0; i < 60; ++i) {
    const std::string left = tokens[random.below(tokens.size())],
                      right = tokens[random.below(tokens.size())];
    if (!space_inside && right.find("▁") != std::string::npos) continue;
    const std::string whole = left + right;
    if (whole.size() > 20 || std::find(tokens.begin(), tokens.end(), whole) != tokens.end())
      continue;
    tokens.push_back(whole);
    merges.push_back({left, right});
  }
  json vocab = json::object();
  for (size_t i = 0; i < tokens.size(); ++i) vocab[tokens[i]] = i;
  return {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}};
}

// The definition: while any neighbours have a rank, the leftmost pair of the lowest rank becomes
// one.
std::vector<int32_t> by_definition(const json& config, const std::string& text) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (const auto& merge : config["merges"]) ranks.try_emplace({merge[0], merge[1]}, ranks.size());
  std::vector<std::string> symbols;
  for (size_t i = 0; i < text.size();) {
    const size_t n = unicode::sequence_length(static_cast<unsigned char>(text[i]));
    symbols.push_back(text.substr(i, n));
    i += n;
  }
  while (true) {
    size_t best = ranks.size(), at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = ranks.find({symbols[i], symbols[i + 1]});
      if (it != ranks.end() && it->second < best) best = it->second, at = i;
    }
    if (best == ranks.size()) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<int64_t>(at) + 1);
  }
  std::vector<int32_t> ids;
  for (const auto& s : symbols) ids.push_back(config["vocab"][s]);
  return ids;
}

TEST(Bpe, MergesAsDefinedInShortAndInLongPieces) {
  PythonRandom random(5);
  for (int round = 0; round < 60; ++round) {
    const json config = random_bpe(random, round % 2 == 0);
    const auto m = model(config);
    for (const uint64_t length : {1, 2, 7, 40, 159, 160, 161, 400}) {
      std::string text;
      for (uint64_t i = 0; i < length; ++i)
        text +=
            random.below(5) == 0 ? "▁" : std::string(1, static_cast<char>('a' + random.below(4)));
      ASSERT_EQ(encode(*m, text), by_definition(config, text)) << "round " << round << ": " << text;
    }
  }
}

TEST(Bpe, GivesTheSameIdsWhenAskedAgain) {  // the second time from what the first found out about
                                            // whole words
  PythonRandom random(6);
  const json config = random_bpe(random, true);
  const auto m = model(config);
  for (const auto& [token, id] : config["vocab"].items())
    for (int i = 0; i < 2; ++i) EXPECT_EQ(encode(*m, token), by_definition(config, token)) << token;
}

TEST(Bpe, WholePieceIsTakenAsItIsOnlyWithIgnoreMerges) {
  json config = {{"type", "BPE"},
                 {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"abb", 3}}},
                 {"merges", json::array({"a b"})}};
  EXPECT_EQ(encode(*model(config), "abb"), (std::vector<int32_t>{2, 1}));
  config["ignore_merges"] = true;
  EXPECT_EQ(encode(*model(config), "abb"), (std::vector<int32_t>{3}));
}

TEST(Bpe, UnknownCharactersFuseOnlyIfAsked) {
  json config = {{"type", "BPE"},
                 {"vocab", {{"a", 0}, {"?", 1}}},
                 {"merges", json::array()},
                 {"unk_token", "?"}};
  EXPECT_EQ(encode(*model(config), "xyazz"), (std::vector<int32_t>{1, 1, 0, 1, 1}));
  config["fuse_unk"] = true;
  EXPECT_EQ(encode(*model(config), "xyazz"), (std::vector<int32_t>{1, 0, 1}));
  config.erase("unk_token");
  EXPECT_EQ(encode(*model(config), "xyazz"), (std::vector<int32_t>{0}));
}

TEST(Bpe, MegabytesOfOneLetterAndOfNestedMergesAreEncoded) {
  json vocab = {{"a", 0}, {"b", 1}}, merges = json::array();
  std::string token = "a";
  for (int i = 0; i < 10; ++i, token += token) {
    vocab[token + token] = 2 + i;
    merges.push_back({token, token});
  }
  const auto m = model({{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}});
  const auto ids = encode(*m, std::string(1 << 20, 'a'));
  EXPECT_EQ(ids, std::vector<int32_t>(1 << 10, 11));
  std::string mixed;
  for (int i = 0; i < 1 << 20; ++i) mixed += i % 1023 == 0 ? 'b' : 'a';
  // 1026 b, and 1025 runs of 1022 a, which are 512 + 256 + ... + 2: nine tokens.
  EXPECT_EQ(encode(*m, mixed).size(), 1026u + 1025u * 9u);
}

TEST(Bpe, RefusesMergesThatMakeNoToken) {
  const json vocab = {{"a", 0}, {"b", 1}};
  for (const json& merges : {json::array({"a b"}), json::array({"a"}), json::array({"a b c"}),
                             json::array({json::array({"a"})}), json::array({3}), json("a b"),
                             json::array({json::array({"a", "z"})})})
    EXPECT_THROW(model({{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}), Error)
        << merges.dump();
}

}  // namespace
}  // namespace signround
