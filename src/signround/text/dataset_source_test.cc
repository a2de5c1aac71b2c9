#include "signround/text/dataset_source.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/base/random.h"
#include "signround/testing/http_server.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/testdata.h"
#include "signround/text/calibration.h"
#include "signround/text/dataset_registry.h"
#include "signround/text/number_tokenizer.h"

namespace signround {
namespace {

using testing::HttpRequest;
using testing::HttpResponse;
using testing::HttpServer;
using testing::NumberTokenizer;
using testing::read_file;
using testing::TempDir;
using testing::write_file;
using Strings = std::vector<std::string>;

std::vector<std::string> texts(const DatasetSource& source) {
  Strings out;
  for (const Document& d : source.documents.items) out.push_back(d.text);
  return out;
}

TEST(DatasetRegistry, KnowsAutoRoundsNamesAndPartsOfThem) {
  EXPECT_EQ(find_registered_dataset("pile-10k")->id, "NeelNanda/pile-10k");
  EXPECT_EQ(find_registered_dataset("NeelNanda/pile-10k")->id, "NeelNanda/pile-10k");
  EXPECT_EQ(find_registered_dataset("ultrachat")->id, "HuggingFaceH4/ultrachat_200k");
  EXPECT_EQ(find_registered_dataset("someone/pile-10k"), nullptr);  // another data set of the Hub
  EXPECT_EQ(find_registered_dataset("nothing-like-it"), nullptr);
}

TEST(DatasetRegistry, ChoosesFilesByTheHubsRules) {
  const Strings shards = {"README.md", "data/train_sft-00000-of-00002-a1.parquet",
                          "data/train_gen-00000-of-00001.parquet",
                          "data/test_sft-00000-of-00001.parquet"};
  EXPECT_EQ(choose_dataset_files(shards, "", {"train_sft"}), (Strings{shards[1]}));
  EXPECT_EQ(choose_dataset_files(shards, "", {"train"}), Strings{});
  const Strings words = {"en/c4-train.00000-of-00002.json.gz",
                         "en/c4-validation.00000-of-00001.json.gz",
                         "fr/c4-train.00000-of-00002.json.gz",
                         "dev.jsonl",
                         "training/x.txt",
                         ".hidden.json"};
  EXPECT_EQ(choose_dataset_files(words, "en", {}), (Strings{words[0]}));
  EXPECT_EQ(choose_dataset_files(words, "", {"train"}), (Strings{words[0], words[2], words[4]}));
  EXPECT_EQ(choose_dataset_files(words, "", {"val"}), (Strings{words[1], words[3]}));
  const Strings bare = {"a.jsonl", "contest.parquet", "dataset_infos.json"};
  EXPECT_EQ(choose_dataset_files(bare, "", {"train"}), (Strings{"a.jsonl", "contest.parquet"}));
  EXPECT_EQ(choose_dataset_files(bare, "", {"test"}), Strings{});
  EXPECT_EQ(choose_dataset_files({"part-00000-of-00001.parquet"}, "", {}),
            (Strings{"part-00000-of-00001.parquet"}));
}

TEST(DatasetSource, AFolderIsItsFilesOfTheSplitInOrder) {
  TempDir dir;
  std::filesystem::create_directories(dir / "data");
  write_file(dir / "data/train-b.jsonl", "\"b\"\n");
  write_file(dir / "data/train-a.json", "[\"a\"]");
  write_file(dir / "data/test.txt", "t");
  write_file(dir / "README.md", "x");
  auto specs = parse_dataset_specs("\"" + dir.path().string() + "\"");
  EXPECT_EQ(texts(open_dataset(specs[0])), (Strings{"a", "b"}));
  specs[0].splits = {"test"};
  EXPECT_EQ(texts(open_dataset(specs[0])), (Strings{"t"}));
  specs[0].splits = {"validation"};
  EXPECT_THROW(open_dataset(specs[0]), Error);
}

TEST(DatasetSource, UnknownNamesAreErrorsThatListTheKnownOnes) {
  try {
    open_dataset(parse_dataset_specs("no-such-data")[0]);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    for (const char* part : {"no-such-data", "default", "pile-10k", "org/name"})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

// A data set "NeelNanda/pile-10k" on a server of this test.
class HubDataset : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::kQuiet);
    setenv("HF_ENDPOINT", server.url().c_str(), 1);
    setenv("HF_HUB_CACHE", (dir / "hub").c_str(), 1);
    unsetenv("HF_HUB_OFFLINE");
  }
  void TearDown() override {
    for (const char* name : {"HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_OFFLINE"}) unsetenv(name);
    set_log_level(LogLevel::kInfo);
  }
  HttpResponse respond(const HttpRequest& request) {
    const std::string commit(40, 'c');
    const std::string page = "/datasets/" + id + "/resolve/" + commit + "/";
    if (request.path.starts_with("/api/datasets/" + id + "/revision/main")) {
      nlohmann::json json{{"sha", commit}, {"siblings", nlohmann::json::array()}};
      for (const auto& [name, content] : files)
        json["siblings"].push_back(
            {{"rfilename", name}, {"size", content.size()}, {"blobId", git_blob_hex(content)}});
      return {200, {}, json.dump()};
    }
    if (request.path.starts_with(page) && files.contains(request.path.substr(page.size())))
      return {200, {}, files[request.path.substr(page.size())]};
    return {404, {}, ""};
  }

