#include "signround/io/safetensors.h"

#include <gtest/gtest.h>

#include <thread>

#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::TempDir;

// A file with this header and that many zero bytes of data.
std::filesystem::path file_of(const TempDir& dir, const std::string& header, size_t data_bytes) {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  testing::write_file(dir / "a.safetensors", bytes + header + std::string(data_bytes, '\0'));
  return dir / "a.safetensors";
}

void expect_corrupt(const std::string& header, size_t data_bytes, const std::string& text) {
  const TempDir dir;
  expect_error(ErrorKind::kCorruptFile, text,
               [&] { SafetensorsFile file(file_of(dir, header, data_bytes)); });
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(SafetensorsFile, ReadsTensorsInTheOrderOfTheirBytes) {
  const TempDir dir;
  const auto path = file_of(dir,
                            R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},)"
                            R"("__metadata__":{"format":"pt","by":"me"},)"
                            R"("a":{"data_offsets":[0,8],"shape":[2,2],"dtype":"BF16"},)"
                            R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[11,15]},)"
                            R"("none":{"dtype":"F32","shape":[0,7],"data_offsets":[15,15]}}   )",
                            15);
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.tensors()[0], (TensorInfo{"a", DType::kBF16, {2, 2}}));
  EXPECT_EQ(file.tensors()[1], (TensorInfo{"b", DType::kU8, {3}}));
  EXPECT_EQ(file.tensors()[2], (TensorInfo{"scalar", DType::kF32, {}}));
  EXPECT_EQ(file.tensors()[3], (TensorInfo{"none", DType::kF32, {0, 7}}));
  EXPECT_EQ(file.metadata().at("by"), "me");
  EXPECT_EQ(file.find("b"), 1u);
  EXPECT_EQ(file.find("c"), std::nullopt);
  EXPECT_EQ(file.bytes(0).size(), 8u);
  EXPECT_EQ(file.bytes(1).data(), file.bytes(0).data() + 8);
  file.release(1);
}

TEST(SafetensorsFile, AnEmptyListOfTensorsIsAFile) {
  const TempDir dir;
  EXPECT_TRUE(SafetensorsFile(file_of(dir, "{}", 0)).tensors().empty());
}

TEST(SafetensorsFile, RefusesHeaderLengthsThatCannotBe) {
  const TempDir dir;
  testing::write_file(dir / "a", "short");
  expect_error(ErrorKind::kCorruptFile, "has 5 bytes", [&] { SafetensorsFile file(dir / "a"); });
  testing::write_file(dir / "a", std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
  expect_error(ErrorKind::kCorruptFile, "length is 18446744073709551615",
               [&] { SafetensorsFile file(dir / "a"); });
  testing::write_file(dir / "a", std::string("\x03\0\0\0\0\0\0\0{}", 10));
  expect_error(ErrorKind::kCorruptFile, "at most 2 bytes are possible",
               [&] { SafetensorsFile file(dir / "a"); });
}

TEST(SafetensorsFile, RefusesHeadersThatBreakTheGrammar) {
  expect_corrupt("", 0, "does not begin with {");
  expect_corrupt(" {}", 0, "does not begin with {");
  expect_corrupt("{", 0, "not valid JSON");
  expect_corrupt("{}{}", 0, "not valid JSON");
  expect_corrupt("[]", 0, "does not begin with {");
  expect_corrupt("{\"a\":\"\xff\"}", 0, "not valid JSON");
  expect_corrupt(R"({"a":1})", 0, "unexpected number in the entry of a");
  expect_corrupt(R"({"a":null})", 0, "unexpected null");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1]}})", 4, "lacks dtype, shape or data_offsets");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4,
                 "negative number -1");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4,
                 "1.0 in the entry of a is not an integer");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4,
                 "unexpected array");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":{"x":1},"data_offsets":[0,4]}})", 4,
                 "unexpected object");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4,
                 "has 1 numbers, expected 2");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,2,4]}})", 4,
                 "more than 2 numbers");
  expect_corrupt(R"({"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})", 4,
                 "unexpected array");
  expect_corrupt(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4,
                 "unexpected key \"x\"");
  expect_corrupt(R"({"__metadata__":{"a":1}})", 0, "unexpected number");
  std::string many = "[1";
  for (int i = 0; i < 40; ++i) many += ",1";
  expect_corrupt(R"({"a":{"dtype":"F32","shape":)" + many + R"(],"data_offsets":[0,4]}})", 4,
                 "more than 32 dimensions");
}

TEST(SafetensorsFile, SaysAtWhichByteOfTheFileTheHeaderBreaks) {
  // 8 bytes of length and {"a":null: the parser has seen the null's last character, which is
  // byte 16.
  expect_corrupt(R"({"a":null})", 0, "at byte 17");
}

