#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>

#include "signround/base/error.h"
#include "signround/formats/decode.h"
#include "signround/formats/format.h"
#include "signround/formats/format_test_util.h"

namespace signround {
namespace {

using testing::layer_of;
using testing::model_of;
using testing::random_linear;
using testing::raw_layer;
using testing::weights_of;

constexpr Symmetry kSymmetries[] = {Symmetry::kFullRange, Symmetry::kAsym, Symmetry::kClassic};

uint32_t word_at(const PackedTensor& t, size_t k) {
  uint32_t w;
  std::memcpy(&w, t.bytes.data() + 4 * k, 4);
  return w;
}

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

void expect_same(const QuantizedLinear& got, const QuantizedLinear& want, const std::string& what) {
  EXPECT_EQ(got.out, want.out) << what;
  EXPECT_EQ(got.in, want.in) << what;
  EXPECT_TRUE(got.scheme == want.scheme) << what;
  EXPECT_EQ(got.codes, want.codes) << what;
  EXPECT_EQ(got.scales, want.scales) << what;
  EXPECT_EQ(got.zeros, want.zeros) << what;
}

// Every format, width, symmetry and grouping (96 inputs in groups of 64: the last group is not
// full).
TEST(Packing, WhatIsPackedIsDecodedBitForBit) {
  int packed = 0;
  for (std::string_view name : format_names()) {
    if (name == "fake") continue;
    for (int bits : {2, 3, 4, 8}) {
      for (Symmetry symmetry : kSymmetries) {
        for (int64_t group : {32, 64, 128, -1}) {
          QuantizedLinear linear = random_linear({bits, group, symmetry, DType::kF16}, 64, 96, 3);
          const FormatLayer layer = layer_of("model.layers.0.mlp.up_proj", linear);
          const auto format = make_format(name, model_of(layer));
          if (!format->problems(layer.scheme, layer.out, layer.in).empty()) continue;
          format->prepare(linear);
          const auto tensors = format->pack(layer, linear);
          const std::string what = std::string(name) + ", " + std::to_string(bits) +
                                   " bits, group " + std::to_string(group);
          const auto planned = format->tensors(layer);
          ASSERT_EQ(tensors.size(), planned.size()) << what;
          for (size_t k = 0; k < planned.size(); ++k) {
            EXPECT_EQ(tensors[k].info, planned[k]) << what;
            EXPECT_EQ(static_cast<int64_t>(tensors[k].bytes.size()), planned[k].nbytes()) << what;
          }
          const auto decoded =
              decode_linear(format->packing(), layer.scheme, raw_layer(layer.name, tensors));
          EXPECT_TRUE(decoded.group_of.empty()) << what;
          EXPECT_EQ(decoded.wrapped_zeros, 0) << what;
          EXPECT_FALSE(decoded.mislabelled_v2) << what;
          expect_same(decoded.linear, linear, what);
          ++packed;
        }
      }
    }
  }
  // auto_round and three of gptq: 4 widths x 3 symmetries x 4 groupings each; awq: 3 x (32 and -1).
  EXPECT_EQ(packed, 4 * 48 + 6);
}

TEST(Packing, RowsDecodeAsTheyDoInTheWholeLayer) {
  for (const char* name : {"gptq", "awq"}) {
    QuantizedLinear linear = random_linear({4, 32, Symmetry::kAsym, DType::kF16}, 96, 64, 5);
    const FormatLayer layer = layer_of("l", linear);
    const auto format = make_format(name, model_of(layer));
    format->prepare(linear);
    const auto tensors = format->pack(layer, linear);
    const auto part =
        decode_rows(format->packing(), layer.scheme, raw_layer("l", tensors), 17, 70).linear;
    EXPECT_TRUE(std::equal(part.codes.begin(), part.codes.end(), linear.codes.begin() + 17 * 64))
        << name;
    EXPECT_TRUE(std::equal(part.scales.begin(), part.scales.end(), linear.scales.begin() + 17 * 2))
        << name;
    EXPECT_TRUE(std::equal(part.zeros.begin(), part.zeros.end(), linear.zeros.begin() + 17 * 2))
        << name;
  }
}

// The words that the consumers' documents give for symmetric zero points.
TEST(Packing, SymmetricZeroPointsAreTheKnownWords) {
  struct Case {
    const char* format;
    int bits;
    uint32_t word;
  };
  for (const Case& c : {Case{"gptq", 4, 0x77777777},
                        {"gptq", 2, 0x55555555},
                        {"gptq", 8, 0x7f7f7f7f},
                        {"gptq_v2", 4, 0x88888888},
                        {"auto_round", 4, 0x77777777},
                        {"awq", 4, 0x88888888}}) {
    const QuantizedLinear linear =
        random_linear({c.bits, 32, Symmetry::kFullRange, DType::kF16}, 32, 32, 1);
    const FormatLayer layer = layer_of("l", linear);
    const auto tensors = make_format(c.format, model_of(layer))->pack(layer, linear);
    EXPECT_EQ(tensors[1].info.name, "l.qzeros");
    EXPECT_EQ(word_at(tensors[1], 0), c.word) << c.format << ", " << c.bits << " bits";
  }
}

TEST(Packing, AutoRoundTakesThePackingThatAllLayersCanUse) {
  const QuantScheme sym{4, 32, Symmetry::kFullRange, DType::kF16},
      asym{4, 32, Symmetry::kAsym, DType::kF16};
  const auto packing = [](const QuantScheme& global, std::vector<FormatLayer> layers) {
    const FormatModel model{global, std::move(layers), {"model.layers"}, {}};
    const auto format = make_format("auto_round", model);
    return format->quantization_config(model)["packing_format"].get<std::string>();
  };
  QuantScheme eight = asym, left = sym, wide = asym;
  eight.bits = 8;
  left.bits = 16;
  wide.group_size = 64;
  EXPECT_EQ(packing(sym, {{"a", sym, 64, 64}}), "auto_round:auto_gptq");
  EXPECT_EQ(packing(asym, {{"a", asym, 64, 64}, {"b", left, 64, 64}}), "auto_round:auto_awq");
  EXPECT_EQ(packing(asym, {{"a", asym, 64, 64}, {"b", eight, 64, 64}}), "auto_round");
  EXPECT_EQ(packing(asym, {{"a", asym, 64, 64}, {"b", sym, 64, 64}}), "auto_round");
  EXPECT_EQ(packing(sym, {{"a", sym, 64, 64}, {"b", asym, 64, 64}}), "auto_round");
  EXPECT_EQ(packing(wide, {{"a", wide, 64, 96}}), "auto_round") << "a group that is not full";
  EXPECT_EQ(packing(asym, {{"a", asym, 64, 64}, {"b", eight, 64, 65}}), "auto_round:auto_awq")
      << "b cannot be packed";
}

TEST(Packing, GptqIsV2WhereALayerIsAsymmetric) {
  const QuantScheme sym{4, 32, Symmetry::kClassic, DType::kF16},
      asym{4, 32, Symmetry::kAsym, DType::kF16};
  const auto config = [](const char* name, const QuantScheme& global, const QuantScheme& scheme) {
    const FormatModel model{global, {{"a", scheme, 64, 64}}, {"model.layers"}, {}};
    const auto format = make_format(name, model);
    EXPECT_EQ(format->name(), name);
    EXPECT_EQ(format->note().empty(),
              name != std::string("gptq") || format->packing() == Packing::kGptqV1);
    return format->quantization_config(model)["checkpoint_format"].get<std::string>();
  };
  EXPECT_EQ(config("gptq", sym, sym), "gptq");
  EXPECT_EQ(config("gptq", asym, asym), "gptq_v2");
  EXPECT_EQ(config("gptq", sym, asym), "gptq_v2");
  EXPECT_EQ(config("gptq_v1", asym, asym), "gptq");
  EXPECT_EQ(config("gptq_v2", sym, sym), "gptq_v2");
}

TEST(Packing, V1TurnsGroupsWithZeroPointZeroRoundWithoutChangingAWeight) {
  for (int bits : {2, 3, 4, 8}) {
    QuantizedLinear linear = random_linear({bits, 32, Symmetry::kAsym, DType::kF16}, 32, 80, 9);
    linear.zeros[4] = 0;
    linear.zeros[95] = 0;  // a group of 16
    const int64_t zeros = std::count(linear.zeros.begin(), linear.zeros.end(), 0);
    const std::vector<float> before = weights_of(linear);
    const auto format = make_format("gptq_v1", {});
    EXPECT_EQ(format->prepare(linear), zeros);
    EXPECT_EQ(std::count(linear.zeros.begin(), linear.zeros.end(), 0), 0);
    EXPECT_EQ(weights_of(linear), before) << bits << " bits";
    EXPECT_EQ(format->prepare(linear), 0);
  }
}

TEST(Packing, V1RefusesAZeroPointOfZero) {
  QuantizedLinear linear = random_linear({4, 32, Symmetry::kAsym, DType::kF16}, 32, 64, 2);
  std::fill(linear.zeros.begin(), linear.zeros.end(), 3);
  linear.zeros[2 * 5 + 1] = 0;
  const FormatLayer layer = layer_of("l.q_proj", linear);
  const std::string error =
      error_of([&] { make_format("gptq_v1", model_of(layer))->pack(layer, linear); });
  EXPECT_NE(error.find("[gptq] l.q_proj: zero point 0 of row 5, group 1"), std::string::npos)
      << error;
  EXPECT_EQ(error_of([&] { make_format("gptq_v2", model_of(layer))->pack(layer, linear); }),
            "no error");
}

TEST(Packing, ValuesThatDoNotFitAreErrorsThatNameTheirPlace) {
  const QuantizedLinear sound =
      random_linear({4, 32, Symmetry::kFullRange, DType::kF16}, 32, 64, 2);
  const FormatLayer layer = layer_of("l", sound);
  const auto format = make_format("gptq", model_of(layer));
  const auto error_with = [&](auto change) {
    QuantizedLinear linear = sound;
    change(linear);
    return error_of([&] { format->pack(layer, linear); });
  };
  EXPECT_EQ(error_with([](QuantizedLinear&) {}), "no error");
  EXPECT_NE(error_with([](QuantizedLinear& q) { q.codes[100] = 16; }).find("l: a code is above 15"),
            std::string::npos);
  EXPECT_NE(error_with([](QuantizedLinear& q) { q.scales[7] = 1e9f; }).find("row 3, group 1"),
            std::string::npos);
  EXPECT_NE(error_with([](QuantizedLinear& q) { q.scales[7] = 0.1f; }).find("not a finite F16"),
            std::string::npos);
  EXPECT_NE(error_with([](QuantizedLinear& q) {
              q.zeros[3] = 7;
            }).find("row 1, group 1, a symmetric layer has 8"),
            std::string::npos);
  EXPECT_NE(error_with([](QuantizedLinear& q) { q.codes.pop_back(); }).find("2047 codes"),
            std::string::npos);
  EXPECT_NE(error_with([](QuantizedLinear& q) { q.scheme.bits = 3; }).find("the plan says 4 bits"),
            std::string::npos);
}

TEST(Packing, ProblemsNameEveryReason) {
  const QuantScheme scheme{5, 32, Symmetry::kFullRange, DType::kF32};
  const std::string problems = make_format("gptq_v1", {})->problems(scheme, 65, 100);
  for (const char* part : {"5 bits", "in 100 is not a multiple of 32", "out 65", "F32"}) {
    EXPECT_NE(problems.find(part), std::string::npos) << part << " in: " << problems;
  }
  FormatModel model;
  model.scheme = {4, 64, Symmetry::kAsym, DType::kF16};
  const auto awq = make_format("awq", model);
  EXPECT_EQ(awq->problems(model.scheme, 64, 128), "");
  EXPECT_NE(awq->problems(model.scheme, 64, 96).find("96 is not a multiple of the group size 64"),
            std::string::npos);
  EXPECT_NE(awq->problems({3, 64, Symmetry::kAsym, DType::kF16}, 64, 64).find("AWQ has 4"),
            std::string::npos);
  EXPECT_NE(awq->problems({4, 32, Symmetry::kAsym, DType::kF16}, 64, 64).find("has one, here 64"),
            std::string::npos);
}

// Sound layers with up to three random changes to their headers, and random bytes: read or refused,
// never out of bounds (the sanitizers watch).
TEST(Packing, HeadersOfAnyShapeAreReadOrRefused) {
  PythonRandom random(77);
  constexpr int64_t kSides[] = {0, 1, 2, 3, 4, 8, 12, 32, 64, 96, int64_t{1} << 62, -1};
  constexpr DType kTypes[] = {DType::kI32,  DType::kU32, DType::kF16,
                              DType::kBF16, DType::kF32, DType::kI64};
  constexpr const char* kNames[] = {"auto_round", "gptq_v1", "gptq_v2", "awq"};
  int read = 0, refused = 0;
  for (int trial = 0; trial < 5000; ++trial) {
    const int bits[] = {2, 3, 4, 8};
    const int64_t groups[] = {-1, 32, 128};
    const QuantScheme scheme{bits[random.below(4)], groups[random.below(3)], Symmetry::kAsym,
                             DType::kF16};
    const FormatLayer layer{"l", scheme, 32 + 32 * int64_t(random.below(2)),
                            32 + 32 * int64_t(random.below(3))};
    const auto format = make_format(kNames[random.below(4)], model_of(layer));
    std::vector<PackedTensor> tensors;
    for (const TensorInfo& info : format->tensors(layer)) tensors.push_back({info, {}});
    for (uint64_t changes = random.below(4); changes > 0; --changes) {
      TensorInfo& info = tensors[random.below(tensors.size())].info;
      const uint64_t what = random.below(8);
      if (what == 0) info.dtype = kTypes[random.below(std::size(kTypes))];
      if (what == 1) info.shape.push_back(1);
      if (what > 1 && !info.shape.empty())
        info.shape[random.below(info.shape.size())] = kSides[random.below(std::size(kSides))];
    }
    for (PackedTensor& t : tensors) {
      int64_t size = size_of(t.info.dtype);
      for (int64_t side : t.info.shape) size = side < 0 || side > 4096 ? 0 : size * side;
      t.bytes.assign(static_cast<size_t>(size),
                     std::byte{static_cast<unsigned char>(random.next_u32() & 0x3b)});
    }
    try {
      decode_linear(format->packing(), scheme, raw_layer("l", tensors));
      ++read;
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::kCorruptFile) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 100);
}

TEST(Packing, FakeWritesTheWeightsInTheDtypeOfTheSource) {
  const QuantizedLinear linear =
      random_linear({3, 32, Symmetry::kAsym, DType::kF16}, 5, 40, 4);  // any shape
  const std::vector<float> want = weights_of(linear);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    FormatLayer layer = layer_of("l", linear);
    layer.dtype = dtype;
    const auto format = make_format("fake", model_of(layer));
    EXPECT_EQ(format->problems(layer.scheme, layer.out, layer.in), "");
    const auto tensors = format->pack(layer, linear);
    ASSERT_EQ(tensors.size(), 1u);
    EXPECT_EQ(tensors[0].info, (TensorInfo{"l.weight", dtype, {5, 40}}));
    for (size_t k = 0; k < want.size(); ++k) {
      if (dtype == DType::kF32) {
        float got;
        std::memcpy(&got, tensors[0].bytes.data() + 4 * k, 4);
        ASSERT_EQ(got, want[k]);
        continue;
      }
      uint16_t bits;
      std::memcpy(&bits, tensors[0].bytes.data() + 2 * k, 2);
      ASSERT_EQ(bits, dtype == DType::kF16 ? to_f16(want[k]).bits : to_bf16(want[k]).bits) << k;
    }
    EXPECT_TRUE(format->quantization_config(model_of(layer)).is_null());
  }
}

TEST(Packing, AnUnknownFormatListsTheKnownOnes) {
  const std::string error = error_of([] { make_format("gguf", {}); });
  EXPECT_EQ(
      error,
      "[format] \"gguf\", known formats are auto_round, gptq, gptq_v1, gptq_v2, awq, bnb, fake");
}

}  // namespace
}  // namespace signround
