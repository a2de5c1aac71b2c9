#include "signround/io/gguf.h"

#include <gtest/gtest.h>

#include "signround/testing/expect_error.h"
#include "signround/testing/gguf_builder.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::GgufBuilder;
using testing::TempDir;

void expect_refused(ErrorKind kind, const std::string& text, const std::string& bytes) {
  const TempDir dir;
  testing::write_file(dir / "a.gguf", bytes);
  expect_error(kind, text, [&] { GgufFile file(dir / "a.gguf"); });
}
void expect_corrupt(const std::string& text, const std::string& bytes) {
  expect_refused(ErrorKind::kCorruptFile, text, bytes);
}
template <class T>
std::string raw(T value) {
  return GgufBuilder::raw(value);
}

TEST(GgufFile, ReadsEveryTypeOfValue) {
  const TempDir dir;
  testing::write_file(dir / "a.gguf", GgufBuilder()
                                          .value<uint8_t>("u8", 200)
                                          .value<int8_t>("i8", -100)
                                          .value<uint16_t>("u16", 60000)
                                          .value<int16_t>("i16", -30000)
                                          .value<uint32_t>("u32", 4000000000u)
                                          .value<int32_t>("i32", -2000000000)
                                          .value<float>("f32", 1.5f)
                                          .value<bool>("bool", true)
                                          .value<uint64_t>("u64", 1ull << 62)
                                          .value<int64_t>("i64", -(1ll << 62))
                                          .value<double>("f64", 1e300)
                                          .text("text", "hello")
                                          .strings("strings", {"a", "", "ccc"})
                                          .array<float>("floats", {0.5f, -1.0f})
                                          .array<int32_t>("ints", {3, -4, 5})
                                          .array<uint8_t>("none", {})
                                          .bytes());
  const GgufFile file(dir / "a.gguf");
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.integer("u8"), 200);
  EXPECT_EQ(file.integer("i8"), -100);
  EXPECT_EQ(file.integer("u16"), 60000);
  EXPECT_EQ(file.integer("i16"), -30000);
  EXPECT_EQ(file.integer("u32"), 4000000000);
  EXPECT_EQ(file.integer("i32"), -2000000000);
  EXPECT_EQ(file.integer("u64"), int64_t{1} << 62);
  EXPECT_EQ(file.integer("i64"), -(int64_t{1} << 62));
  EXPECT_EQ(file.number("f32"), 1.5);
  EXPECT_EQ(file.number("f64"), 1e300);
  EXPECT_EQ(file.number("i8"), -100.0);
  EXPECT_EQ(file.flag("bool"), true);
  EXPECT_EQ(file.text("text"), "hello");
  EXPECT_EQ(file.strings("strings").size(), 3u);
  EXPECT_EQ(file.strings("strings")[2], "ccc");
  EXPECT_EQ(file.floats("floats"), (std::vector<float>{0.5f, -1.0f}));
  EXPECT_EQ(file.integers("ints"), (std::vector<int64_t>{3, -4, 5}));
  EXPECT_TRUE(file.integers("none").empty());
  EXPECT_EQ(file.integer("missing"), std::nullopt);
  EXPECT_TRUE(file.strings("missing").empty());
  EXPECT_EQ(file.keys().size(), 16u);
  EXPECT_EQ(file.keys()[11], "text");
  const auto wrong = [&](const std::string& text, auto&& call) {
    expect_error(ErrorKind::kCorruptFile, text, call);
  };
  wrong("the value of text is not an integer", [&] { file.integer("text"); });
  wrong("the value of f32 is not an integer", [&] { file.integer("f32"); });
  wrong("the value of ints is not an integer", [&] { file.integer("ints"); });
  wrong("the value of u8 is not a string", [&] { file.text("u8"); });
  wrong("the value of u8 is not a truth value", [&] { file.flag("u8"); });
  wrong("the value of text is not an array of strings", [&] { file.strings("text"); });
  wrong("the value of strings is not an array of integers", [&] { file.integers("strings"); });
  wrong("the value of strings is not an array of numbers", [&] { file.floats("strings"); });
  wrong("the value of text is not a number", [&] { file.number("text"); });
}