TEST(SafetensorsFile, RefusesKeysThatComeTwice) {
  const std::string entry = R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_corrupt("{" + entry + "," + entry + "}", 1, "\"a\" comes twice");
  expect_corrupt(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
                 "\"dtype\" comes twice in the entry of a");
  expect_corrupt(R"({"__metadata__":{"x":"1","x":"2"}})", 0, "\"x\" comes twice");
  expect_corrupt(R"({"__metadata__":{},"__metadata__":{}})", 0, "\"__metadata__\" comes twice");
}

TEST(SafetensorsFile, RefusesExtentsThatDoNotFitTheFile) {
  const auto one = [](const std::string& shape, const std::string& offsets) {
    return R"({"a":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
  };
  expect_corrupt(one("[1]", "[4,0]"), 4, "before it begins");
  expect_corrupt(one("[2]", "[0,8]"), 4, "ends at byte 8 of the data, but the file holds only 4");
  expect_corrupt(one("[2]", "[0,4]"), 4, "F32 of shape [2] needs 8");
  expect_corrupt(one("[1]", "[4,8]"), 8, "a hole");
  expect_corrupt(one("[1]", "[0,4]"), 5, "the tensors end at byte 4 of 5");
  expect_corrupt(one("[4611686018427387904]", "[0,0]"), 0, "overflows 63 bits");
  expect_corrupt(one("[4611686018427387904,0]", "[0,0]"), 0, "overflows 63 bits");
  expect_corrupt(one("[9223372036854775808]", "[0,0]"), 0, "is too large");
  const std::string two =
      R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[3],"data_offsets":[2,5]}})";
  expect_corrupt(two, 5, "inside the tensor before it");
}

