#include "signround/text/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <limits>

#include "signround/testing/expect_error.h"
#include "signround/testing/gguf_builder.h"
#include "signround/testing/temp_dir.h"
#include "signround/text/byte_level.h"
#include "signround/text/gguf_pre_tokenizer.h"
#include "signround/text/tokenizer.h"

namespace signround {
namespace {

using nlohmann::json;
using testing::expect_error;
using testing::GgufBuilder;
using testing::TempDir;

constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
const std::string kSpace = "\xe2\x96\x81";

GgufBuilder byte_level() {
  GgufBuilder b;
  b.text("general.architecture", "llama").text("tokenizer.ggml.model", "gpt2");
  return b;
}

// <unk> <s> </s>, three bytes, letters, pieces with scores as SentencePiece trains them: the longer
// the later.
GgufBuilder sentencepiece() {
  GgufBuilder b;
  b.text("general.architecture", "llama").text("tokenizer.ggml.model", "llama");
  b.strings(kTokens, {"<unk>", "<s>", "</s>", "<0xE2>", "<0x82>", "<0xAC>", kSpace, "a", "b", "c",
                      "ab", "bc", "abc", kSpace + "a", "<tool>"});
  b.array<float>("tokenizer.ggml.scores",
                 {0, 0, 0, 0, 0, 0, -10, -11, -12, -13, -1, -2, -3, -4, 0});
  b.array<int32_t>(kTypes, {2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 4});
  return b;
}

struct Files {
  json tokenizer, config;
};

Files convert(const GgufBuilder& builder) {
  const TempDir dir;
  testing::write_file(dir / "a.gguf", builder.bytes());
  const GgufFile file(dir / "a.gguf");
  return {json::parse(tokenizer_json_from_gguf(file)), tokenizer_config_from_gguf(file)};
}

std::vector<int32_t> encode(const Files& files, const std::string& text, bool add_special = false) {
  return Tokenizer::from_json(files.tokenizer.dump(), files.config)->encode(text, add_special);
}

TEST(GgufTokenizer, ByteLevelTokensAndMergesAreTakenOver) {
  GgufBuilder b = byte_level();
  b.text("tokenizer.ggml.pre", "gpt-2");
  b.strings(kTokens, {"<|end|>", "a", "b", "\xc4\xa0", "ab",
                      "\xc4\xa0"
                      "ab",
                      "<think>", "[PAD7]"});
  b.array<int32_t>(kTypes, {3, 1, 1, 1, 1, 1, 4, 5})
      .strings("tokenizer.ggml.merges", {"a b", "\xc4\xa0 ab"});
  b.value<uint32_t>("tokenizer.ggml.eos_token_id", 0);
  const Files files = convert(b);
  const json& model = files.tokenizer["model"];
  EXPECT_EQ(model["vocab"],
            json::parse(R"({"<|end|>":0,"a":1,"b":2,"Ġ":3,"ab":4,"Ġab":5,"<think>":6})"));
  EXPECT_EQ(model["merges"], json::parse(R"([["a","b"],["Ġ","ab"]])"));
  const json& added = files.tokenizer["added_tokens"];
  ASSERT_EQ(added.size(), 2u);
  EXPECT_EQ(added[0]["content"], "<|end|>");
  EXPECT_EQ(added[0]["special"], true);
  EXPECT_EQ(added[1],
            json::parse(
                R"({"id":6,"content":"<think>","single_word":false,"lstrip":false,"rstrip":false,)"
                R"("normalized":false,"special":false})"));
  EXPECT_EQ(files.tokenizer["normalizer"], json());
  EXPECT_EQ(files.tokenizer["pre_tokenizer"]["type"], "ByteLevel");
  EXPECT_EQ(encode(files, "ab ab<|end|><think>b"), (std::vector<int32_t>{4, 5, 0, 6, 2}));
}

TEST(GgufTokenizer, TheNameOfTheSplitterDecidesHowTextIsCut) {
  const auto with_pre = [](const std::string& pre) {
    GgufBuilder b = byte_level();
    b.text("tokenizer.ggml.pre", pre)
        .strings(kTokens, {"a", "<s>"})
        .value<uint32_t>("tokenizer.ggml.bos_token_id", 1);
    return convert(b);
  };
  const json smollm = with_pre("smollm").tokenizer;
  EXPECT_EQ(smollm["pre_tokenizer"]["pretokenizers"][0],
            json::parse(R"({"type":"Digits","individual_digits":true})"));
  const Files llama3 = with_pre("llama-bpe");
  EXPECT_NE(llama3.tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
                .get<std::string>()
                .find("\\p{N}{1,3}"),
            std::string::npos);
  EXPECT_EQ(llama3.tokenizer["model"]["ignore_merges"], true);
  EXPECT_EQ(llama3.config["add_bos_token"], true);  // llama.cpp's default for this name
  EXPECT_EQ(llama3.tokenizer["post_processor"]["processors"][1]["single"][0]["SpecialToken"]["id"],
            "<s>");
  const Files qwen2 = with_pre("qwen2");
  EXPECT_EQ(qwen2.tokenizer["normalizer"]["type"], "NFC");
  EXPECT_EQ(qwen2.config["add_bos_token"], false);
  EXPECT_EQ(with_pre("default").tokenizer["pre_tokenizer"]["pretokenizers"].size(), 5u);
  EXPECT_EQ(with_pre("tekken").tokenizer["model"]["ignore_merges"], true);
  expect_error(ErrorKind::kUnsupported, "tokenizer.ggml.pre is no-such-name; known are gpt-2, ",
               [&] { with_pre("no-such-name"); });
}

// A vocabulary of all bytes, and merges that join runs of the digit 1 and of the letter a.
Files all_bytes(const GgufPreTokenizer& pre) {
  GgufBuilder b = byte_level();
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
    if (pre.plain)
      tokens.push_back(name);
    else
      append_byte_chars(tokens.emplace_back(), std::string(1, static_cast<char>(byte)));
  }
  if (pre.plain) tokens.insert(tokens.end(), {"1", "a", kSpace});
  for (const char* more : {"11", "1111", "111", "aa", "aaaa", "aaa"}) tokens.push_back(more);
  b.text("tokenizer.ggml.pre", std::string(pre.name)).strings(kTokens, tokens);
  b.strings("tokenizer.ggml.merges", {"1 1", "11 11", "11 1", "a a", "aa aa", "aa a"});
  return convert(b);
}

TEST(GgufTokenizer, EveryNameIsReadAndNoNameLosesAByte) {
  const std::string text =
      "Hello wORLD's  12345 x=y+1;\r\n\n\t naïve E\xcc\x81t\xc3\xa9 人工智能 かな 한국어 ไทย "
      "“quoted”… <sentinel:12> 🇩🇪👍🏽 1 234 567\n  end   ";
  EXPECT_GE(gguf_pre_tokenizers().size(), 87u);
  for (const GgufPreTokenizer& pre : gguf_pre_tokenizers()) {
    const Files files = all_bytes(pre);
    const auto tokenizer = Tokenizer::from_json(files.tokenizer.dump(), files.config);
    const std::string want = pre.nfc ? [&] {
      std::string normalized = text;
      normalized.replace(normalized.find("E\xcc\x81"), 3, "\xc3\x89");
      return normalized;
    }() : text;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false), false), want) << pre.name;
  }
}