TEST(GgufFile, ReadsTensorsWithTheirDimensionsReversed) {
  const TempDir dir;
  GgufBuilder builder;
  builder.alignment = 64;
  builder.value<uint32_t>("general.alignment", 64);
  builder.tensor("a", {32, 3}, 8, std::string(3 * 34, 'q'));
  builder.tensor("b", {5}, 0, std::string(20, 'f'));
  builder.tensor("scalar", {}, 1, "hh");
  testing::write_file(dir / "a.gguf", builder.bytes());
  const GgufFile file(dir / "a.gguf");
  ASSERT_EQ(file.tensors().size(), 3u);
  const GgufTensor& a = *file.find_tensor("a");
  EXPECT_EQ(a.shape, (std::vector<int64_t>{3, 32}));
  EXPECT_EQ(a.type, GgmlType::kQ8_0);
  EXPECT_EQ(a.rows(), 3);
  EXPECT_EQ(a.offset % 64, 0);
  EXPECT_EQ(file.bytes(a).size(), 102u);
  EXPECT_EQ(static_cast<char>(file.bytes(a).back()), 'q');
  EXPECT_EQ(static_cast<char>(file.bytes(file.tensors()[1]).front()), 'f');
  EXPECT_EQ(file.bytes(file.tensors()[2]).size(), 2u);
  file.release(a);
  EXPECT_EQ(file.find_tensor("c"), nullptr);
}

TEST(GgufFile, RefusesWhatIsNoGgufOfAKnownVersion) {
  expect_corrupt("not a GGUF file", "");
  expect_corrupt("not a GGUF file", "GGU");
  expect_corrupt("not a GGUF file", "GGMLxxxxxxxxxxxxxxxxxxxxxx");
  expect_corrupt("the version of 4 bytes, but the file ends after 2", "GGUF\1\1");
  GgufBuilder builder;
  builder.version = 1;
  expect_refused(ErrorKind::kUnsupported, "GGUF version 1", builder.bytes());
  builder.version = 0x03000000;
  expect_refused(ErrorKind::kUnsupported, "big-endian", builder.bytes());
  builder.version = 2;
  builder.value<uint32_t>("split.count", 3);
  expect_refused(ErrorKind::kUnsupported, "is one of 3 parts", builder.bytes());
}

TEST(GgufFile, RefusesCountsThatTheFileCannotHold) {
  GgufBuilder tensors;
  tensors.tensors = 1ull << 60;
  expect_corrupt("a number of tensors 1152921504606846976", tensors.bytes());
  GgufBuilder values;
  values.values = 1ull << 60;
  expect_corrupt("a number of values 1152921504606846976", values.bytes());
  expect_corrupt(
      "an array's length 1152921504606846976",
      GgufBuilder().raw_value("a", 9, raw<uint32_t>(8) + raw<uint64_t>(1ull << 60)).bytes());
  expect_corrupt("an array's length 18446744073709551615",
                 GgufBuilder().raw_value("a", 9, raw<uint32_t>(0) + raw<uint64_t>(~0ull)).bytes());
  expect_corrupt("a string 9223372036854775807",
                 GgufBuilder().raw_value("a", 8, raw<uint64_t>(INT64_MAX)).bytes());
  expect_corrupt("a string 100",
                 GgufBuilder().strings("a", {"x"}).raw_value("b", 8, raw<uint64_t>(100)).bytes());
}

