#include "signround/text/documents.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

using testing::TempDir;
using testing::write_file;

DocumentSet read(const std::string& name, const std::string& bytes,
                 const DocumentFields& fields = {}, const DocumentLimits& limits = {}) {
  TempDir dir;
  write_file(dir / name, bytes);
  DocumentSet out;
  read_documents(dir / name, fields, limits, out);
  return out;
}

std::vector<std::string> texts(const DocumentSet& set) {
  std::vector<std::string> out;
  for (const Document& d : set.items) out.push_back(d.text);
  return out;
}

using Strings = std::vector<std::string>;

TEST(Documents, JsonlTakesTheOnlyFieldElseTextElseMessagesElseIds) {
  const auto set = read("a.jsonl",
                        "\xef\xbb\xbf\"bare \"\n"
                        "{\"only\": \"one field\\n\"}\r\n"
                        "\n"
                        "{\"id\": 3, \"text\": \"two fields\"}\n"
                        "{\"id\": 3, \"body\": \"no known field\"}\n"
                        "{\"id\": 4, \"input_ids\": [5, 6, 7]}\n"
                        "{\"id\": 4, \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n"
                        "{\"text\": 17}");
  EXPECT_EQ(texts(set), (Strings{"bare", "one field", "two fields", "", ""}));
  EXPECT_EQ(set.items[3].ids, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(set.items[4].messages[0]["content"], "hi");
  EXPECT_EQ(set.not_text, 2);
}

TEST(Documents, NamedFieldsAreJoined) {
  const std::string rows = "{\"input\": \"in\", \"output\": \"out \"}\n{\"input\": \"alone\"}\n";
  const auto set = read("a.jsonl", rows, {{"input", "output"}, "\n\n"});
  EXPECT_EQ(texts(set), (Strings{"in\n\nout"}));
  EXPECT_EQ(set.not_text, 1);
  EXPECT_EQ(texts(read("a.jsonl", rows, {{"input"}, ""})), (Strings{"in", "alone"}));
}

TEST(Documents, JsonIsAListOrAnObjectOfRowsOrLists) {
  EXPECT_EQ(texts(read("a.json", "[\"a\", {\"text\": \"b\", \"n\": 1}]")), (Strings{"a", "b"}));
  EXPECT_EQ(texts(read("a.json", "{\"version\": 3, \"data\": [\"a\", \"b\"]}")),
            (Strings{"a", "b"}));
  EXPECT_EQ(texts(read("a.json", "{\n\"x\": \"a\",\n\"y\": {\"text\": \"b\"}}")),
            (Strings{"a", "b"}));
  EXPECT_EQ(texts(read("a.json", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n")), (Strings{"a", "b"}));
  EXPECT_EQ(read("a.json", "{\"version\": 3, \"data\": [\"a\"]}").not_text, 1);
}

TEST(Documents, WhiteSpaceAtTheEndOfARowIsRemovedAsPythonDoes) {
  EXPECT_EQ(texts(read("a.jsonl", "\" a\\u3000b\\u00a0 \\u3000\\u001f\\n\"\n")),
            (Strings{" a\u3000b"}));
}

TEST(Documents, TextPiecesEndBehindBlankLinesAndGiveTheFileAgain) {
  const std::string text = "\n\nfirst\nstill first\n\n \nsecond\n\nthird, without an end";
  const auto set = read("a.txt", text);
  EXPECT_TRUE(set.continuous);
  EXPECT_EQ(texts(set),
            (Strings{"\n\nfirst\nstill first\n\n \n", "second\n\n", "third, without an end"}));
  EXPECT_EQ(texts(read("a.txt", "")), Strings{});
  EXPECT_EQ(texts(read("a.txt", "one line\n")), Strings{"one line\n"});
}

DocumentSet read_fixture(const std::string& name, const DocumentFields& fields = {},
                         const DocumentLimits& limits = {}) {
  DocumentSet out;
  read_documents(testing::testdata().string() + "/parquet/" + name, fields, limits, out);
  return out;
}

TEST(Documents, ParquetRowsAreReadAsOtherRows) {
  const auto table = nlohmann::ordered_json::parse(
      testing::read_file(testing::testdata().string() + "/parquet/rows.json"));
  Strings want;
  int64_t nulls = 0;
  for (const auto& text : table["text"]) {
    if (text.is_null()) {
      ++nulls;
      continue;
    }
    std::string stripped = text;
    while (stripped.ends_with(' ')) stripped.pop_back();
    want.push_back(stripped);
  }
  for (const char* name : {"dictionary_snappy.parquet", "plain_gzip_groups.parquet"}) {
    const auto set = read_fixture(name);
    EXPECT_EQ(texts(set), want);
    EXPECT_EQ(set.not_text, nulls);
  }
  const auto chats = read_fixture("messages.parquet");
  ASSERT_EQ(chats.items.size() + chats.not_text, 300u);
  EXPECT_EQ(chats.items[0].messages, table["messages"][0]);
  EXPECT_EQ(chats.items[2].messages.size(), 3u);
}

TEST(Documents, ParquetFilesWithoutTheColumnAreRefusedWithTheirColumns) {
  try {
    read_fixture("plain_none.parquet", {{"body"}, ""});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("columns are id, text"), std::string::npos)
        << error.what();
  }
  const auto set = read_fixture("plain_none.parquet", {}, {.max_text = 200});
  EXPECT_LT(set.items.size(), 30u);
  EXPECT_EQ(set.warnings.size(), 1u);
}

void expect_refused(const std::string& name, const std::string& bytes, const std::string& part,
                    const DocumentLimits& limits = {}, ErrorKind kind = ErrorKind::kCorruptFile) {
  try {
    read(name, bytes, {}, limits);
    ADD_FAILURE() << "accepted " << name << " for: " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Documents, BrokenLinesAreRefusedWithTheirNumber) {
  expect_refused("a.jsonl", "\"a\"\n\n{\"text\": \n\"b\"\n", "line 3");
  expect_refused("a.jsonl", "\"a\"\n\"\xff\"\n", "line 2");
  expect_refused("a.jsonl", "\"a\"\n\"b\" \"c\"", "line 2");
  expect_refused("a.jsonl", "\"a\"\n" + std::string(1000000, '['), "line 2");
  expect_refused("a.jsonl", "\"a\"\n\"" + std::string(3000, 'x') + "\"\n", "line 2",
                 {.max_line = 2000});
  expect_refused("a.json", "[\"a\"", "not JSON");
  expect_refused("a.json", "3", "expected a list");
  expect_refused("a.txt", "ab\xed\xa0\x80", "byte 2");
}

TEST(Documents, ALineMayCrossTheBlocksThatAreRead) {
  const std::string longer(3 << 20, 'x');
  const auto set = read("a.jsonl", "\"a\"\n\"" + longer + "\"\n\"b\"");
  EXPECT_EQ(texts(set), (Strings{"a", longer, "b"}));
}

TEST(Documents, GzipLinesAreReadAndDamageIsRefused) {
  // printf '"a"\n{"text": "b", "n": 1}\n' | gzip -n
  constexpr char kPacked[] =
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x53\x4a\x54\xe2\xaa\x56\x2a\x49\xad\x28\x51\xb2\x52"
      "\x50\x4a"
      "\x52\xd2\x51\x50\xca\x03\xb2\x0c\x6b\xb9\x00\xb4\xbb\x0c\x82\x1a\x00\x00\x00";
  const std::string packed(kPacked, sizeof(kPacked) - 1);
  EXPECT_EQ(texts(read("a.json.gz", packed)), (Strings{"a", "b"}));
  expect_refused("a.jsonl.gz", packed.substr(0, packed.size() - 12), "damaged or cut off");
  std::string wrong = packed;
  wrong[15] ^= 4;
  expect_refused("a.jsonl.gz", wrong, "a.jsonl.gz");
}

TEST(Documents, LimitsStopWithAWarningOrRefuse) {
  const auto set = read("a.jsonl", "\"aaaa\"\n\"bbbb\"\n\"cccc\"\n", {}, {.max_text = 5});
  EXPECT_EQ(texts(set), (Strings{"aaaa", "bbbb"}));
  ASSERT_EQ(set.warnings.size(), 1u);
  EXPECT_NE(set.warnings[0].find("first 2 documents"), std::string::npos);
  expect_refused("a.txt", "0123456789", "at most 5", {.max_file = 5});
  expect_refused("a.csv", "x", ".jsonl", {}, ErrorKind::kUnsupported);
}

}  // namespace
}  // namespace signround
