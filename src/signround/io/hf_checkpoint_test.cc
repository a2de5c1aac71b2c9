#include <gtest/gtest.h>

#include <cstring>

#include "signround/io/checkpoint.h"
#include "signround/io/safetensors.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::TempDir;
using testing::write_file;

constexpr const char* kIndex = "model.safetensors.index.json";

// Every tensor of the file is filled with its elements' running numbers, as its dtype writes them.
void write_shard(const TempDir& dir, const std::string& name,
                 const std::vector<TensorInfo>& tensors) {
  auto writer = SafetensorsWriter::create(dir / name, tensors);
  for (const TensorInfo& t : tensors) {
    std::vector<std::byte> bytes(static_cast<size_t>(t.nbytes()));
    for (int64_t i = 0; i < t.numel(); ++i) {
      const auto value = static_cast<float>(i);
      if (t.dtype == DType::kF32) std::memcpy(bytes.data() + 4 * i, &value, 4);
      const BF16 rounded = to_bf16(value);
      if (t.dtype == DType::kBF16) std::memcpy(bytes.data() + 2 * i, &rounded, 2);
    }
    writer.write(t.name, bytes);
  }
  writer.finish();
}

void write_sharded(const TempDir& dir) {
  write_file(dir / "config.json", R"({"model_type":"llama"})");
  write_shard(dir, "model-1.safetensors",
              {{"a", DType::kF32, {4, 3}}, {"b", DType::kBF16, {2, 2, 2}}});
  write_shard(dir, "model-2.safetensors", {{"c", DType::kF32, {}}, {"d", DType::kU8, {3}}});
  write_file(dir / kIndex, R"({"weight_map":{"a":"model-1.safetensors","b":"model-1.safetensors",)"
                           R"("c":"model-2.safetensors","d":"model-2.safetensors"}})");
}

void expect_refused(const TempDir& dir, ErrorKind kind, const std::string& text) {
  expect_error(kind, text, [&] { open_hf_checkpoint(dir.path()); });
}

TEST(HfCheckpoint, ReadsRowsOfASingleFile) {
  const TempDir dir;
  write_file(dir / "config.json", R"({"model_type":"llama","hidden_size":64})");
  write_shard(dir, "model.safetensors",
              {{"a", DType::kF32, {4, 3}}, {"b", DType::kBF16, {2, 2, 2}}, {"d", DType::kU8, {3}}});
  const auto checkpoint = open_hf_checkpoint(dir.path());
  EXPECT_EQ(checkpoint->config()["hidden_size"], 64);
  EXPECT_EQ(checkpoint->source(), dir.path().string());
  std::vector<float> rows(6);
  checkpoint->read_f32("a", 1, 2, rows.data());
  EXPECT_EQ(rows, (std::vector<float>{3, 4, 5, 6, 7, 8}));
  rows.resize(4);
  checkpoint->read_f32("b", 1, 1, rows.data());
  EXPECT_EQ(rows, (std::vector<float>{4, 5, 6, 7}));
  checkpoint->release("b");
  EXPECT_EQ(checkpoint->read_all_f32("b"), (std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7}));
  std::vector<std::byte> scratch;
  EXPECT_EQ(checkpoint->bytes("a", scratch).size(), 48u);
  EXPECT_TRUE(scratch.empty());  // a view into the file
  EXPECT_EQ(checkpoint->bytes_on_disk(),
            static_cast<int64_t>(std::filesystem::file_size(dir / "model.safetensors")));
  expect_error(ErrorKind::kInvalidArgument, "rows 3 to 5 of tensor a",
               [&] { checkpoint->read_f32("a", 3, 2, rows.data()); });
  expect_error(ErrorKind::kUnsupported, "U8",
               [&] { checkpoint->read_f32("d", 0, 1, rows.data()); });
  expect_error(ErrorKind::kCorruptFile, "has no tensor x", [&] { checkpoint->at("x"); });
  EXPECT_EQ(checkpoint->find("x"), nullptr);
}

TEST(HfCheckpoint, ReadsShards) {
  const TempDir dir;
  write_sharded(dir);
  const auto checkpoint = open_hf_checkpoint(dir.path());
  ASSERT_EQ(checkpoint->tensors().size(), 4u);
  EXPECT_EQ(checkpoint->tensors()[2], (TensorInfo{"c", DType::kF32, {}}));
  EXPECT_EQ(checkpoint->read_all_f32("c"), std::vector<float>{0});
  EXPECT_EQ(checkpoint->read_all_f32("a").size(), 12u);
}

