#include "signround/model/gguf_checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <numbers>

#include "signround/io/gguf_blocks.h"
#include "signround/io/safetensors.h"
#include "signround/model/gguf_config.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/gguf_builder.h"
#include "signround/testing/random.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::GgufBuilder;
using testing::TempDir;

constexpr uint32_t kF32 = 0, kF16 = 1, kQ8_0 = 8;
constexpr int64_t kHidden = 64, kInner = 96, kHeads = 4, kKvHeads = 2, kHeadDim = 16, kVocab = 5,
                  kBlocks = 2;

std::string f32_bytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// Random but sound content: Q8_0 blocks are a scale of 2^-10 and any codes.
std::string random_bytes(uint32_t type, int64_t n, uint64_t seed) {
  if (type == kF32) return f32_bytes(testing::random_normal(n, seed));
  PythonRandom random(seed);
  std::string bytes;
  if (type == kF16)
    for (int64_t i = 0; i < n; ++i)
      bytes += GgufBuilder::raw(to_f16(static_cast<float>(random.uniform())).bits);
  if (type == kQ8_0)
    for (int64_t block = 0; block < n / 32; ++block) {
      bytes += GgufBuilder::raw<uint16_t>(0x1400);
      for (int i = 0; i < 32; ++i) bytes += static_cast<char>(random.below(256));
    }
  return bytes;
}

// A whole tiny model; `matrix` is the type of its 2-D tensors.
class TinyGguf {
 public:
  explicit TinyGguf(std::string architecture, uint32_t matrix = kQ8_0)
      : architecture_(std::move(architecture)), matrix_(matrix) {
    builder.text("general.architecture", architecture_);
    number("block_count", kBlocks)
        .number("context_length", 2048)
        .number("embedding_length", kHidden);
    number("feed_forward_length", kInner)
        .number("attention.head_count", kHeads)
        .number("attention.head_count_kv", kKvHeads);
    builder.value<float>(architecture_ + ".attention.layer_norm_rms_epsilon", 1e-5f);
    builder.value<float>(architecture_ + ".rope.freq_base", 500000.0f);
    builder.value<uint32_t>("tokenizer.ggml.bos_token_id", 1)
        .value<uint32_t>("tokenizer.ggml.eos_token_id", 2);
  }
  TinyGguf& number(const std::string& key, uint32_t value) {
    builder.value<uint32_t>(architecture_ + "." + key, value);
    return *this;
  }
  TinyGguf& tensor(const std::string& name, std::vector<uint64_t> dims, uint32_t type) {
    int64_t n = 1;
    for (uint64_t d : dims) n *= static_cast<int64_t>(d);
    builder.tensor(name, dims, type, random_bytes(type, n, ++seed_));
    return *this;
  }
  TinyGguf& weights() {
    tensor("token_embd.weight", {kHidden, kVocab}, matrix_);
    for (int block = 0; block < kBlocks; ++block) {
      const std::string b = "blk." + std::to_string(block) + ".";
      tensor(b + "attn_norm.weight", {kHidden}, kF32)
          .tensor(b + "ffn_norm.weight", {kHidden}, kF32);
      tensor(b + "attn_q.weight", {kHidden, kHeads * kHeadDim}, matrix_);
      tensor(b + "attn_k.weight", {kHidden, kKvHeads * kHeadDim}, matrix_);
      tensor(b + "attn_v.weight", {kHidden, kKvHeads * kHeadDim}, matrix_);
      tensor(b + "attn_output.weight", {kHeads * kHeadDim, kHidden}, matrix_);
      tensor(b + "ffn_gate.weight", {kHidden, kInner}, matrix_)
          .tensor(b + "ffn_up.weight", {kHidden, kInner}, matrix_);
      tensor(b + "ffn_down.weight", {kInner, kHidden}, matrix_);
    }
    return tensor("output_norm.weight", {kHidden}, kF32);
  }
  std::unique_ptr<Checkpoint> open(const TempDir& dir) const {
    testing::write_file(dir / "a.gguf", builder.bytes());
    return open_gguf_checkpoint(dir / "a.gguf");
  }
  GgufBuilder builder;

 private:
  std::string architecture_;
  uint32_t matrix_;
  uint64_t seed_ = 0;
};

