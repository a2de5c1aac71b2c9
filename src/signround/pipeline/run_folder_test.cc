#include "signround/pipeline/run_folder.h"

#include <set>

#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::TempDir;
using testing::write_file;

TEST(RunFolder, ThatFailedBeforeItsJournalBeganLeavesNothing) {
  TempDir dir;
  {
    RunFolder folder(dir / "out", dir / "model");
    write_file(dir / "out/model.safetensors.partial", "x");
  }
  EXPECT_FALSE(fs::exists(dir / "out"));
}

TEST(RunFolder, LeavesAnEmptyFolderThatWasThere) {
  TempDir dir;
  fs::create_directory(dir / "out");
  { RunFolder folder(dir / "out", dir / "model"); }
  EXPECT_TRUE(fs::is_empty(dir / "out"));
}

TEST(RunFolder, KeepsAnUnfinishedRun) {
  TempDir dir;
  {
    RunFolder folder(dir / "out", dir / "model");
    EXPECT_FALSE(folder.has_unfinished_run());
    EXPECT_FALSE(folder.earlier_settings());
    write_file(folder.journal(), "{\"seed\":1}\n{\"index\":0}\n");
    write_file(dir / "out/model.safetensors.partial", "x");
  }
  RunFolder again(dir / "out", dir / "model");
  EXPECT_TRUE(again.has_unfinished_run());
  EXPECT_FALSE(again.finished_settings());
  EXPECT_EQ(again.earlier_settings().value()["seed"], 1);
  EXPECT_TRUE(fs::exists(dir / "out/model.safetensors.partial"));
}

TEST(RunFolder, KnowsAFinishedRunAndLeavesItAlone) {
  TempDir dir;
  fs::create_directory(dir / "out");
  write_file(dir / "out/signround.json", "{\"settings\": {\"seed\": 2}}");
  write_file(dir / "out/config.json", "{}");
  {
    RunFolder folder(dir / "out", dir / "model");
    EXPECT_EQ(folder.finished_settings().value()["seed"], 2);
    EXPECT_EQ(folder.earlier_settings().value()["seed"], 2);
  }
  EXPECT_TRUE(fs::exists(dir / "out/config.json"));
  EXPECT_FALSE(fs::exists(dir / "out/.signround"));
}

TEST(RunFolder, ClearsItsOwnFilesAndNoOthers) {
  TempDir dir;
  fs::create_directories(dir / "out/fake");
  fs::create_directories(dir / "out/original");
  for (const char* ours : {"signround.json", "config.json", "model-00001-of-00002.safetensors",
                           "fake/config.json", "fake/model.safetensors"})
    write_file(dir / ("out/" + std::string(ours)), "{}");
  for (const char* others : {"notes.txt", "original/config.json", "original/model.safetensors"})
    write_file(dir / ("out/" + std::string(others)), "{}");
  RunFolder folder(dir / "out", dir / "model");
  folder.clear();
  std::set<std::string> left;
  for (const auto& entry : fs::recursive_directory_iterator(dir / "out"))
    if (entry.path().string().find(".signround") == std::string::npos)
      left.insert(fs::relative(entry.path(), dir / "out").string());
  EXPECT_EQ(left, (std::set<std::string>{"notes.txt", "original", "original/config.json",
                                         "original/model.safetensors"}));
}

TEST(RunFolder, RefusesWhatIsSomebodyElses) {
  TempDir dir;
  fs::create_directories(dir / "model");
  expect_error(ErrorKind::kInvalidArgument, "the model itself",
               [&] { RunFolder(dir / "model", dir / "model"); });
  fs::create_directories(dir / "other");
  write_file(dir / "other/thesis.tex", "x");
  expect_error(ErrorKind::kBusy, "thesis.tex", [&] { RunFolder(dir / "other", dir / "model"); });
  expect_error(ErrorKind::kBusy, "is a file",
               [&] { RunFolder(dir / "other/thesis.tex", dir / "model"); });
  expect_error(ErrorKind::kIo, "cannot create",
               [&] { RunFolder(dir / "other/thesis.tex/out", dir / "model"); });
}

TEST(RunFolder, IsHeldByOneRunAtATime) {
  TempDir dir;
  RunFolder first(dir / "out", dir / "model");
  expect_error(ErrorKind::kBusy, "only one run", [&] { RunFolder(dir / "out", dir / "model"); });
  EXPECT_TRUE(fs::exists(dir / "out/.signround")) << "the refused run removed the other's folder";
}

TEST(RunFolder, DoesNotTrustAReportThatIsNoJson) {
  TempDir dir;
  fs::create_directory(dir / "out");
  write_file(dir / "out/signround.json", "rubbish");
  EXPECT_EQ(RunFolder(dir / "out", dir / "model").finished_settings().value(),
            nlohmann::ordered_json::object());
}

}  // namespace
}  // namespace signround
