#include "signround/formats/consumers.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace signround {
namespace {

using Level = ConsumerVerdict::Level;

constexpr QuantScheme kSym4{4, 128, Symmetry::kFullRange, DType::kF16};

// A Llama block of hidden size 4096.
FormatModel llama(const QuantScheme& scheme, int64_t intermediate = 14336) {
  FormatModel model{scheme, {}, {"model.layers"}, {}};
  const std::string block = "model.layers.0.";
  const auto add = [&](const std::string& name, int64_t out, int64_t in) {
    model.layers.push_back({block + name, scheme, out, in});
  };
  add("self_attn.q_proj", 4096, 4096);
  add("self_attn.k_proj", 1024, 4096);
  add("self_attn.v_proj", 1024, 4096);
  add("self_attn.o_proj", 4096, 4096);
  add("mlp.gate_proj", intermediate, 4096);
  add("mlp.up_proj", intermediate, 4096);
  add("mlp.down_proj", 4096, intermediate);
  return model;
}

QuantScheme scheme(int bits, Symmetry symmetry, int64_t group = 128) {
  return {bits, group, symmetry, DType::kF16};
}

ConsumerVerdict verdict(const char* consumer, const char* format, const FormatModel& model) {
  const auto all = verdicts(format, model);
  const auto found = std::find_if(all.begin(), all.end(),
                                  [&](const ConsumerVerdict& v) { return v.consumer == consumer; });
  return found == all.end() ? ConsumerVerdict{} : *found;
}

std::string reasons(const ConsumerVerdict& v) {
  std::string text;
  for (const std::string& reason : v.reasons) text += reason + "\n";
  return text;
}

TEST(Consumers, TheCommonCaseLoadsEverywhereButInLlamaCpp) {
  const FormatModel model = llama(scheme(4, Symmetry::kClassic));
  for (const char* consumer : {"vLLM", "SGLang", "GPTQModel"})
    EXPECT_EQ(verdict(consumer, "gptq", model).level, Level::kLoads) << consumer;
  EXPECT_EQ(verdict("transformers", "gptq", model).level, Level::kWithCare) << "needs packages";
  EXPECT_EQ(verdict("llama.cpp", "gptq", model).level, Level::kRefuses);
  EXPECT_EQ(verdict("GPTQModel", "auto_round", model).level, Level::kRefuses);
  EXPECT_EQ(verdicts("gptq", model).size(), 5u);
}

TEST(Consumers, ClassicVllmRefusesWhatMarlinDoesNotHave) {
  EXPECT_NE(reasons(verdict("vLLM", "gptq", llama(scheme(4, Symmetry::kAsym))))
                .find("q_proj: 4 bits asymmetric"),
            std::string::npos);
  EXPECT_EQ(verdict("vLLM", "awq", llama(scheme(4, Symmetry::kAsym))).level, Level::kLoads);
  EXPECT_EQ(verdict("vLLM", "auto_round", llama(scheme(4, Symmetry::kAsym))).level, Level::kLoads)
      << "packed as AWQ";
  const ConsumerVerdict two = verdict("vLLM", "gptq", llama(scheme(2, Symmetry::kFullRange)));
  EXPECT_EQ(two.level, Level::kWithCare);
  EXPECT_NE(reasons(two).find("humming"), std::string::npos);
  EXPECT_EQ(verdict("vLLM", "auto_round", llama(scheme(2, Symmetry::kAsym))).level,
            Level::kRefuses);
  EXPECT_NE(reasons(verdict("vLLM", "gptq", llama(scheme(4, Symmetry::kClassic, 256))))
                .find("group size 256"),
            std::string::npos);
}

TEST(Consumers, NegativeScalesAreMentionedForVllmOnly) {
  EXPECT_NE(reasons(verdict("vLLM", "gptq", llama(kSym4))).find("negative"), std::string::npos);
  EXPECT_EQ(reasons(verdict("SGLang", "gptq", llama(kSym4))), "");
  EXPECT_EQ(reasons(verdict("vLLM", "gptq", llama(scheme(4, Symmetry::kClassic)))), "");
}

TEST(Consumers, FusedSiblingsMustAgree) {
  FormatModel model = llama(kSym4);
  model.layers[2].scheme.bits = 8;
  EXPECT_EQ(verdict("vLLM", "gptq", model).level, Level::kRefuses);
  EXPECT_NE(reasons(verdict("SGLang", "auto_round", model))
                .find("v_proj has 8 bit sym group 128, model.layers.0.self_attn.q_proj 4 bit"),
            std::string::npos);
  EXPECT_EQ(verdict("GPTQModel", "gptq", model).level, Level::kLoads);
  model = llama(kSym4);
  model.layers[5].scheme.bits = 16;  // up_proj left as it is, gate_proj quantized
  EXPECT_EQ(verdict("vLLM", "gptq", model).level, Level::kRefuses);
  model = llama(kSym4);
  model.layers[3].scheme.bits = 8;  // o_proj stands alone
  EXPECT_EQ(verdict("vLLM", "gptq", model).level, Level::kWithCare);
}

TEST(Consumers, ExpertsOfALayerMustAgree) {
  FormatModel model = llama(kSym4);
  for (const char* expert : {"0", "1"}) {
    model.layers.push_back(
        {"model.layers.0.mlp.experts." + std::string(expert) + ".down_proj", kSym4, 4096, 1024});
  }
  EXPECT_NE(verdict("vLLM", "gptq", model).level, Level::kRefuses);
  model.layers.back().scheme.bits = 8;
  EXPECT_NE(reasons(verdict("vLLM", "gptq", model)).find("experts.1.down_proj has 8 bit"),
            std::string::npos);
}

// Qwen2-72B: 29568 = 231 * 128 inputs of down_proj, so not even two ranks get whole groups of 128;
// 32: 29568 / 2 is no multiple of Marlin's 128 either.
TEST(Consumers, TensorParallelismIsLimitedByTheIntermediateSize) {
  EXPECT_EQ(verdict("vLLM", "gptq", llama(kSym4, 14336)).tensor_parallel,
            16);  // 14336 / 16 = 7 * 128
  EXPECT_EQ(verdict("vLLM", "gptq", llama(kSym4, 29568)).tensor_parallel, 1);
  EXPECT_EQ(verdict("GPTQModel", "gptq", llama(kSym4)).tensor_parallel, 0);
  EXPECT_EQ(verdict("vLLM", "fake", llama(kSym4)).tensor_parallel, 64);
}

TEST(Consumers, ShapesAreChecked) {
  EXPECT_NE(reasons(verdict("vLLM", "gptq", llama(kSym4, 10976)))
                .find("gate_proj: out 10976 is not a multiple of 64"),
            std::string::npos);
  const std::string short_group =
      reasons(verdict("transformers", "auto_round", llama(kSym4, 10976)));
  EXPECT_NE(short_group.find("in 10976 is not a multiple of the group size 128"), std::string::npos)
      << short_group;
  EXPECT_EQ(verdict("GPTQModel", "gptq", llama(kSym4, 10976)).level, Level::kLoads)
      << "reads g_idx";
}

TEST(Consumers, Nf4IsReadByBitsandbytesAndNeverSplit) {
  constexpr QuantScheme kNf4{4, 64, Symmetry::kClassic, DType::kF32, Levels::kNf4, true};
  FormatModel model = llama(kNf4);
  for (const char* consumer : {"vLLM", "SGLang", "transformers"}) {
    EXPECT_EQ(verdict(consumer, "bnb", model).level, Level::kWithCare) << consumer;
    EXPECT_EQ(verdict(consumer, "bnb", model).tensor_parallel, 0) << consumer;
  }
  EXPECT_EQ(verdict("GPTQModel", "bnb", model).level, Level::kRefuses);
  EXPECT_EQ(reasons(verdict("transformers", "bnb", model)).find("wrong scales"), std::string::npos);
  EXPECT_NE(reasons(verdict("transformers", "bnb", llama(kNf4, 1000))).find("wrong scales"),
            std::string::npos)
      << "down_proj has rows of 1000 weights";
  model.layers[1].scheme.bits = 16;
  EXPECT_NE(reasons(verdict("vLLM", "bnb", model)).find("k_proj has 16 bit, "), std::string::npos)
      << "it is fused with q_proj";
  EXPECT_EQ(verdict("transformers", "bnb", model).level, Level::kWithCare);
}

TEST(Consumers, LinesSayEverythingInShort) {
  const auto lines = describe_verdicts("gptq", llama(scheme(4, Symmetry::kClassic)));
  EXPECT_EQ(lines[0], "vLLM: loads, tensor parallel up to 16");
  EXPECT_EQ(lines.back(), "llama.cpp: refuses, does not read the format gptq_v1");
}

}  // namespace
}  // namespace signround