TEST(GgufCheckpoint, TranslatesTheMetadataIntoAConfig) {
  const TempDir dir;
  const auto checkpoint = TinyGguf("llama").weights().open(dir);
  const auto expected =
      nlohmann::json::parse(R"({"architectures":["LlamaForCausalLM"],"attention_bias":false,
      "attention_dropout":0.0,"bos_token_id":1,"eos_token_id":2,"head_dim":16,"hidden_act":"silu","hidden_size":64,
      "initializer_range":0.02,"intermediate_size":96,"max_position_embeddings":2048,"mlp_bias":false,
      "model_type":"llama","num_attention_heads":4,"num_hidden_layers":2,"num_key_value_heads":2,"rms_norm_eps":1e-05,
      "rope_scaling":null,"rope_theta":500000.0,"tie_word_embeddings":true,"torch_dtype":"bfloat16","use_cache":true,
      "vocab_size":5})");
  EXPECT_EQ(checkpoint->config(), expected) << checkpoint->config().dump(2);
}

TEST(GgufCheckpoint, NamesAndShapesAreThoseOfHuggingFace) {
  const TempDir dir;
  const auto checkpoint =
      TinyGguf("llama").weights().tensor("output.weight", {kHidden, kVocab}, kQ8_0).open(dir);
  EXPECT_EQ(checkpoint->tensors().size(), 2 + 9 * kBlocks + 1u);
  EXPECT_EQ(checkpoint->at("model.embed_tokens.weight"),
            (TensorInfo{"model.embed_tokens.weight", DType::kBF16, {kVocab, kHidden}}));
  EXPECT_EQ(checkpoint->at("model.layers.1.mlp.down_proj.weight").shape,
            (std::vector<int64_t>{kHidden, kInner}));
  EXPECT_EQ(
      checkpoint->at("model.layers.0.post_attention_layernorm.weight"),
      (TensorInfo{"model.layers.0.post_attention_layernorm.weight", DType::kBF16, {kHidden}}));
  for (const char* name :
       {"model.norm.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight",
        "model.layers.0.self_attn.o_proj.weight", "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"})
    EXPECT_NE(checkpoint->find(name), nullptr) << name;
  EXPECT_FALSE(checkpoint->config()["tie_word_embeddings"].get<bool>());
}

// Row order as stored -> Hugging Face's, by the definition of the two rotations: llama.cpp turns
// the pair (2i, 2i+1) of a head by angle i, Hugging Face the pair (i, i + d/2). So row i of a head
// is stored row 2i, row i + d/2 is 2i+1.
TEST(GgufCheckpoint, RowsOfQAndKAreBroughtBackIntoHuggingFacesOrder) {
  const TempDir dir;
  const auto checkpoint = TinyGguf("llama").weights().open(dir);
  const GgufFile file(dir / "a.gguf");
  const auto check = [&](const std::string& stored_name, const std::string& name, bool reordered) {
    const GgufTensor& t = *file.find_tensor(stored_name);
    std::vector<float> stored(static_cast<size_t>(t.rows() * t.columns()));
    dequantize(t.type, file.bytes(t).data(), t.rows() * t.columns(), stored.data());
    const std::vector<float> got = checkpoint->read_all_f32(name);
    for (int64_t row = 0; row < t.rows(); ++row) {
      const int64_t in_head = row % kHeadDim, half = kHeadDim / 2;
      const int64_t from =
          !reordered ? row
                     : row - in_head + (in_head < half ? 2 * in_head : 2 * (in_head - half) + 1);
      for (int64_t c = 0; c < t.columns(); ++c)
        ASSERT_EQ(got[static_cast<size_t>(row * t.columns() + c)],
                  round_to_bf16(stored[static_cast<size_t>(from * t.columns() + c)]))
            << name << " row " << row << " column " << c;
    }
  };
  check("blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight", true);
  check("blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight", true);
  check("blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight", false);
  check("blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight", false);
}