// Seven digits show how a name cuts numbers: 11+11+11+1 joins to 1111 and 111 where they stay
// together.
TEST(GgufTokenizer, NamesCutNumbersAsTheirTokenizersDo) {
  const std::string together = "1111 111", alone = "1 1 1 1 1 1 1", from_left = "111 111 1",
                    from_right = "1 111 111";
  const std::pair<const char*, std::string> cases[] = {
      {"gpt-2", together},        {"mpt", together},         {"deepseek-llm", together},
      {"bloom", together},        {"smollm", alone},         {"exaone", alone},
      {"qwen2", alone},           {"qwen35", alone},         {"tekken", alone},
      {"bailingmoe", alone},      {"seed-coder", alone},     {"viking", alone},
      {"gemma4", together},       {"sarvam-moe", together},  {"whitespace", together},
      {"jina-v2-code", together}, {"deepseek-coder", alone}, {"chameleon", alone},
      {"spark2_5", alone},        {"youtu", alone},          {"exaone-moe", alone},
      {"llama-bpe", from_left},   {"glm4", from_left},       {"gpt-4o", from_left},
      {"deepseek-v3", from_left}, {"kimi-k2", from_left},    {"jais-2", from_left},
      {"minicpm5", from_left},    {"falcon", from_left},     {"default", from_left},
      {"tiny_aya", from_right},   {"afmoe", from_right},     {"superbpe", from_right},
  };
  for (const auto& [pre, want] : cases) {
    const Files files = all_bytes(*find_gguf_pre_tokenizer(pre));
    const auto tokenizer = Tokenizer::from_json(files.tokenizer.dump(), files.config);
    std::string got;
    for (int32_t id : tokenizer->encode("1111111", false))
      got += (got.empty() ? "" : " ") + tokenizer->decode(std::vector<int32_t>{id}, false);
    EXPECT_EQ(got, want) << pre;
  }
}

