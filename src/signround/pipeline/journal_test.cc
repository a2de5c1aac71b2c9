#include "signround/pipeline/journal.h"

#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using nlohmann::ordered_json;
using testing::read_file;
using testing::TempDir;
using testing::write_file;

const ordered_json kSettings = {{"bits", 4}, {"seed", 42}};

ordered_json block(int index) { return {{"index", index}, {"hashes", {"a", "b"}}}; }

TEST(Journal, GivesBackTheBlocksThatWereFinished) {
  TempDir folder;
  Journal written = Journal::open(folder / "journal", kSettings);
  EXPECT_TRUE(written.finished().empty());
  EXPECT_FALSE(std::filesystem::exists(folder / "journal"));
  written.begin(0);
  written.append(block(0));
  written.append(block(1));
  EXPECT_EQ(Journal::open(folder / "journal", kSettings).finished(),
            (std::vector<ordered_json>{block(0), block(1)}));
}

TEST(Journal, IgnoresALastLineThatWasCutByAKill) {
  TempDir folder;
  Journal written = Journal::open(folder / "journal", kSettings);
  written.begin(0);
  written.append(block(0));
  const std::string whole = read_file(folder / "journal");
  const size_t first_line = whole.find('\n') + 1;
  for (size_t length = 0; length < whole.size(); ++length) {
    write_file(folder / "journal", whole.substr(0, length));
    EXPECT_TRUE(Journal::open(folder / "journal", kSettings).finished().empty())
        << length << " of " << whole.size() << " bytes";
  }
  // What is appended behind the cut stands on a line of its own.
  write_file(folder / "journal", whole.substr(0, first_line + 5));
  Journal again = Journal::open(folder / "journal", kSettings);
  again.begin(again.finished().size());
  again.append(block(0));
  EXPECT_EQ(read_file(folder / "journal"), whole);
}

TEST(Journal, ForgetsBlocksThatTurnedOutToBeDamaged) {
  TempDir folder;
  Journal written = Journal::open(folder / "journal", kSettings);
  written.begin(0);
  for (int i = 0; i < 3; ++i) written.append(block(i));
  Journal again = Journal::open(folder / "journal", kSettings);
  again.begin(1);
  EXPECT_EQ(Journal::open(folder / "journal", kSettings).finished(),
            std::vector<ordered_json>{block(0)});
}

TEST(Journal, OfOtherSettingsIsRefusedWithTheirNames) {
  TempDir folder;
  Journal written = Journal::open(folder / "journal", kSettings);
  written.begin(0);
  const ordered_json others = {{"bits", 4}, {"seed", 7}, {"lr", 0.5}};
  testing::expect_error(ErrorKind::kBusy, "seed: 42 then, 7 now",
                        [&] { Journal::open(folder / "journal", others); });
  testing::expect_error(ErrorKind::kBusy, "lr: not there then, 0.5 now",
                        [&] { Journal::open(folder / "journal", others); });
  try {
    Journal::open(folder / "journal", others);
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("bits"), std::string::npos)
        << "equal settings are named";
  }
}

TEST(Journal, SaysWhichLineIsBroken) {
  TempDir folder;
  write_file(folder / "journal",
             kSettings.dump() + "\n" + block(0).dump() + "\nrubbish\n" + block(2).dump() + "\n");
  testing::expect_error(ErrorKind::kCorruptFile, "journal:3",
                        [&] { Journal::open(folder / "journal", kSettings); });
}

TEST(Journal, RefusesLinesOfOtherTypesThanItWrites) {
  TempDir folder;
  for (const char* line : {"{}", R"({"index": "0", "hashes": []})", R"({"index": 0})",
                           R"({"index": 0, "hashes": [1]})", R"({"index": 0, "hashes": "ab"})",
                           R"({"index": 0, "hashes": [], "degradations": 3})",
                           R"({"index": 0, "hashes": [], "best_iteration": "x"})"}) {
    write_file(folder / "journal", kSettings.dump() + "\n" + line + "\n");
    SCOPED_TRACE(line);
    testing::expect_error(ErrorKind::kCorruptFile, "journal:2",
                          [&] { Journal::open(folder / "journal", kSettings); });
  }
}

}  // namespace
}  // namespace signround