  TempDir dir;
  std::string id = "NeelNanda/pile-10k";
  std::map<std::string, std::string> files;
  HttpServer server{[this](const HttpRequest& request) { return respond(request); }};
};

TEST_F(HubDataset, IsDownloadedAndShuffledAsDatasetsDoes) {
  std::string lines;
  for (int i = 10; i < 40; ++i)
    lines += "{\"text\": \"" + std::to_string(i) + " 5\", \"meta\": {}}\n";
  files = {{"data/train-00000-of-00001.jsonl", lines},
           {"README.md", "x"},
           {"data/test-00000-of-00001.jsonl", "\"9\""}};
  CalibrationOptions options;
  options.dataset = "pile-10k";
  options.nsamples = 30;
  options.seqlen = 2;
  const auto set = load_calibration(options, NumberTokenizer(), nullptr);
  ASSERT_EQ(set.samples.size(), 30u);
  const auto order = NumpyRandom(42).permutation(30);
  for (size_t i = 0; i < 30; ++i) EXPECT_EQ(set.samples[i][0], 10 + order[i]) << i;
  EXPECT_EQ(set.datasets[0].name, "pile-10k");

  setenv("HF_HUB_OFFLINE", "1", 1);  // now from the cache
  EXPECT_EQ(load_calibration(options, NumberTokenizer(), nullptr).hash(), set.hash());
}

TEST_F(HubDataset, AnyOtherDataSetIsReadByItsParquetFiles) {
  id = "someone/texts";
  const std::string folder = testing::testdata().string() + "/parquet/";
  files = {{"part/train-00000-of-00001.parquet", read_file(folder + "dictionary_snappy.parquet")}};
  const auto source = open_dataset(parse_dataset_specs("someone/texts:config=part")[0]);
  EXPECT_EQ(source.documents.items.size() + source.documents.not_text, 300u);
  EXPECT_EQ(source.rule, ShuffleRule::kNumpy);
  EXPECT_THROW(open_dataset(parse_dataset_specs("someone/texts:config=other")[0]), Error);
}

TEST_F(HubDataset, ColumnsOfAnEntryAreJoinedAndSplitsKeepTheirOrder) {
  id = "google-research-datasets/mbpp";
  files = {{"full/test-00000-of-00001.jsonl", "{\"text\": \"c\", \"code\": \"3\"}"},
           {"full/train-00000-of-00001.jsonl", "{\"text\": \"a\", \"code\": \"1\"}"},
           {"full/validation-00000-of-00001.jsonl", "{\"text\": \"b\", \"code\": \"2\"}"},
           {"sanitized/train-00000-of-00001.jsonl", "{\"text\": \"z\", \"code\": \"0\"}"}};
  const auto source = open_dataset(parse_dataset_specs("mbpp")[0]);
  EXPECT_EQ(texts(source), (Strings{"a1", "b2", "c3"}));
  EXPECT_EQ(source.rule, ShuffleRule::kPython);
}

TEST_F(HubDataset, OfflineWithoutACopyNamesTheDataSetAndTheEndpoint) {
  setenv("HF_HUB_OFFLINE", "1", 1);
  try {
    open_dataset(parse_dataset_specs("pile-10k")[0]);
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    for (const std::string& part :
         {std::string("NeelNanda/pile-10k"), server.url(), std::string("HF_HUB_OFFLINE")})
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace signround