// Gemma's way: letters, "▁" for a space, bytes, line ends, merges in the file.
GgufBuilder plain(const std::string& model, const std::vector<std::string>& merges) {
  GgufBuilder b;
  b.text("general.architecture", "llama").text("tokenizer.ggml.model", model);
  std::vector<std::string> tokens = {"<bos>", "<0x00>", "<0xE2>", "<0x82>",   "<0xAC>",
                                     kSpace,  "a",      "b",      "ab",       kSpace + "a",
                                     "\n",    "\n\n",   "\n\n\n", "\n\n\n\n", "b\n"};
  b.strings(kTokens, tokens).strings("tokenizer.ggml.merges", merges);
  b.array<int32_t>(kTypes, {3, 6, 6, 6, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1});
  b.value<uint32_t>("tokenizer.ggml.bos_token_id", 0);
  return b;
}

const std::vector<std::string> kLetterMerges = {kSpace + " a", "a b"};

TEST(GgufTokenizer, PlainVocabulariesSeeVisibleSpacesAndLines) {
  for (const char* pre : {"gemma4", "granite-embed-multi-311m", "sarvam-moe"}) {
    SCOPED_TRACE(pre);
    GgufBuilder b = plain(
        "gpt2", {"b \n", kLetterMerges[0], kLetterMerges[1], "\n \n", "\n\n \n", "\n\n \n\n"});
    const Files files = convert(b.text("tokenizer.ggml.pre", pre));
    EXPECT_EQ(encode(files, "ab ab"), (std::vector<int32_t>{8, 9, 7}));  // no space is put in front
    EXPECT_EQ(encode(files, "a\xe2\x82\xac"), (std::vector<int32_t>{6, 2, 3, 4}));
    EXPECT_EQ(encode(files, "a?a"), (std::vector<int32_t>{6, 6}));  // neither a token nor bytes
    // Lines are pieces of their own, so that "b\n" is never merged, however the file would have it.
    EXPECT_EQ(encode(files, "b\n\nb"), (std::vector<int32_t>{7, 11, 7}));
    const auto tokenizer = Tokenizer::from_json(files.tokenizer.dump(), files.config);
    EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{9, 2, 3, 4, 5, 12}, false),
              " a\xe2\x82\xac \n\n\n");
  }
}

TEST(GgufTokenizer, GemmasFileIsKnownByItsModelAlone) {
  GgufBuilder b = plain("gemma4", kLetterMerges);
  const Files files = convert(b.value<bool>("tokenizer.ggml.add_bos_token", false));
  EXPECT_EQ(encode(files, "a a", true),
            (std::vector<int32_t>{0, 6, 9}));  // BOS whatever the file says
  GgufBuilder sarvam = plain("gpt2", kLetterMerges);
  EXPECT_EQ(encode(convert(sarvam.text("tokenizer.ggml.pre", "sarvam-moe")), "a", true),
            (std::vector<int32_t>{6}));
}

