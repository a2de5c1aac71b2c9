#include "signround/io/parquet.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "signround/base/error.h"
#include "signround/base/random.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

using Strings = std::vector<std::string>;
using Rows = std::vector<Strings>;

// pyarrow 26.0.1 wrote the files: scripts/make_parquet_fixtures.py.
std::string fixture(const std::string& name) {
  return testing::read_file(testing::testdata().string() + "/parquet/" + name);
}

Rows read_bytes(const std::string& bytes, std::string_view column) {
  const ParquetFile file(std::as_bytes(std::span(bytes)), "test.parquet");
  const parquet::Leaf* leaf = file.find(column);
  Rows rows;
  if (!leaf) return rows;
  file.read_strings(*leaf, [&](Strings& strings) {
    rows.push_back(strings);
    return true;
  });
  EXPECT_EQ(static_cast<int64_t>(rows.size()), file.row_count());
  return rows;
}

Rows texts_of_table(bool null_is_empty) {
  Rows rows;
  const auto table = nlohmann::json::parse(fixture("rows.json"));
  for (const auto& text : table["text"]) {
    if (text.is_null()) {
      rows.push_back(null_is_empty ? Strings{""} : Strings{});
    } else {
      rows.push_back({text.get<std::string>()});
    }
  }
  return rows;
}

class ParquetForms : public ::testing::TestWithParam<const char*> {};

TEST_P(ParquetForms, GivesTheTableBack) {
  EXPECT_EQ(read_bytes(fixture(std::string(GetParam()) + ".parquet"), "text"),
            texts_of_table(false));
}

INSTANTIATE_TEST_SUITE_P(Pyarrow, ParquetForms,
                         ::testing::Values("plain_none", "dictionary_snappy", "dictionary_v2_zstd",
                                           "plain_gzip_groups", "plain_v2_lz4", "pages_checksums",
                                           "delta_length", "delta_strings"),
                         [](const auto& form) { return std::string(form.param); });

TEST(Parquet, ReadsRequiredColumnsNullsOnlyAndNothing) {
  EXPECT_EQ(read_bytes(fixture("required.parquet"), "text"), texts_of_table(true));
  EXPECT_EQ(read_bytes(fixture("nulls.parquet"), "text"), Rows(300));
  EXPECT_EQ(read_bytes(fixture("empty.parquet"), "text"), Rows{});
}

TEST(Parquet, ReadsListsAcrossPagesAndRowGroups) {
  Rows roles, contents;
  const auto table = nlohmann::json::parse(fixture("rows.json"));
  for (const auto& chat : table["messages"]) {
    roles.emplace_back(), contents.emplace_back();
    for (const auto& turn : chat) {
      roles.back().push_back(turn["role"]);
      contents.back().push_back(turn["content"]);
    }
  }
  for (const char* name : {"messages.parquet", "messages_v2.parquet"}) {
    EXPECT_EQ(read_bytes(fixture(name), "messages.list.element.role"), roles) << name;
    EXPECT_EQ(read_bytes(fixture(name), "messages.list.element.content"), contents) << name;
  }
}

TEST(Parquet, StopsWhenTheCallerHasEnough) {
  const std::string bytes = fixture("plain_gzip_groups.parquet");
  const ParquetFile file(std::as_bytes(std::span(bytes)), "test.parquet");
  int rows = 0;
  file.read_strings(*file.find("text"), [&](Strings&) { return ++rows < 75; });
  EXPECT_EQ(rows, 75);
}

void expect_error(const std::string& bytes, ErrorKind kind, const std::string& part,
                  const char* column = "text") {
  try {
    read_bytes(bytes, column);
    ADD_FAILURE() << "accepted; expected: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Parquet, SaysWhatItCannotRead) {
  expect_error(fixture("brotli.parquet"), ErrorKind::kUnsupported, "Brotli");
  expect_error(fixture("plain_none.parquet"), ErrorKind::kUnsupported, "does not hold strings",
               "id");
  expect_error("PAR1", ErrorKind::kCorruptFile, "no Parquet file");
  expect_error("{\"text\": \"this is JSON\"}", ErrorKind::kCorruptFile, "no Parquet file");
}

TEST(Parquet, RefusesFilesThatAreCutOff) {
  const std::string whole = fixture("dictionary_snappy.parquet");
  for (size_t size = 0; size < whole.size(); size += 7)
    expect_error(whole.substr(0, size), ErrorKind::kCorruptFile, "test.parquet");
}

TEST(Parquet, AWrongChecksumIsSeen) {
  std::string bytes = fixture("pages_checksums.parquet");
  const size_t at = bytes.find("er abab");
  ASSERT_NE(at, std::string::npos);
  bytes[at] = 'E';
  expect_error(bytes, ErrorKind::kCorruptFile, "checksum");
}

// Whatever a byte becomes, the file is read or refused; sanitizers see what else could happen.
TEST(Parquet, DamagedFilesAreReadOrRefused) {
  PythonRandom random(1);
  int refused = 0;
  for (const char* name :
       {"dictionary_snappy.parquet", "dictionary_v2_zstd.parquet", "plain_gzip_groups.parquet",
        "plain_v2_lz4.parquet", "delta_length.parquet", "delta_strings.parquet", "messages.parquet",
        "messages_v2.parquet", "nulls.parquet"}) {
    const std::string whole = fixture(name);
    for (int i = 0; i < 400; ++i) {
      std::string bytes = whole;
      // Half of the damage goes to the footer, where most of the structure is.
      const size_t begin = i % 2 ? bytes.size() - std::min<size_t>(bytes.size(), 700) : 0;
      for (int k = 0; k <= i % 3; ++k)
        bytes[begin + random.below(bytes.size() - begin)] = static_cast<char>(random.below(256));
      try {
        const ParquetFile file(std::as_bytes(std::span(bytes)), name);
        for (const parquet::Leaf& leaf : file.columns())
          if (leaf.type == parquet::Type::kByteArray)
            file.read_strings(leaf, [](Strings&) { return true; });
      } catch (const Error& error) {
        EXPECT_TRUE(error.kind() == ErrorKind::kCorruptFile ||
                    error.kind() == ErrorKind::kUnsupported)
            << error.what();
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 900);  // a quarter of 3,600: otherwise the damage misses what is read
}

}  // namespace
}  // namespace signround