TEST(GgufFile, RefusesFilesThatEndTooEarly) {
  const std::string whole = GgufBuilder()
                                .text("general.architecture", "llama")
                                .strings("tokens", {"a", "b"})
                                .value<double>("x", 1)
                                .tensor("a", {32}, 8, std::string(34, 'q'))
                                .bytes();
  const TempDir dir;
  for (size_t size = 0; size + 30 < whole.size(); ++size) {  // the last 30 bytes are padding
    testing::write_file(dir / "a.gguf", whole.substr(0, size));
    EXPECT_THROW(GgufFile(dir / "a.gguf"), Error) << size << " of " << whole.size() << " bytes";
  }
  testing::write_file(dir / "a.gguf", whole);
  GgufFile file(dir / "a.gguf");
}

TEST(GgufFile, RefusesValuesThatBreakTheFormat) {
  expect_corrupt("the key a comes twice",
                 GgufBuilder().value<uint8_t>("a", 1).value<uint8_t>("a", 2).bytes());
  expect_corrupt("a key of 0 bytes", GgufBuilder().value<uint8_t>("", 1).bytes());
  expect_corrupt("unknown type 13", GgufBuilder().raw_value("a", 13, "xxxx").bytes());
  expect_refused(ErrorKind::kUnsupported, "a is an array of arrays",
                 GgufBuilder().raw_value("a", 9, raw<uint32_t>(9) + raw<uint64_t>(0)).bytes());
  for (uint32_t alignment : {0u, 24u, 1u << 31})
    expect_corrupt("general.alignment is",
                   GgufBuilder().value("general.alignment", alignment).bytes());
}

TEST(GgufFile, RefusesTensorsThatBreakTheFormat) {
  const std::string block(34, 'q');
  expect_corrupt("the tensor a comes twice",
                 GgufBuilder().tensor("a", {32}, 8, block).tensor("a", {32}, 8, block).bytes());
  expect_corrupt("name of 64 bytes",
                 GgufBuilder().tensor(std::string(64, 'a'), {32}, 8, block).bytes());
  expect_corrupt("name of 0 bytes", GgufBuilder().tensor("", {32}, 8, block).bytes());
  expect_corrupt("has 5 dimensions", GgufBuilder().tensor("a", {32, 1, 1, 1, 1}, 8, block).bytes());
  expect_corrupt("dimension 0 of tensor a is 0", GgufBuilder().tensor("a", {0}, 8, block).bytes());
  expect_corrupt("dimension 1 of tensor a is 4294967296: zero or too large",
                 GgufBuilder().tensor("a", {1ull << 32, 1ull << 32}, 8, block).bytes());
  expect_corrupt("too large", GgufBuilder().tensor("a", {1ull << 63}, 8, block).bytes());
  expect_corrupt("overflows 63 bits", GgufBuilder().tensor("a", {1ull << 62}, 0, block).bytes());
  expect_corrupt("have 33 values, Q8_0 needs a multiple of 32",
                 GgufBuilder().tensor("a", {33}, 8, block).bytes());
  expect_corrupt("not a multiple of 32",
                 GgufBuilder().raw_tensor("a", {32}, 8, 8, block + block).bytes());
  expect_corrupt("behind the end of the file",
                 GgufBuilder().raw_tensor("a", {32}, 8, 1ull << 63, block).bytes());
  expect_corrupt("but the file has", GgufBuilder().raw_tensor("a", {32}, 8, 64, block).bytes());
  expect_corrupt("but the file has", GgufBuilder().tensor("a", {1ull << 40}, 8, block).bytes());
  expect_corrupt("tensor b at byte", GgufBuilder()
                                         .tensor("a", {64}, 8, block + block)
                                         .raw_tensor("b", {32}, 8, 32, block)
                                         .bytes());
}

TEST(GgufFile, NamesATypeThatItDoesNotDecode) {
  expect_refused(ErrorKind::kUnsupported, "tensor a has the type 16 IQ2_XXS",
                 GgufBuilder().tensor("a", {256}, 16, "").bytes());
  expect_refused(ErrorKind::kUnsupported, "tensor a has the type 1000 ",
                 GgufBuilder().tensor("a", {256}, 1000, "").bytes());
}

}  // namespace
}  // namespace signround