TEST(GgufTokenizer, RunsOfLineEndsThatAreTokensStayWholeForGemma) {
  // Merges that make 2 and 4 of the line ends, but not 3.
  const std::vector<std::string> merges = {"\n \n", "\n\n \n\n"};
  const Files files = convert(plain("gemma4", merges));
  for (const auto& [count, want] : std::vector<std::pair<size_t, std::vector<int32_t>>>{
           {1, {10}}, {2, {11}}, {3, {12}}, {4, {13}}})
    EXPECT_EQ(encode(files, "a" + std::string(count, '\n') + "a").size(), 3u) << count;
  GgufBuilder sarvam = plain("gpt2", merges);  // has no such rule
  EXPECT_EQ(encode(convert(sarvam.text("tokenizer.ggml.pre", "sarvam-moe")), "\n\n\n"),
            (std::vector<int32_t>{11, 10}));
  // Where the merges make every run, they are left to it: a run of 6 is 4 and 2 in the order of
  // merges, and nothing is an added token.
  const Files sound = convert(plain("gemma4", {"\n \n", "\n\n \n\n", "\n\n \n"}));
  EXPECT_EQ(encode(sound, "\n\n\n\n\n\n"), (std::vector<int32_t>{13, 11}));
  EXPECT_EQ(sound.tokenizer["added_tokens"].size(), 1u);
}

TEST(GgufTokenizer, MergesWithAWrittenSpaceAreNoErrorInAPlainVocabulary) {
  const std::string written = "\xc4\xa0";  // U+0120, for the two spaces of some vocabularies
  const Files files = convert(plain("gemma4", {written + " " + written, kLetterMerges[1]}));
  EXPECT_EQ(files.tokenizer["model"]["merges"], json::parse(R"([["a","b"]])"));
}

TEST(GgufTokenizer, TheWhitespaceModelDropsWhiteSpace) {
  const auto with = [](const std::string& model) {
    GgufBuilder b;
    b.text("tokenizer.ggml.model", model).text("tokenizer.ggml.pre", "whitespace");
    b.strings(kTokens, {"a", "b", "ab", " ", "人"}).strings("tokenizer.ggml.merges", {"a b"});
    return b;
  };
  EXPECT_EQ(encode(convert(with("whitespace")), "ab \u3000人\tAb"),
            (std::vector<int32_t>{2, 4, 1}));
  EXPECT_EQ(encode(convert(with("gpt2")), "ab \u3000人 b"), (std::vector<int32_t>{2, 3, 4, 3, 1}));
  GgufBuilder lower = with("whitespace");
  lower.value<bool>("tokenizer.ggml.normalizer.lowercase", true);
  EXPECT_EQ(encode(convert(lower), "Ab"), (std::vector<int32_t>{2}));
  GgufBuilder other;
  other.text("tokenizer.ggml.model", "whitespace").strings(kTokens, {"a"});
  expect_error(ErrorKind::kUnsupported, "is whitespace and tokenizer.ggml.pre ''",
               [&] { convert(other); });
}

// llama.cpp knows by name what a file does not say.
TEST(GgufTokenizer, TokensThatEndATurnAreSpecialWhateverTheirType) {
  const auto added = [](GgufBuilder b) {
    b.text("tokenizer.ggml.pre", "gpt-2");
    const Files files = convert(b);
    std::string out;
    for (const json& token : files.tokenizer["added_tokens"])
      out += token["content"].get<std::string>() + (token["special"].get<bool>() ? " " : "? ");
    return out;
  };
  const std::vector<std::string> tokens = {"a", "<|im_end|>", "</s>", "<fim_prefix>", "<tool>"};
  GgufBuilder b = byte_level();
  b.strings(kTokens, tokens).array<int32_t>(kTypes, {1, 1, 1, 1, 4});
  EXPECT_EQ(added(b), "<|im_end|> </s> <fim_prefix> <tool>? ");
  EXPECT_EQ(added(byte_level().strings(kTokens, tokens)), "<|im_end|> </s> <fim_prefix> ");
  GgufBuilder named = byte_level();  // the file names the token that begins a gap: another one
  named.strings(kTokens, tokens).value<uint32_t>("tokenizer.ggml.prefix_token_id", 0);
  EXPECT_EQ(added(named), "<|im_end|> </s> ");
  GgufBuilder gemma = byte_level();  // whose "</s>" is HTML's
  EXPECT_EQ(added(gemma.strings(kTokens, {"</s>", "<|tool_response>"})), "<|tool_response> ");
}

