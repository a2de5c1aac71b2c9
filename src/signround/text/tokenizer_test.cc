#include "signround/text/tokenizer.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"
#include "signround/base/random.h"
#include "signround/text/byte_level.h"

namespace signround {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

// Byte-level: id = byte, and "th" = 256.
json byte_tokenizer() {
  json vocab = json::object();
  for (unsigned b = 0; b < 256; ++b) {
    std::string name;
    append_byte_chars(name, std::string(1, static_cast<char>(b)));
    vocab[name] = b;
  }
  vocab["th"] = 256;
  json special = {{"id", 257}, {"content", "<s>"}, {"special", true}, {"normalized", false}};
  return {{"version", "1.0"},
          {"added_tokens", json::array({special})},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", json::array({"t h"})}}}};
}

TEST(Tokenizer, NamesIdsAndBounds) {
  const auto t = Tokenizer::from_json(byte_tokenizer().dump());
  EXPECT_EQ(t->vocab_size(), 258);
  EXPECT_EQ(t->token_to_id("th"), 256);
  EXPECT_EQ(t->token_to_id("<s>"), 257);
  EXPECT_EQ(t->token_to_id("none"), -1);
  EXPECT_EQ(t->id_to_token(257), "<s>");
  EXPECT_EQ(t->id_to_token(-1), "");
  EXPECT_EQ(t->id_to_token(1 << 30), "");
  EXPECT_TRUE(t->is_special(257));
  EXPECT_FALSE(t->is_special(256));
  EXPECT_EQ(t->bos_id(), -1);
  EXPECT_EQ(t->decode(Ids{-5, 1 << 30, 256}), "th");
}

TEST(Tokenizer, ConfigAddsTokensAndSaysWhatSurroundsAText) {
  const json config = {
      {"bos_token", {{"content", "<s>"}}},
      {"eos_token", "<end>"},
      {"pad_token", nullptr},
      {"add_bos_token", true},
      {"add_eos_token", true},
      {"added_tokens_decoder",
       {{"258", {{"content", "<tool>"}, {"special", false}, {"normalized", false}}}}}};
  const auto t = Tokenizer::from_json(byte_tokenizer().dump(), config);
  EXPECT_EQ(t->token_to_id("<tool>"), 258);
  EXPECT_EQ(t->bos_id(), 257);
  EXPECT_EQ(t->eos_id(), 259);
  EXPECT_EQ(t->pad_id(), -1);
  EXPECT_EQ(t->encode("th<tool>"), (Ids{257, 256, 258, 259}));
  EXPECT_EQ(t->encode("th<tool>", false), (Ids{256, 258}));
  EXPECT_EQ(t->decode(t->encode("th<tool>"), true), "th<tool>");
}

TEST(Tokenizer, BytesThatAreNotUtf8CountAsReplacementCharacters) {
  const auto t = Tokenizer::from_json(byte_tokenizer().dump());
  EXPECT_EQ(t->encode("a\xFF"
                      "b\xE4\xBB"),
            t->encode("a\uFFFD"
                      "b\uFFFD"));
  EXPECT_EQ(t->decode(Ids{0xE4, 0xBB, 'a', 0x80}), "\uFFFDa\uFFFD");
}

TEST(Tokenizer, TellsWhatItIgnores) {
  json j = byte_tokenizer();
  EXPECT_TRUE(Tokenizer::from_json(j.dump())->notes().empty());
  j["truncation"] = {{"max_length", 2}};
  j["padding"] = {{"strategy", "BatchLongest"}};
  j["model"]["dropout"] = 0.1;
  const auto t = Tokenizer::from_json(j.dump());
  EXPECT_EQ(t->notes().size(), 3u);
  EXPECT_EQ(t->encode("the end").size(), 6u);  // neither cut nor padded
}

TEST(Tokenizer, StreamHoldsBackHalfACharacterAndNoMore) {
  const auto t = Tokenizer::from_json(byte_tokenizer().dump());
  StreamDecoder stream(*t, true);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xE4), "");
  EXPECT_EQ(stream.push(257), "");  // skipped
  EXPECT_EQ(stream.push(0xBB), "");
  EXPECT_EQ(stream.push(0x8A), "\xE4\xBB\x8A");
  EXPECT_EQ(stream.push(0xF0), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.push('b'), "b");
}

