// What the formats write into config.json.
#include <gtest/gtest.h>

#include "signround/formats/format.h"
#include "signround/formats/quantization_config.h"
#include "signround/testing/expect_error.h"

namespace signround {
namespace {

constexpr QuantScheme kSym4{4, 128, Symmetry::kFullRange, DType::kF16};
constexpr QuantScheme kAsym4{4, 128, Symmetry::kAsym, DType::kF16};

QuantScheme with_bits(QuantScheme scheme, int bits) {
  scheme.bits = bits;
  return scheme;
}

const std::string kLayer = "model.layers.3.";

// q, k, v in 8 bits, o left in 16, one layer as the model, and a quantized head.
FormatModel mixed_model(const QuantScheme& scheme) {
  FormatModel model{scheme, {}, {"model.layers"}, {}};
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    model.layers.push_back({kLayer + "self_attn." + name, with_bits(scheme, 8), 256, 256});
  }
  model.layers.push_back({kLayer + "self_attn.o_proj", with_bits(scheme, 16), 256, 256});
  model.layers.push_back({kLayer + "mlp.up_proj", scheme, 256, 256});
  model.layers.push_back({"lm_head", scheme, 512, 256, DType::kBF16, false});
  return model;
}

nlohmann::ordered_json section(const char* name, const FormatModel& model) {
  return make_format(name, model)->quantization_config(model);
}

TEST(Config, AutoRoundSaysWhatDiffersPerLayer) {
  const FormatModel model = mixed_model(kSym4);
  const auto config = section("auto_round", model);
  EXPECT_EQ(config["quant_method"], "auto-round");
  EXPECT_EQ(config["packing_format"], "auto_round:auto_gptq");
  EXPECT_EQ(config["block_name_to_quantize"], "model.layers");
  EXPECT_EQ(config["bits"], 4);
  EXPECT_EQ(config["group_size"], 128);
  EXPECT_EQ(config["sym"], true);
  EXPECT_EQ(config["data_type"], "int");
  const nlohmann::ordered_json want = {
      {kLayer + "self_attn.q_proj", {{"bits", 8}}},
      {kLayer + "self_attn.k_proj", {{"bits", 8}}},
      {kLayer + "self_attn.v_proj", {{"bits", 8}}},
      {kLayer + "self_attn.o_proj", {{"bits", 16}, {"data_type", "float"}}},
      {"lm_head", {{"bits", 4}, {"data_type", "int"}, {"group_size", 128}, {"sym", true}}},
  };
  EXPECT_EQ(config["extra_config"], want) << config.dump(2);
}

TEST(Config, GptqWritesRulesThatAlsoNameTheFusedLayer) {
  const FormatModel model = mixed_model(kSym4);
  const auto config = section("gptq", model);
  EXPECT_EQ(config["quant_method"], "gptq");
  EXPECT_EQ(config["checkpoint_format"], "gptq");
  for (const char* required : {"bits", "group_size", "desc_act", "sym"})
    EXPECT_TRUE(config.contains(required)) << required;
  EXPECT_EQ(config["lm_head"], true);
  const nlohmann::ordered_json want = {
      {"+:.*model\\.layers\\.3\\.self_attn\\.(q_proj|k_proj|v_proj|qkv_proj)$",
       {{"bits", 8}, {"group_size", 128}, {"sym", true}}},
      {"-:.*model\\.layers\\.3\\.self_attn\\.o_proj$", nlohmann::ordered_json::object()},
  };
  EXPECT_EQ(config["dynamic"], want) << config.dump(2);
  EXPECT_EQ(config["modules_in_block_to_quantize"][0].size(), 5u)
      << "three of q, k, v, up_proj and lm_head";
  // AutoRoundConfig of transformers refuses GPTQ configs with this key.
  EXPECT_FALSE(config.contains("meta"));
}

TEST(Config, AFusedNameIsLeftOutWhereTheSiblingsDiffer) {
  FormatModel model = mixed_model(kSym4);
  model.layers[1].scheme.bits = 4;
  const auto rules = section("gptq", model)["dynamic"];
  EXPECT_TRUE(rules.contains("+:.*model\\.layers\\.3\\.self_attn\\.q_proj$")) << rules.dump(2);
  EXPECT_TRUE(rules.contains("+:.*model\\.layers\\.3\\.self_attn\\.v_proj$")) << rules.dump(2);
  EXPECT_EQ(rules.size(), 3u);
}

TEST(Config, AModelOfOneSchemeNeedsNoRules) {
  FormatModel model{kSym4, {{"model.layers.0.mlp.up_proj", kSym4, 256, 256}}, {"model.layers"}, {}};
  const auto gptq = section("gptq", model);
  EXPECT_FALSE(gptq.contains("dynamic"));
  EXPECT_FALSE(gptq.contains("modules_in_block_to_quantize"));
  EXPECT_EQ(gptq["lm_head"], false);
  EXPECT_FALSE(section("auto_round", model).contains("extra_config"));
}

TEST(Config, TuningIsWrittenWhereItIsNotAutoRoundsDefault) {
  FormatModel model{kSym4, {}, {"model.layers"}, {}};
  const auto config_with = [&](TuningInfo tuning) {
    model.tuning = tuning;
    return section("auto_round", model);
  };
  for (const char* key :
       {"iters", "lr", "minmax_lr", "nsamples", "seqlen", "batch_size", "enable_minmax_tuning"}) {
    EXPECT_FALSE(config_with({}).contains(key)) << key;
  }
  EXPECT_FALSE(config_with({.iters = 200, .lr = 1.0 / 200}).contains("lr"));
  const auto config = config_with({.iters = 50,
                                   .lr = 5e-3,
                                   .nsamples = 512,
                                   .enable_norm_bias_tuning = true,
                                   .enable_quanted_input = false});
  EXPECT_EQ(config["iters"], 50);
  EXPECT_EQ(config["lr"], 5e-3);
  EXPECT_EQ(config["nsamples"], 512);
  EXPECT_EQ(config["enable_norm_bias_tuning"], true);
  EXPECT_EQ(config["enable_quanted_input"], false);
  EXPECT_FALSE(config_with({.iters = 0, .lr = 5e-3}).contains("lr"))
      << "AutoRound's default without tuning";
}

TEST(Config, AwqListsTheLayersThatAreLeft) {
  FormatModel model = mixed_model(kAsym4);
  for (size_t k = 0; k < 3; ++k) model.layers[k].scheme.bits = 4;
  model.layers.pop_back();
  const auto config = section("awq", model);
  EXPECT_EQ(config["quant_method"], "awq");
  EXPECT_EQ(config["version"], "gemm");
  EXPECT_EQ(config["zero_point"], true);
  EXPECT_EQ(config["modules_to_not_convert"],
            nlohmann::ordered_json::array({kLayer + "self_attn.o_proj"}));
  model.layers.push_back({"lm_head", kAsym4, 512, 256, DType::kBF16, false});
  testing::expect_error(ErrorKind::kInvalidArgument, "[awq] lm_head is outside the blocks",
                        [&] { section("awq", model); });
}

TEST(Config, TheFileBesideConfigJsonIsTheSameSection) {
  const FormatModel model = mixed_model(kSym4);
  for (const auto& [name, file] : {std::pair("gptq", "quantize_config.json"),
                                   std::pair("auto_round", "quantization_config.json")}) {
    const auto format = make_format(name, model);
    const auto config = format->quantization_config(model);
    const auto files = format->extra_files(config);
    ASSERT_EQ(files.size(), 1u) << name;
    EXPECT_EQ(files[0].name, file);
    EXPECT_EQ(nlohmann::ordered_json::parse(files[0].content), config);
  }
}

TEST(Config, OurOwnReaderUnderstandsEveryLayer) {
  for (const char* name : {"auto_round", "gptq", "gptq_v2"}) {
    for (const QuantScheme& scheme : {kSym4, kAsym4}) {
      const FormatModel model = mixed_model(scheme);
      const QuantizationConfig read(section(name, model), name);
      for (const FormatLayer& layer : model.layers) {
        const QuantScheme got = read.scheme_of(layer.name);
        EXPECT_EQ(got.bits, layer.scheme.bits) << name << ": " << layer.name;
        if (got.bits < 16) {
          EXPECT_EQ(got, layer.scheme) << name << ": " << layer.name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace signround