TEST(GgufTokenizer, TokensTakeWhiteSpaceAlongWhereLlamaCppKnowsIt) {
  GgufBuilder b = byte_level();
  b.text("tokenizer.ggml.pre", "jina-v2-code").strings(kTokens, {"a", "\xc4\xa0", "<mask>", "<x>"});
  b.array<int32_t>(kTypes, {1, 1, 3, 3});
  EXPECT_EQ(encode(convert(b), "a <mask> a <x>"), (std::vector<int32_t>{0, 2, 1, 0, 1, 3}));
  GgufBuilder phi = sentencepiece();
  phi.text("general.name", "Phi-3-mini");
  const json added = convert(phi).tokenizer["added_tokens"];
  ASSERT_EQ(added.size(), 4u);  // <unk> <s> </s> <tool>
  EXPECT_EQ(added[0]["rstrip"], false);
  EXPECT_EQ(added[1]["rstrip"], false);
  EXPECT_EQ(added[2]["rstrip"], true);
  EXPECT_EQ(added[3]["rstrip"], true);
}

TEST(GgufTokenizer, ABosThatTheFileAsksForIsAdded) {
  GgufBuilder b = byte_level();
  b.text("tokenizer.ggml.pre", "gpt-2")
      .strings(kTokens, {"a", "<s>", "</s>"})
      .array<int32_t>(kTypes, {1, 3, 3});
  b.value<uint32_t>("tokenizer.ggml.bos_token_id", 1)
      .value<bool>("tokenizer.ggml.add_bos_token", true);
  b.value<uint32_t>("tokenizer.ggml.eos_token_id", 2)
      .value<bool>("tokenizer.ggml.add_eos_token", true);
  const Files files = convert(b);
  EXPECT_EQ(encode(files, "a", true), (std::vector<int32_t>{1, 0, 2}));
  EXPECT_EQ(encode(files, "a", false), (std::vector<int32_t>{0}));
}

TEST(GgufTokenizer, FilesWithoutASplitterGetTheirArchitecturesOne) {
  GgufBuilder b;
  b.text("general.architecture", "qwen2")
      .text("tokenizer.ggml.model", "gpt2")
      .strings(kTokens, {"a"});
  EXPECT_EQ(convert(b).tokenizer["normalizer"]["type"], "NFC");
  EXPECT_EQ(convert(byte_level().strings(kTokens, {"a"}))
                .tokenizer["pre_tokenizer"]["pretokenizers"]
                .size(),
            5u);
}

// Results by score: ab (-1), bc (-2), abc (-3) in two ways of which the longer left side goes
// first, then " a" (-4).
TEST(GgufTokenizer, MergesOfSentencePieceFollowFromTheScores) {
  const json model = convert(sentencepiece()).tokenizer["model"];
  EXPECT_EQ(model["merges"],
            json::parse(R"([["a","b"],["b","c"],["ab","c"],["a","bc"],["▁","a"]])"));
  EXPECT_EQ(model["byte_fallback"], true);
  EXPECT_EQ(model["unk_token"], "<unk>");
}

TEST(GgufTokenizer, SentencePieceTextIsEncodedAsLlamaCppDoes) {
  const Files files = convert(sentencepiece());
  EXPECT_EQ(encode(files, "abc", true),
            (std::vector<int32_t>{1, 6, 12}));  // BOS, the added space, abc: ab beats " a"
  EXPECT_EQ(encode(files, "a"), (std::vector<int32_t>{13}));
  EXPECT_EQ(encode(files, "a\xe2\x82\xac"),
            (std::vector<int32_t>{13, 3, 4, 5}));  // the euro sign is three bytes
  EXPECT_EQ(encode(files, "b<tool>b"), (std::vector<int32_t>{6, 8, 14, 6, 8}));
  GgufBuilder b = sentencepiece();
  EXPECT_EQ(encode(convert(b.value<bool>("tokenizer.ggml.add_space_prefix", false)), "a"),
            (std::vector<int32_t>{7}));
}