TEST(HfCheckpoint, RefusesAnIndexThatDoesNotFitTheShards) {
  const TempDir dir;
  write_sharded(dir);
  const std::string sound = testing::read_file(dir / kIndex);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = sound;
    text.replace(text.find(from), from.size(), to);
    write_file(dir / kIndex, text);
  };
  with(R"("c":"model-2.safetensors")", R"("c":"model-3.safetensors")");
  expect_refused(dir, ErrorKind::kCorruptFile, "lacks the shard model-3.safetensors");
  with(R"("c":"model-2.safetensors")", R"("c":"model-1.safetensors")");
  expect_refused(dir, ErrorKind::kCorruptFile,
                 "tensor c is in model-2.safetensors, but " + std::string(kIndex) +
                     " puts it in model-1.safetensors");
  with(R"("c":"model-2.safetensors",)", "");
  expect_refused(dir, ErrorKind::kCorruptFile, "model-2.safetensors has tensor c, which");
  with(R"("c":)", R"("e":"model-1.safetensors","c":)");
  expect_refused(dir, ErrorKind::kCorruptFile,
                 "puts tensor e in model-1.safetensors, which does not have it");
  for (const char* name :
       {"../model-2.safetensors", "/etc/passwd", "x/y", "..", "", "a\\\\b", "\\u0000"}) {
    with(R"("c":"model-2.safetensors")", R"("c":")" + std::string(name) + "\"");
    expect_refused(dir, ErrorKind::kCorruptFile, "expected the name of a file in the same folder");
  }
  with(R"("c":"model-2.safetensors")", R"("c":7)");
  expect_refused(dir, ErrorKind::kCorruptFile, "says that tensor c is in 7");
  write_file(dir / kIndex, R"({"metadata":{}})");
  expect_refused(dir, ErrorKind::kCorruptFile, "has no weight_map");
  write_file(dir / kIndex, "{");
  expect_refused(dir, ErrorKind::kCorruptFile, "is not valid JSON");
}

TEST(HfCheckpoint, RefusesATensorThatIsInTwoShards) {
  const TempDir dir;
  write_sharded(dir);
  write_shard(dir, "model-2.safetensors",
              {{"a", DType::kF32, {1}}, {"c", DType::kF32, {}}, {"d", DType::kU8, {3}}});
  expect_refused(dir, ErrorKind::kCorruptFile, "tensor a is in model-2.safetensors, but");
}

TEST(HfCheckpoint, SaysWhatAFolderLacks) {
  const TempDir dir;
  expect_error(ErrorKind::kInvalidArgument, "is not a folder",
               [&] { open_hf_checkpoint(dir / "x"); });
  expect_refused(dir, ErrorKind::kInvalidArgument, "has no config.json");
  write_file(dir / "config.json", "[]");
  expect_refused(dir, ErrorKind::kCorruptFile, "is not a JSON object");
  write_file(dir / "config.json", "{,}");
  expect_refused(dir, ErrorKind::kCorruptFile, "config.json is not valid JSON");
  write_file(dir / "config.json", "{}");
  expect_refused(dir, ErrorKind::kInvalidArgument, "has no weights");
  write_file(dir / "pytorch_model.bin", "x");
  expect_refused(dir, ErrorKind::kUnsupported, "safe_serialization=True");
  write_file(dir / "model-00001-of-00002.safetensors", "x");
  expect_refused(dir, ErrorKind::kCorruptFile, "the index is missing");
}

TEST(HfCheckpoint, CarriesEveryOtherFileOver) {
  const TempDir dir;
  write_sharded(dir);
  for (const char* name : {"tokenizer.json",
                           "LICENSE",
                           "README.md",
                           "generation_config.json",
                           "modeling_x.py",
                           "tokenizer.model",
                           "chat_template.jinja",
                           ".gitattributes",
                           "quantize_config.json",
                           "quantization_config.json",
                           "pytorch_model.bin",
                           "pytorch_model.bin.index.json",
                           "rng.pt",
                           "x.gguf",
                           "y.onnx",
                           "z.h5",
                           "flax_model.msgpack",
                           "signround.json",
                           "signround.md",
                           "consolidated.00.pth"})
    write_file(dir / name, "x");
  for (const char* folder :
       {"onnx", "additional_chat_templates", "checkpoint-1", "result", ".cache"})
    std::filesystem::create_directory(dir / folder);
  for (const char* name :
       {"additional_chat_templates/tool.jinja", "onnx/model.onnx", "checkpoint-1/config.json",
        "checkpoint-1/model.safetensors", "checkpoint-1/tokenizer.json", "result/signround.json",
        "result/tokenizer.json", ".cache/huggingface.json"})
    write_file(dir / name, "x");
  std::filesystem::create_symlink("nowhere", dir / "dangling.txt");
  std::filesystem::create_symlink("LICENSE", dir / "NOTICE");  // as in the hub's cache
  std::vector<std::string> names;
  for (const ExtraFile& file : open_hf_checkpoint(dir.path())->extra_files()) {
    names.push_back(file.name);
    EXPECT_EQ(file.path, dir / file.name);
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"LICENSE", "NOTICE", "README.md", "chat_template.jinja",
                                      "generation_config.json", "modeling_x.py", "tokenizer.json",
                                      "tokenizer.model", "additional_chat_templates/tool.jinja"}));
}

}  // namespace
}  // namespace signround
