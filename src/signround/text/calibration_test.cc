#include "signround/text/calibration.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/testdata.h"
#include "signround/text/number_tokenizer.h"

namespace signround {
namespace {

using testing::NumberTokenizer;
using testing::TempDir;
using testing::write_file;
using Rows = std::vector<std::vector<int32_t>>;

CalibrationOptions options_for(const std::string& dataset, int64_t nsamples, int64_t seqlen,
                               bool shuffle = false) {
  CalibrationOptions options;
  options.dataset = dataset;
  options.nsamples = nsamples;
  options.seqlen = seqlen;
  options.shuffle = shuffle;
  return options;
}

TEST(Calibration, KeepsDocumentsThatFillARowInTheOrderOfTheFile) {
  TempDir dir;
  write_file(
      dir / "a.jsonl",
      "\"10 11 12 13 14\"\n\"20 21\"\n\"\"\n7\n\"30 31 32 33\"\n\"9 8 8 8\"\n\"40 41 42 43\"\n");
  const auto set =
      load_calibration(options_for((dir / "a.jsonl").string(), 2, 4), NumberTokenizer(), nullptr);
  EXPECT_EQ(set.samples, (Rows{{10, 11, 12, 13}, {30, 31, 32, 33}}));
  EXPECT_TRUE(set.warnings.empty());
  const auto all =
      load_calibration(options_for((dir / "a.jsonl").string(), 9, 4), NumberTokenizer(), nullptr);
  EXPECT_EQ(all.samples.size(), 3u);
  const DatasetCounts& counts = all.datasets.at(0);
  EXPECT_EQ(counts.rows, 3);
  EXPECT_EQ(counts.used, 3);
  EXPECT_EQ(counts.documents, 7);
  EXPECT_EQ(counts.examined, 6);
  EXPECT_EQ(counts.too_short, 1);
  EXPECT_EQ(counts.empty, 1);
  EXPECT_EQ(counts.not_text, 1);
  EXPECT_EQ(counts.repetitive, 1);  // three times 8 of four
  EXPECT_EQ(counts.used, 3);
  ASSERT_EQ(all.warnings.size(), 1u);
  EXPECT_NE(all.warnings[0].find("9 calibration samples of 4 tokens asked, 3 found"),
            std::string::npos);
}

TEST(Calibration, TruncationKeepsTheSpecialTokensAsTheReferenceDoes) {
  TempDir dir;
  write_file(dir / "a.jsonl", "\"10 11 12 13 14\"\n\"20 21\"\n");
  const auto set = load_calibration(options_for((dir / "a.jsonl").string(), 2, 4),
                                    NumberTokenizer(true, true), nullptr);
  EXPECT_EQ(set.samples, (Rows{{1, 10, 11, 2}, {1, 20, 21, 2}}));
}

TEST(Calibration, ConcatReservesExactlyBosAndEos) {
  TempDir dir;
  write_file(dir / "a.jsonl", "\"10 11 12\"\n\"20\"\n\"30 31 32 33\"\n\"40 41 42\"\n");
  const std::string name = (dir / "a.jsonl").string() + ":concat";
  EXPECT_EQ(load_calibration(options_for(name, 9, 4), NumberTokenizer(), nullptr).samples,
            (Rows{{10, 11, 12, 20}, {30, 31, 32, 33}}));
  EXPECT_EQ(
      load_calibration(options_for(name, 9, 4), NumberTokenizer(true, false), nullptr).samples,
      (Rows{{1, 10, 11, 12}, {1, 20, 30, 31}, {1, 32, 40, 41}}));  // 30 .. 33 was cut to 1 30 31 32
  EXPECT_EQ(load_calibration(options_for(name, 9, 4), NumberTokenizer(true, true), nullptr).samples,
            (Rows{{1, 10, 11, 2}, {1, 20, 30, 2}, {1, 31, 40, 2}}));
}

TEST(Calibration, TextFilesAreJoinedWithoutLoss) {
  TempDir dir;
  write_file(dir / "a.txt", "10 11 12 13 14 15 16\n\n20 21\n\n30 31");
  const auto set =
      load_calibration(options_for((dir / "a.txt").string(), 9, 3), NumberTokenizer(), nullptr);
  EXPECT_EQ(set.samples, (Rows{{10, 11, 12}, {13, 14, 15}, {16, 20, 21}}));
  const auto apart = load_calibration(options_for((dir / "a.txt").string() + ":concat=False", 9, 3),
                                      NumberTokenizer(), nullptr);
  EXPECT_EQ(apart.samples, (Rows{{10, 11, 12}}));
}

TEST(Calibration, NoSampleIsAnErrorThatSaysWhatThereWasAndWhatToDo) {
  TempDir dir;
  write_file(dir / "a.jsonl", "\"1 2 3\"\n\"1 2 3 4 5\"\n\"1\"\n");
  try {
    load_calibration(options_for((dir / "a.jsonl").string(), 9, 64), NumberTokenizer(), nullptr);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    for (const char* part :
         {"3 documents", "longest 5 tokens", "median 3", "--seqlen", ":concat=True"})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Calibration, TheModelsLongestInputCutsSeqlenWithAWarning) {
  TempDir dir;
  write_file(dir / "a.jsonl", "\"10 11 12 13 14\"\n");
  auto options = options_for((dir / "a.jsonl").string(), 1, 64);
  options.max_position = 3;
  const auto set = load_calibration(options, NumberTokenizer(), nullptr);
  EXPECT_EQ(set.samples, (Rows{{10, 11, 12}}));
  EXPECT_EQ(set.seqlen, 3);
  EXPECT_EQ(set.warnings.size(), 1u);
}

TEST(Calibration, TheTemplateGetsSystemAndUserTurns) {
  TempDir dir;
  write_file(dir / "a.json", R"(["10 11", {"messages": [{"role": "user", "content": "20"}]}])");
  const RenderChat render = [](const nlohmann::ordered_json& messages) {
    std::string text;
    for (const auto& m : messages) {
      if (m["role"] == "system" && m["content"] == "70")
        fail(ErrorKind::kUnsupported, "template", "no system role");
      text += (m["role"] == "system" ? "50 " : "60 ") + m["content"].get<std::string>() + " ";
    }
    return text + "61";
  };
  const std::string name = (dir / "a.json").string();
  const NumberTokenizer tokenizer(true, false);  // no BOS is added: templates write their own
  EXPECT_EQ(
      load_calibration(options_for(name + ":system_prompt=55", 9, 4), tokenizer, render).samples,
      (Rows{{50, 55, 60, 10}, {50, 55, 60, 20}}));
  EXPECT_EQ(
      load_calibration(options_for(name + ":system_prompt=", 9, 3), tokenizer, render).samples,
      (Rows{{60, 10, 11}, {60, 20, 61}}));
  EXPECT_EQ(
      load_calibration(options_for(name + ":system_prompt=70", 9, 3), tokenizer, render).samples,
      (Rows{{60, 10, 11}, {60, 20, 61}}));
  EXPECT_THROW(load_calibration(options_for(name + ":system_prompt=55", 9, 4), tokenizer, nullptr),
               Error);
}

TEST(Calibration, AConversationKeepsItsOwnSystemTurn) {
  TempDir dir;
  write_file(dir / "a.json", R"([[{"role": "system", "content": "51"},
                                  {"role": "user", "content": "20"}]])");
  const RenderChat render = [](const nlohmann::ordered_json& messages) {
    std::string text;
    for (const auto& m : messages) text += m["content"].get<std::string>() + " ";
    return text;
  };
  const std::string name = (dir / "a.json").string();
  for (const char* option : {":apply_chat_template", ":system_prompt=55"})
    EXPECT_EQ(load_calibration(options_for(name + option, 9, 2), NumberTokenizer(), render).samples,
              (Rows{{51, 20}}));
}

TEST(Calibration, SeveralSetsShareWhatIsLeftFromTheSmallestUp) {
  TempDir dir;
  std::string a, b, c;
  for (int i = 0; i < 2; ++i) a += "\"10 11\"\n";
  for (int i = 0; i < 9; ++i) b += "\"20 21\"\n", c += "\"30 31\"\n";
  write_file(dir / "a.jsonl", a), write_file(dir / "b.jsonl", b), write_file(dir / "c.jsonl", c);
  const std::string names[] = {(dir / "a.jsonl").string(), (dir / "b.jsonl").string(),
                               (dir / "c.jsonl").string()};
  // 12 for three: 4 each, but a has 2, so that b and c get 5 each.
  auto set = load_calibration(options_for(names[1] + "," + names[0] + "," + names[2], 12, 2),
                              NumberTokenizer(), nullptr);
  EXPECT_EQ(set.samples.size(), 12u);
  EXPECT_EQ(set.datasets[0].used, 5);
  EXPECT_EQ(set.datasets[1].used, 2);
  EXPECT_EQ(set.datasets[2].used, 5);
  EXPECT_EQ(set.samples[0][0], 10);  // smallest first when nothing is shuffled
  // num= is taken first: 8 - 5 = 3 for a and c, 1 for a, 2 for c.
  set = load_calibration(options_for(names[0] + "," + names[1] + ":num=5," + names[2], 8, 2),
                         NumberTokenizer(), nullptr);
  EXPECT_EQ(set.datasets[0].used, 1);
  EXPECT_EQ(set.datasets[1].used, 5);
  EXPECT_EQ(set.datasets[2].used, 2);
  set = load_calibration(options_for(names[0] + ":num=3," + names[1], 8, 2), NumberTokenizer(),
                         nullptr);
  ASSERT_EQ(set.warnings.size(), 2u);  // 2 of num=3, 7 of 8
}

TEST(Calibration, TheSeedDecidesTheOrderAndTheHash) {
  TempDir dir;
  std::string lines;
  for (int i = 0; i < 50; ++i) lines += "\"" + std::to_string(i) + " 3\"\n";
  write_file(dir / "a.jsonl", lines);
  auto options = options_for((dir / "a.jsonl").string(), 20, 2, true);
  const auto one = load_calibration(options, NumberTokenizer(), nullptr);
  EXPECT_EQ(load_calibration(options, NumberTokenizer(), nullptr).hash(), one.hash());
  options.seed = 43;
  EXPECT_NE(load_calibration(options, NumberTokenizer(), nullptr).hash(), one.hash());
  options.dataset += ":shuffle=False";
  EXPECT_EQ(load_calibration(options, NumberTokenizer(), nullptr).samples[19][0], 19);
}

TEST(Calibration, MakesTheRowsThatAutoRoundMakes) {
  const std::string folder = testing::testdata().string() + "/calibration/";
  const auto golden = nlohmann::json::parse(testing::read_file(folder + "auto_round.json"));
  ASSERT_EQ(golden["cases"].size(), 14u);
  const RenderChat render = [](const nlohmann::ordered_json& messages) {
    std::string text;
    for (const auto& m : messages)
      text += (m["role"] == "system" ? "50 " : "60 ") + m["content"].get<std::string>() + " ";
    return text + "61";
  };
  for (const auto& one : golden["cases"]) {
    std::string dataset = "," + one["dataset"].get<std::string>();
    for (size_t at = 0; (at = dataset.find(',', at)) != std::string::npos; at += folder.size() + 1)
      dataset.insert(at + 1, folder);
    CalibrationOptions options =
        options_for(dataset.substr(1), one["nsamples"], one["seqlen"], true);
    options.seed = one["seed"];
    EXPECT_EQ(load_calibration(options, NumberTokenizer(), render).samples, one["rows"].get<Rows>())
        << one["dataset"];
  }
}

TEST(Calibration, TheBuiltInTextFillsTheDefaultRequestAtHalfLength) {
  const auto set =
      load_calibration(options_for("default", 128, 1024, true), NumberTokenizer(), nullptr);
  EXPECT_EQ(set.samples.size(), 128u);
  EXPECT_TRUE(set.warnings.empty());
  EXPECT_EQ(set.datasets[0].not_text, 0);
  EXPECT_EQ(set.datasets[0].too_short, 0);
  for (const auto& row : set.samples) ASSERT_EQ(row.size(), 1024u);
}

TEST(LossMask, LeavesOutPadsElseTheRunAtTheEndAndAlwaysTheLast) {
  using Mask = std::vector<uint8_t>;
  EXPECT_EQ(loss_mask({5, 0, 6, 0, 0}, 0), (Mask{1, 0, 1, 0, 0}));
  EXPECT_EQ(loss_mask({5, 7, 6, 9, 9}, 0), (Mask{1, 1, 1, 1, 0}));
  EXPECT_EQ(loss_mask({5, 9, 6, 9, 9}, -1), (Mask{1, 1, 1, 0, 0}));
  EXPECT_EQ(loss_mask({5, 6}, -1), (Mask{1, 0}));
  EXPECT_EQ(loss_mask({9, 9}, -1), (Mask{0, 0}));
  EXPECT_EQ(loss_mask({}, -1), Mask{});
}

}  // namespace
}  // namespace signround