TEST(GgufCheckpoint, BytesAndReadF32SayTheSame) {
  for (uint32_t matrix : {kQ8_0, kF16, kF32}) {
    const TempDir dir;
    const auto checkpoint = TinyGguf("llama", matrix).weights().open(dir);
    const DType dtype = matrix == kQ8_0 ? DType::kBF16 : matrix == kF16 ? DType::kF16 : DType::kF32;
    EXPECT_EQ(checkpoint->config()["torch_dtype"], torch_name_of(dtype));
    for (const TensorInfo& info : checkpoint->tensors()) {
      ASSERT_EQ(info.dtype, dtype);
      std::vector<std::byte> scratch;
      const auto bytes = checkpoint->bytes(info.name, scratch);
      ASSERT_EQ(static_cast<int64_t>(bytes.size()), info.nbytes());
      const std::vector<float> values = checkpoint->read_all_f32(info.name);
      for (int64_t i = 0; i < info.numel(); ++i) {
        uint16_t half = 0;
        float value = 0;
        if (dtype == DType::kF32)
          std::memcpy(&value, bytes.data() + 4 * i, 4);
        else
          std::memcpy(&half, bytes.data() + 2 * i, 2),
              value = dtype == DType::kF16 ? to_f32(F16{half}) : to_f32(BF16{half});
        ASSERT_EQ(values[static_cast<size_t>(i)], value) << info.name << " value " << i;
      }
      std::vector<float> row(values.size());
      const int64_t middle = info.shape[0] / 2, columns = info.numel() / info.shape[0];
      checkpoint->read_f32(info.name, middle, 1, row.data());
      ASSERT_EQ(row[0], values[static_cast<size_t>(middle * columns)]);
      checkpoint->release(info.name);
    }
    expect_error(ErrorKind::kInvalidArgument, "it has 64", [&] {
      std::vector<float> out(kHidden);
      checkpoint->read_f32("model.norm.weight", 64, 1, out.data());
    });
  }
}

TEST(GgufCheckpoint, Qwen3HasNoReorderedRowsAndItsOwnHeadSize) {
  const TempDir dir;
  TinyGguf gguf("qwen3", kF32);
  gguf.number("attention.key_length", 32).number("attention.value_length", 32);
  gguf.tensor("token_embd.weight", {kHidden, kVocab}, kF32)
      .tensor("output_norm.weight", {kHidden}, kF32);
  gguf.tensor("blk.0.attn_q.weight", {kHidden, 32 * kHeads}, kF32)
      .tensor("blk.0.attn_q_norm.weight", {32}, kF32);
  const auto checkpoint = gguf.open(dir);
  EXPECT_EQ(checkpoint->config()["model_type"], "qwen3");
  EXPECT_EQ(checkpoint->config()["head_dim"], 32);
  EXPECT_NE(checkpoint->find("model.layers.0.self_attn.q_norm.weight"), nullptr);
  std::vector<std::byte> scratch;
  const GgufFile file(dir / "a.gguf");
  EXPECT_EQ(std::memcmp(checkpoint->bytes("model.layers.0.self_attn.q_proj.weight", scratch).data(),
                        file.bytes(*file.find_tensor("blk.0.attn_q.weight")).data(),
                        32 * kHeads * kHidden * 4),
            0);
}

TEST(GgufCheckpoint, Qwen2NeedsItsBiases) {
  const TempDir dir;
  TinyGguf gguf("qwen2");
  gguf.weights();
  expect_error(ErrorKind::kUnsupported, "has biases on q, k and v only", [&] { gguf.open(dir); });
  for (const char* b : {"blk.0.", "blk.1."})
    gguf.tensor(b + std::string("attn_q.bias"), {kHidden}, kF32)
        .tensor(b + std::string("attn_k.bias"), {kKvHeads * kHeadDim}, kF32)
        .tensor(b + std::string("attn_v.bias"), {kKvHeads * kHeadDim}, kF32);
  const auto checkpoint = gguf.open(dir);
  EXPECT_EQ(checkpoint->config()["architectures"][0], "Qwen2ForCausalLM");
  EXPECT_EQ(checkpoint->at("model.layers.1.self_attn.k_proj.bias").shape,
            (std::vector<int64_t>{kKvHeads * kHeadDim}));
}

// The factors that llama.cpp's converter stores for Llama 3.1, by its formula in f32.
std::vector<float> llama3_factors(float factor) {
  std::vector<float> factors;
  for (int i = 0; i < kHeadDim; i += 2) {
    const float frequency = 1.0f / std::pow(500000.0f, static_cast<float>(i) / kHeadDim);
    const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
    const float smooth = (8192.0f / wavelength - 1) / 3;
    factors.push_back(wavelength < 8192.0f / 4 ? 1
                      : wavelength > 8192.0f   ? factor
                                               : 1 / ((1 - smooth) / factor + smooth));
  }
  return factors;
}

TEST(GgufCheckpoint, RopeFactorsOfLlama3AreRecognized) {
  for (float factor : {8.0f, 32.0f}) {
    const TempDir dir;
    TinyGguf gguf("llama");
    gguf.weights().builder.tensor("rope_freqs.weight", {kHeadDim / 2}, kF32,
                                  f32_bytes(llama3_factors(factor)));
    const auto checkpoint = gguf.open(dir);
    const auto expected = nlohmann::json{{"rope_type", "llama3"},
                                         {"factor", factor},
                                         {"low_freq_factor", 1.0},
                                         {"high_freq_factor", 4.0},
                                         {"original_max_position_embeddings", 8192}};
    EXPECT_EQ(checkpoint->config()["rope_scaling"], expected);
    EXPECT_EQ(checkpoint->find("rope_freqs.weight"), nullptr);
  }
}