TEST(Tokenizer, HostileTextsOfAMegabyteAreEncodedWhole) {
  const auto t = Tokenizer::from_json(byte_tokenizer().dump());
  for (const std::string& unit :
       {std::string("a"), std::string(" "), std::string("\n"), std::string("\u0301"),
        std::string("th"), std::string("<s"), std::string(" \n"), std::string("'"),
        std::string("\u0316\u0301")}) {
    std::string text;
    while (text.size() < 1 << 20) text += unit;
    EXPECT_EQ(t->decode(t->encode(text)), text) << unit;
  }
}

TEST(Tokenizer, CombiningMarksNormalizeInLinearTime) {
  json j = byte_tokenizer();
  j["normalizer"] = {{"type", "NFC"}};
  const auto t = Tokenizer::from_json(j.dump());
  std::string text = "a", sorted = "a";
  for (int i = 0; i < 200000; ++i)
    text += "\u0301\u0316";  // classes 230 and 220: sorted, all 220 come first
  const std::string got = t->decode(t->encode(text));
  EXPECT_EQ(got.substr(0, 6), "\u00e1\u0316\u0316");
  EXPECT_EQ(got.substr(got.size() - 4), "\u0301\u0301");
}

TEST(Tokenizer, MalformedFilesAreErrorsThatSayWhere) {
  EXPECT_THROW(Tokenizer::from_json(""), Error);
  EXPECT_THROW(Tokenizer::from_json("[]"), Error);
  EXPECT_THROW(Tokenizer::from_json("{\"model\": 3}"), Error);
  const std::vector<std::pair<json::json_pointer, json>> faults = {
      {json::json_pointer("/model/type"), "Nonsense"},
      {json::json_pointer("/model/vocab"), json::array()},
      {json::json_pointer("/model/vocab/th"), -1},
      {json::json_pointer("/model/vocab/th"), int64_t{1} << 40},
      {json::json_pointer("/model/vocab/th"), "x"},
      {json::json_pointer("/model/unk_token"), 5},
      {json::json_pointer("/pre_tokenizer/type"), "Nonsense"},
      {json::json_pointer("/pre_tokenizer/use_regex"), 1},
      {json::json_pointer("/pre_tokenizer"), {{"type", "FixedLength"}, {"length", 0}}},
      {json::json_pointer("/pre_tokenizer"),
       {{"type", "Split"}, {"pattern", {{"Regex", "("}}}, {"behavior", "Isolated"}}},
      {json::json_pointer("/pre_tokenizer"),
       {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Odd"}}},
      {json::json_pointer("/pre_tokenizer"), {{"type", "Metaspace"}, {"replacement", "xy"}}},
      {json::json_pointer("/pre_tokenizer"), {{"type", "Sequence"}}},
      {json::json_pointer("/normalizer"),
       {{"type", "Precompiled"}, {"precompiled_charsmap", "////"}}},
      {json::json_pointer("/normalizer"), {{"type", "Replace"}, {"content", ""}}},
      {json::json_pointer("/decoder"), {{"type", "Strip"}, {"content", ""}}},
      {json::json_pointer("/post_processor"),
       {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "x"}}}}}}}},
      {json::json_pointer("/post_processor"),
       {{"type", "BertProcessing"}, {"sep", {"x", -1}}, {"cls", {"x", 1}}}},
      {json::json_pointer("/added_tokens"), {{"content", "x"}}},
      {json::json_pointer("/added_tokens/0/content"), 7},
      {json::json_pointer("/added_tokens/0/content"), std::string(5000, 'a')},
  };
  for (const auto& [where, value] : faults) {
    json j = byte_tokenizer();
    j[where] = value;
    EXPECT_THROW(Tokenizer::from_json(j.dump()), Error) << where << " " << value;
  }
}

TEST(Tokenizer, NestingAndGrowthAreBounded) {
  json j = byte_tokenizer();
  json deep = {{"type", "NFC"}};
  for (int i = 0; i < 40; ++i) deep = {{"type", "Sequence"}, {"normalizers", json::array({deep})}};
  j["normalizer"] = deep;
  EXPECT_THROW(Tokenizer::from_json(j.dump()), Error);
  json grow = json::array();
  for (int i = 0; i < 12; ++i)
    grow.push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(50, 'a')}});
  j["normalizer"] = {{"type", "Sequence"}, {"normalizers", grow}};
  EXPECT_THROW(Tokenizer::from_json(j.dump())->encode("aaaa"), Error);
}

}  // namespace
}  // namespace signround