TEST(SafetensorsFile, NamesADtypeThatItDoesNotKnow) {
  const TempDir dir;
  expect_error(ErrorKind::kUnsupported, "tensor a has dtype F6_E2M3", [&] {
    SafetensorsFile file(
        file_of(dir, R"({"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", 3));
  });
}

const std::vector<TensorInfo> kLayout = {{"model.weight", DType::kF32, {2, 3}},
                                         {"b", DType::kBF16, {5}},
                                         {"empty", DType::kF16, {0}},
                                         {"c", DType::kU8, {3}}};

TEST(SafetensorsWriter, WhatItWritesIsReadBack) {
  const TempDir dir;
  const auto path = dir / "model.safetensors";
  SafetensorsWriter writer = SafetensorsWriter::create(path, kLayout);
  const std::string weight = "0123456789abcdefghijklmn";
  std::thread first([&] { writer.write_at("model.weight", 12, bytes_of(weight).subspan(12)); });
  std::thread second([&] { writer.write_at("model.weight", 0, bytes_of(weight).first(12)); });
  first.join();
  second.join();
  writer.write("c", bytes_of("xyz"));
  writer.write("b", bytes_of("BBBBBBBBBB"));
  writer.write("empty", {});
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(SafetensorsFile(writer.partial_path()).tensors().size(), 4u);
  writer.finish();
  EXPECT_FALSE(std::filesystem::exists(writer.partial_path()));

  const SafetensorsFile file(path);
  EXPECT_EQ(std::vector(file.tensors().begin(), file.tensors().end()), kLayout);
  EXPECT_EQ(text_of(file.bytes(0)), weight);
  EXPECT_EQ(text_of(file.bytes(1)), "BBBBBBBBBB");
  EXPECT_EQ(text_of(file.bytes(3)), "xyz");
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
  EXPECT_EQ(file.file_bytes(), safetensors_file_size(kLayout));
  // The data begins at a multiple of 8: the header's length, read from the file, is one.
  EXPECT_EQ(testing::read_file(path)[0] % 8, 0);
}

TEST(SafetensorsWriter, ReservesTheWholeFileAtOnce) {
  const TempDir dir;
  const std::vector<TensorInfo> layout = {{"w", DType::kF32, {1 << 18}}};
  const auto writer = SafetensorsWriter::create(dir / "a", layout);
  EXPECT_EQ(static_cast<int64_t>(std::filesystem::file_size(writer.partial_path())),
            safetensors_file_size(layout));
}

TEST(SafetensorsWriter, AFileThatTheDiskCannotHoldIsAnErrorBeforeAnythingIsComputed) {
  const TempDir dir;
  expect_error(ErrorKind::kIo, "cannot reserve", [&] {
    SafetensorsWriter::create(dir / "a", {{"w", DType::kU8, {int64_t{1} << 55}}});
  });
  EXPECT_FALSE(std::filesystem::exists(dir / "a.partial"));
  expect_error(ErrorKind::kIo, "No such file",
               [&] { SafetensorsWriter::create(dir / "no" / "a", kLayout); });
}

TEST(SafetensorsWriter, GoesOnWhereAnEarlierProcessStopped) {
  const TempDir dir;
  SafetensorsWriter::create(dir / "a", kLayout).write("c", bytes_of("xyz"));
  auto writer = SafetensorsWriter::reopen(dir / "a", kLayout);
  writer.write("b", bytes_of("BBBBBBBBBB"));
  writer.sync();
  writer.finish();
  const SafetensorsFile file(dir / "a");
  EXPECT_EQ(text_of(file.bytes(1)), "BBBBBBBBBB");
  EXPECT_EQ(text_of(file.bytes(3)), "xyz");
}

TEST(SafetensorsWriter, DoesNotGoOnWithAnotherRunsFile) {
  const TempDir dir;
  SafetensorsWriter::create(dir / "a", kLayout);
  auto other = kLayout;
  other[1].name = "B";  // the same size
  expect_error(ErrorKind::kBusy, "a.partial", [&] { SafetensorsWriter::reopen(dir / "a", other); });
  other.pop_back();
  expect_error(ErrorKind::kBusy, "a.partial", [&] { SafetensorsWriter::reopen(dir / "a", other); });
  expect_error(ErrorKind::kBusy, "a.partial", [&] {
    SafetensorsWriter::reopen(dir / "a", kLayout, {{"format", "np"}});
  });
  expect_error(ErrorKind::kIo, "No such file",
               [&] { SafetensorsWriter::reopen(dir / "b", kLayout); });
}

TEST(SafetensorsWriter, RefusesWritesThatAreNotInTheLayout) {
  const TempDir dir;
  auto writer = SafetensorsWriter::create(dir / "a", kLayout);
  const auto expect_refused = [](const std::string& text, auto&& call) {
    expect_error(ErrorKind::kInvalidArgument, text, call);
  };
  expect_refused("tensor d is not in the layout", [&] { writer.write("d", bytes_of("x")); });
  expect_refused("was given 2 bytes", [&] { writer.write("c", bytes_of("xy")); });
  expect_refused("2 bytes at 2 of tensor c", [&] { writer.write_at("c", 2, bytes_of("xy")); });
  expect_refused("at -1", [&] { writer.write_at("c", -1, bytes_of("x")); });
  expect_refused("at 9223372036854775807", [&] { writer.write_at("c", INT64_MAX, bytes_of("x")); });
  writer.finish();
  expect_refused("is finished", [&] { writer.write("c", bytes_of("xyz")); });
}

TEST(SafetensorsWriter, RefusesLayoutsThatLoadersCannotRead) {
  const TempDir dir;
  const auto expect_refused = [&](const std::string& text, std::vector<TensorInfo> layout) {
    expect_error(ErrorKind::kInvalidArgument, text,
                 [&] { SafetensorsWriter::create(dir / "a", layout); });
  };
  expect_refused("not aligned", {{"a", DType::kU8, {3}}, {"b", DType::kF32, {1}}});
  expect_refused("comes twice", {{"a", DType::kU8, {3}}, {"a", DType::kU8, {1}}});
  expect_refused("impossible shape", {{"a", DType::kF32, {INT64_MAX, 4}}});
  expect_refused("impossible shape", {{"a", DType::kF32, {-1}}});
  expect_refused("cannot be called __metadata__", {{"__metadata__", DType::kF32, {1}}});
  expect_refused("UTF-8", {{"\xff", DType::kF32, {1}}});
  EXPECT_EQ(sorted_for_alignment(
                {{"a", DType::kU8, {3}}, {"b", DType::kF32, {1}}, {"c", DType::kU8, {1}}}),
            (std::vector<TensorInfo>{
                {"b", DType::kF32, {1}}, {"a", DType::kU8, {3}}, {"c", DType::kU8, {1}}}));
}

TEST(SafetensorsIndex, MapsEveryTensorToItsFile) {
  const std::vector<SafetensorsShard> shards = {
      {"model-00001-of-00002.safetensors", {{"a", DType::kF32, {2}}}},
      {"model-00002-of-00002.safetensors", {{"b", DType::kBF16, {3}}}}};
  EXPECT_EQ(make_index_json(shards).dump(),
            R"({"metadata":{"total_size":14},"weight_map":{"a":"model-00001-of-00002.safetensors",)"
            R"("b":"model-00002-of-00002.safetensors"}})");
  const std::vector<SafetensorsShard> twice = {{"x", {{"a", DType::kF32, {2}}}},
                                               {"y", {{"a", DType::kF32, {2}}}}};
  expect_error(ErrorKind::kInvalidArgument, "tensor a is in two shards",
               [&] { make_index_json(twice); });
}

}  // namespace
}  // namespace signround