TEST(GgufCheckpoint, OtherRopeFactorsAreKeptAsTheyAre) {
  const TempDir dir;
  std::vector<float> factors = llama3_factors(8);
  factors[3] = 1.1f;
  TinyGguf gguf("llama");
  gguf.weights().builder.tensor("rope_freqs.weight", {kHeadDim / 2}, kF32, f32_bytes(factors));
  const auto scaling = gguf.open(dir)->config()["rope_scaling"];
  EXPECT_EQ(scaling["rope_type"], "longrope");
  EXPECT_EQ(scaling["attention_factor"], 1.0);
  EXPECT_EQ(scaling["original_max_position_embeddings"], 2048);
  for (size_t i = 0; i < factors.size(); ++i) {
    EXPECT_EQ(scaling["short_factor"][i].get<float>(), factors[i]);
    EXPECT_EQ(scaling["long_factor"][i].get<float>(), factors[i]);
  }
}

TEST(GgufCheckpoint, RefusesRopeFactorsThatCannotBe) {
  const TempDir dir;
  TinyGguf few("llama");
  few.weights().builder.tensor("rope_freqs.weight", {2}, kF32, f32_bytes({1, 1}));
  expect_error(ErrorKind::kCorruptFile, "expected 8 values of F32", [&] { few.open(dir); });
  TinyGguf negative("llama");
  negative.weights().builder.tensor("rope_freqs.weight", {8}, kF32,
                                    f32_bytes({1, 1, 1, -1, 1, 1, 1, 1}));
  expect_error(ErrorKind::kCorruptFile, "holds -1", [&] { negative.open(dir); });
}

TEST(GgufCheckpoint, RopeScalingKeysAreTranslated) {
  const auto scaling_with = [](const std::function<void(GgufBuilder&)>& add) {
    const TempDir dir;
    TinyGguf gguf("llama");
    gguf.weights();
    add(gguf.builder);
    return gguf.open(dir)->config()["rope_scaling"];
  };
  EXPECT_EQ(
      scaling_with([](GgufBuilder& b) {
        b.text("llama.rope.scaling.type", "linear").value<float>("llama.rope.scaling.factor", 2.5f);
      }),
      (nlohmann::json{{"rope_type", "linear"}, {"factor", 2.5}}));
  EXPECT_EQ(scaling_with([](GgufBuilder& b) { b.value<float>("llama.rope.scale_linear", 4); }),
            (nlohmann::json{{"rope_type", "linear"}, {"factor", 4.0}}));
  EXPECT_EQ(scaling_with([](GgufBuilder& b) { b.text("llama.rope.scaling.type", "none"); }),
            nlohmann::json());
  EXPECT_EQ(
      scaling_with([](GgufBuilder& b) {
        b.text("llama.rope.scaling.type", "yarn").value<float>("llama.rope.scaling.factor", 4);
        b.value<uint32_t>("llama.rope.scaling.original_context_length", 512);
      }),
      (nlohmann::json{
          {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 512}}));
  expect_error(ErrorKind::kUnsupported, "rope scaling longrope", [&] {
    scaling_with([](GgufBuilder& b) { b.text("llama.rope.scaling.type", "longrope"); });
  });
}

TEST(GgufCheckpoint, MistralWithAWindowIsMistral) {
  const TempDir dir;
  const auto checkpoint =
      TinyGguf("llama").number("attention.sliding_window", 4096).weights().open(dir);
  EXPECT_EQ(checkpoint->config()["model_type"], "mistral");
  EXPECT_EQ(checkpoint->config()["sliding_window"], 4096);
}

