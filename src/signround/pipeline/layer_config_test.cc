#include "signround/pipeline/layer_config.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "signround/base/error.h"

namespace signround {
namespace {

const QuantScheme kBase{.bits = 4, .group_size = 64};

std::string why_not(const std::string& text) {
  try {
    LayerConfig config(text, kBase);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(LayerConfig, EveryNotationOfAScheme) {
  LayerConfig config(R"({"a": 8, "b": "W2A16G32", "c": {"bits": 3, "group_size": -1},
                         "d": {"sym": false}, "e": {"scheme": "W8A16", "group_size": 32}, "f": 16,
                         "g": {"bits": 16, "data_type": "float"}})",
                     kBase);
  EXPECT_EQ(*config.find("a"), (QuantScheme{.bits = 8, .group_size = 64}));
  EXPECT_EQ(*config.find("b"), (QuantScheme{.bits = 2, .group_size = 32}));
  EXPECT_EQ(*config.find("c"), (QuantScheme{.bits = 3, .group_size = -1}));
  EXPECT_EQ(*config.find("d"),
            (QuantScheme{.bits = 4, .group_size = 64, .symmetry = Symmetry::kAsym}));
  EXPECT_EQ(*config.find("e"), (QuantScheme{.bits = 8, .group_size = 32}));
  EXPECT_EQ(config.find("f")->bits, 16);
  EXPECT_EQ(config.find("g")->bits, 16);
  EXPECT_EQ(config.find("h"), nullptr);
}

TEST(LayerConfig, WholeNameThenTheLongestKey) {
  LayerConfig config(
      R"({"proj": 8, "layers.1": 3, ".*layers\\.1\\..*up_proj": 2, "model.layers.1.mlp.up_proj": 4})",
      kBase);
  EXPECT_EQ(config.find("model.layers.1.mlp.up_proj")->bits, 4);
  EXPECT_EQ(config.find("model.layers.1.x.up_proj")->bits, 2);
  EXPECT_EQ(config.find("model.layers.1.mlp.down_proj")->bits, 3);
  EXPECT_EQ(config.find("model.layers.10.mlp.down_proj")->bits, 8) << "layers.1 is not layers.10";
}

TEST(LayerConfig, CountsWhatItNeverMet) {
  LayerConfig config(R"({"up": 8, "nothing": 2, "down": 3})", kBase);
  config.find("up_proj");
  config.find("down_proj");
  EXPECT_EQ(config.unused(), (std::vector<std::string>{"nothing"}));
  EXPECT_TRUE(config.names("nothing"));
  EXPECT_FALSE(config.names("up_proj"));
}

TEST(LayerConfig, RefusesWithTheEntry) {
  const std::pair<const char*, const char*> kWrong[] = {
      {"[1]", "no JSON object"},
      {"{", "no JSON object"},
      {R"({"": 4})", "empty name"},
      {R"({"a": 5})", "'a': bits is 5"},
      {R"({"a": "W9"})", "W9"},
      {R"({"a": null})", "'a' is null"},
      {R"({"a": {"bits": 4.5}})", "bits is 4.5"},
      {R"({"a": {"bits": 99999999999}})", "'a': bits"},
      {R"({"a": {"group_size": 0}})", "group_size is 0"},
      {R"({"a": {"sym": 1}})", "sym is 1"},
      {R"({"a": {"data_type": "mx_fp"}})", "data_type"},
      {R"({"a": {"act_bits": 8}})", "unknown field 'act_bits'"},
      {R"({"a(": 4})", "'a('"},
  };
  for (const auto& [text, part] : kWrong)
    EXPECT_NE(why_not(text).find(part), std::string::npos) << text << ": " << why_not(text);
}

TEST(LayerConfig, PatternsThatExplodeEndWithoutAMatch) {
  LayerConfig config(R"({"(a+)+$": 8})", kBase);
  EXPECT_EQ(config.find(std::string(200, 'a') + "!"), nullptr);
}

TEST(LayerConfig, TextOfAnOptionOrOfItsFile) {
  EXPECT_EQ(layer_config_text(""), "");
  EXPECT_EQ(layer_config_text(" { \"a\" : 4 } "), R"({"a":4})");
  const auto path = std::filesystem::path(::testing::TempDir()) / "layer_config.json";
  std::ofstream(path) << "\n{\"b\": 8}\n";
  EXPECT_EQ(layer_config_text(path.string()), R"({"b":8})");
  EXPECT_THROW(layer_config_text("/no/such/file"), Error);
  EXPECT_THROW(layer_config_text("{"), Error);
}

TEST(LayerConfig, EntryReadsBackAsTheScheme) {
  for (const QuantScheme& scheme :
       {QuantScheme{.bits = 2, .group_size = 32}, QuantScheme{.bits = 8, .group_size = -1},
        QuantScheme{.bits = 4, .group_size = 128, .symmetry = Symmetry::kAsym}}) {
    LayerConfig config(nlohmann::ordered_json{{"x", layer_config_entry(scheme)}}.dump(), kBase);
    EXPECT_EQ(*config.find("x"), scheme);
  }
}

}  // namespace
}  // namespace signround
