// Writes the seeds of the fuzz targets: fuzz_seeds FOLDER.
#include <filesystem>
#include <fstream>

#include "signround/io/safetensors.h"
#include "signround/testing/gguf_builder.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

void write_seed(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void safetensors_seeds(const fs::path& folder) {
  fs::create_directories(folder);
  const std::vector<TensorInfo> all = {{"d", DType::kF64, {1}},    {"a", DType::kF32, {2, 3}},
                                       {"b", DType::kBF16, {4}},   {"c", DType::kF16, {1, 2, 2}},
                                       {"e", DType::kF8E4M3, {3}}, {"f", DType::kF8E5M2, {}},
                                       {"g", DType::kU8, {0}}};
  SafetensorsWriter::create(folder / "all", all).finish();
  SafetensorsWriter::create(folder / "none", {}, {}).finish();
}

testing::GgufBuilder model(const std::string& architecture) {
  testing::GgufBuilder b;
  b.text("general.architecture", architecture);
  for (const char* key : {"block_count", "attention.head_count", "attention.head_count_kv"})
    b.value<uint32_t>(architecture + "." + key, 1);
  for (const char* key : {"context_length", "embedding_length", "feed_forward_length"})
    b.value<uint32_t>(architecture + "." + key, 32);
  b.tensor("token_embd.weight", {32, 4}, 8, std::string(4 * 34, 'q'))
      .tensor("output_norm.weight", {32}, 0, std::string(128, 'f'));
  b.tensor("blk.0.attn_q.weight", {32, 32}, 3, std::string(32 * 20, 'w'))
      .tensor("rope_freqs.weight", {16}, 0, std::string(64, 'f'));
  return b;
}

void gguf_seeds(const fs::path& folder) {
  fs::create_directories(folder);
  auto spm = model("llama");
  spm.text("tokenizer.ggml.model", "llama")
      .strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "ab"});
  spm.array<float>("tokenizer.ggml.scores", {0, 0, 0, -1})
      .array<int32_t>("tokenizer.ggml.token_type", {2, 3, 3, 1});
  write_seed(folder / "spm", spm.bytes());
  auto bpe = model("qwen3");
  bpe.text("tokenizer.ggml.model", "gpt2")
      .text("tokenizer.ggml.pre", "qwen2")
      .strings("tokenizer.ggml.tokens", {"a", "b", "ab", "<|end|>"});
  bpe.strings("tokenizer.ggml.merges", {"a b"})
      .value<uint32_t>("tokenizer.ggml.eos_token_id", 3)
      .text("tokenizer.chat_template", "{{ x }}");
  write_seed(folder / "bpe", bpe.bytes());
  testing::GgufBuilder blocks;
  const std::pair<uint32_t, size_t> kTypes[] = {{2, 18}, {3, 20}, {6, 22},
                                                {7, 24}, {8, 34}, {20, 18}};
  for (const auto& [type, bytes] : kTypes)
    blocks.tensor("t" + std::to_string(type), {32}, type, std::string(bytes, 'x'));
  const std::pair<uint32_t, size_t> kSuperTypes[] = {
      {10, 84}, {11, 110}, {12, 144}, {13, 176}, {14, 210}};
  for (const auto& [type, bytes] : kSuperTypes)
    blocks.tensor("t" + std::to_string(type), {256}, type, std::string(bytes, 'x'));
  write_seed(folder / "blocks", blocks.bytes());
}

}  // namespace
}  // namespace signround

int main(int argc, char** argv) {
  const std::filesystem::path folder = argc > 1 ? argv[1] : "seeds";
  signround::safetensors_seeds(folder / "fuzz_safetensors");
  signround::gguf_seeds(folder / "fuzz_gguf");
}