TEST(GgufCheckpoint, SaysWhatItCannotTranslate) {
  const TempDir dir;
  const auto expect = [&](ErrorKind kind, const std::string& text, const TinyGguf& gguf) {
    expect_error(kind, text, [&] { gguf.open(dir); });
  };
  expect(ErrorKind::kUnsupported, "architecture gemma3; of GGUF files llama",
         TinyGguf("gemma3").weights());
  expect(ErrorKind::kUnsupported, "llama.expert_count is 8",
         TinyGguf("llama").number("expert_count", 8).weights());
  expect(ErrorKind::kUnsupported, "heads with 16 dimensions",
         TinyGguf("llama").number("rope.dimension_count", 8).weights());
  expect(ErrorKind::kUnsupported,
         "tensor blk.0.ffn_gate_inp.weight of shape [4, 64] has no counterpart",
         TinyGguf("llama").weights().tensor("blk.0.ffn_gate_inp.weight", {kHidden, 4}, kF32));
  expect(ErrorKind::kUnsupported, "tensor blk.00.attn_q.weight",
         TinyGguf("llama").weights().tensor("blk.00.attn_q.weight", {kHidden, kHidden}, kF32));
  expect(ErrorKind::kCorruptFile,
         "tensor blk.2.ffn_norm.weight belongs to a block that is not there",
         TinyGguf("llama").weights().tensor("blk.2.ffn_norm.weight", {kHidden}, kF32));
  expect(ErrorKind::kCorruptFile, "has no token_embd.weight", TinyGguf("llama"));
  expect(ErrorKind::kCorruptFile, "do not fit",
         TinyGguf("llama").tensor("token_embd.weight", {32, kVocab}, kF32));
  expect(ErrorKind::kCorruptFile, "blk.0.attn_k.weight has 64 rows, expected 2 heads of 16",
         TinyGguf("llama")
             .tensor("token_embd.weight", {kHidden, kVocab}, kF32)
             .tensor("blk.0.attn_k.weight", {kHidden, 64}, kF32));
  expect(ErrorKind::kUnsupported, "only some of the layers have a bias",
         TinyGguf("llama").weights().tensor("blk.0.attn_q.bias", {kHidden}, kF32));
  TinyGguf tokens("llama");
  tokens.weights().builder.strings("tokenizer.ggml.tokens",
                                   std::vector<std::string>(kVocab + 1, "x"));
  expect(ErrorKind::kCorruptFile, "has 6 tokens, but token_embd.weight has only 5 rows", tokens);
  GgufBuilder empty;
  testing::write_file(dir / "b.gguf", empty.bytes());
  expect_error(ErrorKind::kCorruptFile, "lacks the key general.architecture",
               [&] { open_gguf_checkpoint(dir / "b.gguf"); });
  testing::write_file(dir / "b.gguf", empty.text("general.architecture", "llama").bytes());
  expect_error(ErrorKind::kCorruptFile, "lacks the key llama.block_count",
               [&] { open_gguf_checkpoint(dir / "b.gguf"); });
  testing::write_file(dir / "b.gguf", empty.value<uint32_t>("llama.block_count", 0).bytes());
  expect_error(ErrorKind::kCorruptFile, "llama.block_count is 0",
               [&] { open_gguf_checkpoint(dir / "b.gguf"); });
}

TEST(GgufCheckpoint, BringsTheFilesOfATokenizer) {
  const TempDir dir;
  TinyGguf gguf("llama");
  gguf.weights().builder.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  gguf.builder.strings("tokenizer.ggml.tokens", {"a", "<s>", "</s>", "b", "ab"})
      .strings("tokenizer.ggml.merges", {"a b"});
  gguf.builder.value<uint32_t>("tokenizer.ggml.eot_token_id", 3);
  std::vector<std::string> names;
  for (const ExtraFile& file : gguf.open(dir)->extra_files()) {
    names.push_back(file.name);
    const auto json = nlohmann::json::parse(file.content);
    if (file.name == "generation_config.json") {
      EXPECT_EQ(json["eos_token_id"], (std::vector<int>{2, 3}));
    }
    if (file.name == "special_tokens_map.json") {
      EXPECT_EQ(json, (nlohmann::json{{"bos_token", "<s>"}, {"eos_token", "</s>"}}));
    }
    if (file.name == "tokenizer_config.json") {
      EXPECT_EQ(json["model_max_length"], 2048);
    }
  }
  EXPECT_EQ(names, (std::vector<std::string>{"generation_config.json", "tokenizer.json",
                                             "tokenizer_config.json", "special_tokens_map.json"}));
}

TEST(OpenCheckpoint, TakesAFileAsGgufAndAFolderAsHuggingFaces) {
  const TempDir dir;
  TinyGguf("llama").weights().open(dir);
  EXPECT_EQ(open_checkpoint(dir / "a.gguf")->config()["hidden_size"], kHidden);
  expect_error(ErrorKind::kUnsupported, "to read a.gguf give the file itself", [&] {
    testing::write_file(dir / "config.json", "{}");
    open_checkpoint(dir.path());
  });
}

}  // namespace
}  // namespace signround