TEST(GgufTokenizer, ConfigNamesTheSpecialTokensAndTheTemplate) {
  GgufBuilder b = sentencepiece();
  b.value<uint32_t>("llama.context_length", 4096).text("tokenizer.chat_template", "{{ messages }}");
  b.value<uint32_t>("tokenizer.ggml.padding_token_id", 0xffffffffu);  // none
  EXPECT_EQ(convert(b).config,
            json::parse(
                R"({"add_bos_token":true,"add_eos_token":false,"bos_token":"<s>","eos_token":"</s>",
      "chat_template":"{{ messages }}","clean_up_tokenization_spaces":false,"model_max_length":4096,
      "tokenizer_class":"PreTrainedTokenizerFast","unk_token":"<unk>"})"));
}

TEST(GgufTokenizer, SeveralTemplatesKeepTheirNames) {
  GgufBuilder b = sentencepiece();
  b.text("tokenizer.chat_template", "A").strings("tokenizer.chat_templates", {"tool_use"});
  b.text("tokenizer.chat_template.tool_use", "B");
  EXPECT_EQ(
      convert(b).config["chat_template"],
      json::parse(R"([{"name":"default","template":"A"},{"name":"tool_use","template":"B"}])"));
  GgufBuilder lacking = sentencepiece();
  lacking.strings("tokenizer.chat_templates", {"rag"});
  expect_error(ErrorKind::kCorruptFile, "tokenizer.chat_templates names 'rag'",
               [&] { convert(lacking); });
}

TEST(GgufTokenizer, OfEqualTokensTheFirstOneCounts) {
  const json vocab =
      convert(byte_level().strings(kTokens, {"a", "b", "a"})).tokenizer["model"]["vocab"];
  EXPECT_EQ(vocab, json::parse(R"({"a":0,"b":1})"));
}

TEST(GgufTokenizer, RefusesWhatIsBroken) {
  const auto expect = [](ErrorKind kind, const std::string& text, const GgufBuilder& b) {
    expect_error(kind, text, [&] { convert(b); });
  };
  expect(ErrorKind::kUnsupported, "tokenizer.ggml.model is 't5'",
         GgufBuilder().text("tokenizer.ggml.model", "t5"));
  expect(ErrorKind::kCorruptFile, "has no tokenizer.ggml.tokens", byte_level());
  expect(ErrorKind::kCorruptFile, "2 token types for 1 tokens",
         byte_level().strings(kTokens, {"a"}).array<int32_t>(kTypes, {1, 1}));
  expect(ErrorKind::kCorruptFile, "bos_token_id is 7, but there are 1 tokens",
         byte_level().strings(kTokens, {"a"}).value<uint32_t>("tokenizer.ggml.bos_token_id", 7));
  expect(ErrorKind::kCorruptFile, "not UTF-8", byte_level().strings(kTokens, {"\xff"}));
  const auto merge = [](const std::string& m) {
    return byte_level().strings(kTokens, {"a", "b"}).strings("tokenizer.ggml.merges", {m});
  };
  expect(ErrorKind::kCorruptFile, "the merge 'ab' has no space", merge("ab"));
  expect(ErrorKind::kCorruptFile, "the merge '' has no space", merge(""));
  expect(ErrorKind::kCorruptFile, "the merge 'a b' has a side or a result that is not a token",
         merge("a b"));
  const auto scores = [](const std::string& token, float score) {
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "llama")
        .strings(kTokens, {token})
        .array<float>("tokenizer.ggml.scores", {score});
    return b;
  };
  expect(ErrorKind::kCorruptFile, "expected at most 1024 bytes", scores(std::string(1025, 'a'), 0));
  expect(ErrorKind::kCorruptFile, "a finite score",
         scores("a", std::numeric_limits<float>::quiet_NaN()));
  expect(ErrorKind::kCorruptFile, "has no tokenizer.ggml.scores",
         GgufBuilder().text("tokenizer.ggml.model", "llama").strings(kTokens, {"a"}));
}

}  // namespace
}  // namespace signround
