#include "signround/formats/decoded_checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "signround/formats/format_test_util.h"
#include "signround/formats/quantization_config.h"
#include "signround/io/safetensors.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::random_linear;
using testing::TempDir;
using testing::weights_of;
using testing::write_file;

const std::string kUp = "model.layers.0.mlp.up_proj", kDown = "model.layers.0.mlp.down_proj";
const std::string kNorm = "model.norm.weight";

// Two layers, one with a scheme of its own, and a norm that is not quantized.
struct TinyModel {
  FormatModel model;
  std::vector<QuantizedLinear> linears;
  std::unique_ptr<CheckpointFormat> format;
  std::vector<PackedTensor> tensors;
  nlohmann::ordered_json section;

  TinyModel(const std::string& name, QuantScheme scheme, QuantScheme down) {
    linears = {random_linear(scheme, 64, 96, 1), random_linear(down, 96, 64, 2)};
    model = {scheme,
             {testing::layer_of(kUp, linears[0]), testing::layer_of(kDown, linears[1])},
             {"model.layers"},
             {}};
    format = make_format(name, model);
    for (size_t k = 0; k < linears.size(); ++k) {
      format->prepare(linears[k]);
      for (PackedTensor& t : format->pack(model.layers[k], linears[k]))
        tensors.push_back(std::move(t));
    }
    PackedTensor norm{{kNorm, DType::kBF16, {64}}, std::vector<std::byte>(128, std::byte{0x3f})};
    tensors.push_back(std::move(norm));
    section = format->quantization_config(model);
  }

  PackedTensor& tensor(const std::string& name) {
    for (PackedTensor& t : tensors) {
      if (t.info.name == name) return t;
    }
    throw std::out_of_range(name);
  }
  void drop(const std::string& name) {
    std::erase_if(tensors, [&](const PackedTensor& t) { return t.info.name == name; });
  }

  std::unique_ptr<Checkpoint> written(const TempDir& dir) const {
    std::vector<TensorInfo> infos;
    for (const PackedTensor& t : tensors) infos.push_back(t.info);
    auto writer = SafetensorsWriter::create(dir / "model.safetensors", sorted_for_alignment(infos));
    for (const PackedTensor& t : tensors) writer.write(t.info.name, t.bytes);
    writer.finish();
    nlohmann::ordered_json config = {{"model_type", "llama"}, {"torch_dtype", "bfloat16"}};
    if (!section.is_null()) config["quantization_config"] = section;
    write_file(dir / "config.json", config.dump());
    return open_hf_checkpoint(dir.path());
  }
  std::unique_ptr<Checkpoint> decoded(const TempDir& dir) const {
    return decode_quantized(written(dir));
  }
};

constexpr QuantScheme kSym4{4, 32, Symmetry::kFullRange, DType::kF16};
constexpr QuantScheme kAsym4{4, 32, Symmetry::kAsym, DType::kF16};
constexpr QuantScheme kSym8{8, 64, Symmetry::kFullRange, DType::kF16};
constexpr QuantScheme kAsym2{2, 32, Symmetry::kAsym, DType::kF16};

TEST(DecodedCheckpoint, LooksLikeTheCheckpointItWasMadeFrom) {
  struct Case {
    const char* format;
    QuantScheme scheme, down;
  };
  for (const Case& c : {Case{"auto_round", kSym4, kSym8},
                        {"auto_round", kAsym4, kAsym4},
                        {"auto_round", kAsym4, kAsym2},
                        {"gptq", kSym4, kSym8},
                        {"gptq", kAsym2, kSym8},
                        {"gptq_v1", kAsym2, kSym8},
                        {"gptq_v2", kAsym2, kAsym4},
                        {"awq", kAsym4, kAsym4}}) {
    const TempDir dir;
    const TinyModel tiny(c.format, c.scheme, c.down);
    const auto checkpoint = tiny.decoded(dir);
    const std::string what = std::string(c.format) + " " + tiny.section.dump();
    EXPECT_EQ(checkpoint->tensors().size(), 3u) << what;
    EXPECT_EQ(checkpoint->at(kUp + ".weight"),
              (TensorInfo{kUp + ".weight", DType::kBF16, {64, 96}}))
        << what;
    EXPECT_EQ(checkpoint->at(kNorm).shape, (std::vector<int64_t>{64})) << what;
    EXPECT_FALSE(checkpoint->config().contains("quantization_config")) << what;
    EXPECT_EQ(checkpoint->config()["model_type"], "llama") << what;
    for (size_t k = 0; k < 2; ++k) {
      const std::string name = tiny.model.layers[k].name;
      const std::vector<float> want = weights_of(tiny.linears[k]);
      EXPECT_EQ(checkpoint->read_all_f32(name + ".weight"), want) << what;
      std::vector<std::byte> scratch;
      const auto bytes = checkpoint->bytes(name + ".weight", scratch);
      ASSERT_EQ(bytes.size(), 2 * want.size()) << what;
      for (size_t i = 0; i < want.size(); ++i) {
        uint16_t got;
        std::memcpy(&got, bytes.data() + 2 * i, 2);
        ASSERT_EQ(got, to_bf16(want[i]).bits) << what << " at " << i;
      }
      const QuantizedCheckpoint* quantized = as_quantized(*checkpoint);
      ASSERT_NE(quantized, nullptr);
      const QuantizedView* view = quantized->quantized(name);
      ASSERT_NE(view, nullptr) << what;
      EXPECT_EQ(view->scheme.bits, tiny.linears[k].scheme.bits) << what;
      EXPECT_EQ(quantized->decode(name).linear.codes, tiny.linears[k].codes) << what;
      EXPECT_EQ(quantized->quantized(name + ".weight"), nullptr);
      checkpoint->release(name + ".weight");
    }
  }
}

TEST(DecodedCheckpoint, ACheckpointThatIsNotQuantizedComesBackAsItIs) {
  const TempDir dir;
  TinyModel tiny("fake", kSym4, kSym4);
  auto checkpoint = tiny.written(dir);
  const Checkpoint* before = checkpoint.get();
  const auto after = decode_quantized(std::move(checkpoint));
  EXPECT_EQ(after.get(), before);
  EXPECT_EQ(as_quantized(*after), nullptr);
}

TEST(DecodedCheckpoint, ReadsRowsAnywhere) {
  const TempDir dir;
  const TinyModel tiny("gptq", kAsym4, kSym8);
  const auto checkpoint = tiny.decoded(dir);
  const std::vector<float> want = weights_of(tiny.linears[0]);
  std::vector<float> rows(3 * 96);
  checkpoint->read_f32(kUp + ".weight", 61, 3, rows.data());
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), want.begin() + 61 * 96));
  expect_error(ErrorKind::kInvalidArgument, "rows 62 to 65",
               [&] { checkpoint->read_f32(kUp + ".weight", 62, 3, rows.data()); });
}

// Act-order: columns were quantized in another order, so the groups are not contiguous.
TEST(DecodedCheckpoint, HonoursTheGroupsOfGIdx) {
  const TempDir dir;
  TinyModel tiny("gptq", kAsym4, kSym8);
  tiny.section["desc_act"] = true;
  PackedTensor& g_idx = tiny.tensor(kUp + ".g_idx");
  std::vector<int32_t> groups(96);
  for (int32_t i = 0; i < 96; ++i) groups[i] = (i * 7 + 1) % 3;
  std::memcpy(g_idx.bytes.data(), groups.data(), 4 * 96);
  const auto checkpoint = tiny.decoded(dir);
  const auto got = checkpoint->read_all_f32(kUp + ".weight");
  const QuantizedLinear& q = tiny.linears[0];
  for (int64_t o = 0; o < 64; ++o) {
    for (int64_t i = 0; i < 96; ++i) {
      const int64_t k = o * 3 + groups[i];
      ASSERT_EQ(got[o * 96 + i], q.scales[k] * static_cast<float>(q.codes[o * 96 + i] - q.zeros[k]))
          << o << ", " << i;
    }
  }
}

// Sorted, the rule for all layers would come first.
TEST(DecodedCheckpoint, RulesCountInTheOrderOfTheFile) {
  const TempDir dir;
  TinyModel tiny("gptq", kSym8, kSym4);
  tiny.section["bits"] = 2;
  tiny.section["dynamic"] = {{"model.*up_proj", {{"bits", 8}, {"group_size", 64}}},
                             {"+:.*", {{"bits", 4}, {"group_size", 32}}}};
  const auto checkpoint = tiny.decoded(dir);
  EXPECT_EQ(checkpoint->read_all_f32(kUp + ".weight"), weights_of(tiny.linears[0]));
  EXPECT_EQ(checkpoint->read_all_f32(kDown + ".weight"), weights_of(tiny.linears[1]));
}

TEST(DecodedCheckpoint, ReadsV2ZeroPointsUnderTheV1LabelOfASymmetricLayer) {
  const TempDir dir;
  TinyModel tiny("gptq_v2", kSym4, kSym4);
  tiny.section["checkpoint_format"] = "gptq";
  const auto checkpoint = tiny.decoded(dir);
  EXPECT_EQ(checkpoint->read_all_f32(kUp + ".weight"), weights_of(tiny.linears[0]));
  EXPECT_TRUE(as_quantized(*checkpoint)->decode(kUp).mislabelled_v2);
}

// GPTQModel subtracts 1 from whole words: a zero point of 0 borrows from the next field, and
// reading adds the words.
TEST(DecodedCheckpoint, ReadsV1ZeroPointsThatBorrowed) {
  const TempDir dir;
  TinyModel tiny("gptq_v2", kAsym4, kAsym4);
  tiny.section["checkpoint_format"] = "gptq";
  PackedTensor& qzeros = tiny.tensor(kUp + ".qzeros");
  int64_t zeros = 0;
  for (uint8_t z : tiny.linears[0].zeros) zeros += z == 0;
  ASSERT_GT(zeros, 0);
  for (size_t at = 0; at < qzeros.bytes.size(); at += 4) {
    uint32_t w;
    std::memcpy(&w, qzeros.bytes.data() + at, 4);
    w -= 0x11111111u;
    std::memcpy(qzeros.bytes.data() + at, &w, 4);
  }
  const auto checkpoint = tiny.decoded(dir);
  const DecodedLinear decoded = as_quantized(*checkpoint)->decode(kUp);
  EXPECT_EQ(decoded.linear.zeros, tiny.linears[0].zeros);
  EXPECT_GT(decoded.wrapped_zeros, 0);
}

TEST(DecodedCheckpoint, ReadsTheConfigOfOldGptqCheckpoints) {
  const TempDir dir;
  TinyModel tiny("gptq_v1", kAsym4, kAsym4);
  write_file(dir / "quantize_config.json",
             R"({"bits":4,"group_size":32,"desc_act":false,"sym":false})");
  tiny.section = nullptr;
  EXPECT_EQ(tiny.decoded(dir)->read_all_f32(kUp + ".weight"), weights_of(tiny.linears[0]));
}

// A change to a sound checkpoint, and what must be said about it.
void expect_refused(const char* format, ErrorKind kind, const std::string& text,
                    const std::function<void(TinyModel&)>& change) {
  const TempDir dir;
  TinyModel tiny(format, kSym4, kSym4);
  change(tiny);
  expect_error(kind, text, [&] {
    const auto checkpoint = tiny.decoded(dir);
    for (const TensorInfo& t : checkpoint->tensors()) checkpoint->read_all_f32(t.name);
  });
}

void reshape(PackedTensor& t, std::vector<int64_t> shape) {
  t.info.shape = std::move(shape);
  t.bytes.resize(static_cast<size_t>(t.info.nbytes()));
}

TEST(DecodedCheckpoint, RefusesBrokenTensors) {
  const auto corrupt = [](const std::string& text, auto change) {
    expect_refused("gptq", ErrorKind::kCorruptFile, text, change);
  };
  corrupt("there is no " + kUp + ".qzeros", [](TinyModel& m) { m.drop(kUp + ".qzeros"); });
  corrupt("there is no " + kUp + ".scales", [](TinyModel& m) { m.drop(kUp + ".scales"); });
  corrupt(kUp + ".qzeros without the qweight", [](TinyModel& m) { m.drop(kUp + ".qweight"); });
  corrupt(".scales F16 [2, 64], expected [3, 64]", [](TinyModel& m) {
    reshape(m.tensor(kUp + ".scales"), {2, 64});
  });
  corrupt(".qzeros I32 [3, 4], expected [3, 8]", [](TinyModel& m) {
    reshape(m.tensor(kUp + ".qzeros"), {3, 4});
  });
  corrupt(".qweight I32 [12], expected 2 dimensions",
          [](TinyModel& m) { reshape(m.tensor(kUp + ".qweight"), {12}); });
  corrupt("[0, 64], expected no empty side", [](TinyModel& m) {
    reshape(m.tensor(kUp + ".qweight"), {0, 64});
  });
  corrupt("I64 [12, 64], expected I32", [](TinyModel& m) {
    m.tensor(kUp + ".qweight").info.dtype = DType::kI64;
    reshape(m.tensor(kUp + ".qweight"), {12, 64});
  });
  corrupt(".g_idx I32 [95], expected [96]",
          [](TinyModel& m) { reshape(m.tensor(kUp + ".g_idx"), {95}); });
  corrupt("entry 5 is 3, expected 0 to 2", [](TinyModel& m) {
    const int32_t bad = 3;
    std::memcpy(m.tensor(kUp + ".g_idx").bytes.data() + 20, &bad, 4);
  });
  corrupt("entry 0 is -1, expected 0 to 2", [](TinyModel& m) {
    const int32_t bad = -1;
    std::memcpy(m.tensor(kUp + ".g_idx").bytes.data(), &bad, 4);
  });
  corrupt("the scale of group 1, output 3 is inf", [](TinyModel& m) {
    const uint16_t inf = 0x7c00;
    std::memcpy(m.tensor(kUp + ".scales").bytes.data() + 2 * (64 + 3), &inf, 2);
  });
  corrupt("do not hold whole fields of 3 bits", [](TinyModel& m) {
    m.section["bits"] = 3;
    reshape(m.tensor(kUp + ".qweight"), {13, 64});
  });
  corrupt("8 bits, group size 32", [](TinyModel& m) { m.section["bits"] = 8; });
  corrupt("desc_act, but there is no " + kUp + ".g_idx", [](TinyModel& m) {
    m.section["desc_act"] = true;
    m.drop(kUp + ".g_idx");
  });
  corrupt(kUp + " is not quantized", [](TinyModel& m) {
    m.section["dynamic"] = {{"-:.*up_proj", nlohmann::json::object()}};
  });
  corrupt("comes twice", [](TinyModel& m) { m.tensor(kNorm).info.name = kUp + ".weight"; });
  corrupt("no quantization_config that says how to read it",
          [](TinyModel& m) { m.section = nullptr; });
}

TEST(DecodedCheckpoint, NamesWhatItCannotRead) {
  const auto unsupported = [](const char* format, const std::string& text, auto change) {
    expect_refused(format, ErrorKind::kUnsupported, text, change);
  };
  unsupported("gptq", "quantized with \"hqq\"",
              [](TinyModel& m) { m.section["quant_method"] = "hqq"; });
  unsupported("gptq", "checkpoint_format \"marlin\"",
              [](TinyModel& m) { m.section["checkpoint_format"] = "marlin"; });
  unsupported("auto_round", "packing_format \"auto_round:fp8\"",
              [](TinyModel& m) { m.section["packing_format"] = "auto_round:fp8"; });
  unsupported("auto_round", "data_type \"mx_fp\"",
              [](TinyModel& m) { m.section["data_type"] = "mx_fp"; });
  unsupported("auto_round", "\"group_size\": [128,128]", [](TinyModel& m) {
    m.section["group_size"] = {128, 128};
  });
  unsupported("awq", "version \"gemv\"", [](TinyModel& m) { m.section["version"] = "GEMV"; });
}

TEST(QuantizationConfig, LayersTakeTheFirstRuleThatFits) {
  const nlohmann::ordered_json gptq = {{"quant_method", "gptq"},
                                       {"bits", 4},
                                       {"group_size", 128},
                                       {"sym", true},
                                       {"dynamic",
                                        {{"-:.*layers\\.0\\..*gate", nlohmann::json::object()},
                                         {"+:.*layers\\.0\\.", {{"bits", 8}, {"group_size", 32}}},
                                         {"layers\\.1", {{"bits", 2}}}}}};
  const QuantizationConfig config(gptq, "test");
  EXPECT_EQ(config.scheme_of("model.layers.0.mlp.gate_proj").bits, 16);
  EXPECT_EQ(config.scheme_of("model.layers.0.mlp.up_proj"),
            (QuantScheme{8, 32, Symmetry::kFullRange, DType::kF16}));
  EXPECT_EQ(config.scheme_of("model.layers.1.mlp.up_proj").bits, 4)
      << "dynamic rules start at the start of the name";
  EXPECT_EQ(config.scheme_of("layers.1.mlp.up_proj").bits, 2);

  const nlohmann::ordered_json auto_round = {
      {"quant_method", "auto-round"},
      {"packing_format", "auto_round"},
      {"bits", 4},
      {"group_size", 64},
      {"sym", false},
      {"extra_config",
       {{"model.layers.0.q_proj", {{"bits", 16}, {"data_type", "float"}}},
        {"layers.2.q_proj", {{"bits", 8}}},
        {".*v_proj.*", {{"sym", true}}},
        {"[", {{"bits", 2}}}}}};
  const QuantizationConfig names(auto_round, "test");
  EXPECT_EQ(names.scheme_of("model.layers.0.q_proj").bits, 16);
  EXPECT_EQ(names.scheme_of("model.layers.10.q_proj").bits, 4);
  EXPECT_EQ(names.scheme_of("model.layers.2.q_proj").bits, 8) << "with model. in front";
  EXPECT_EQ(names.scheme_of("model.layers.3.v_proj").symmetry, Symmetry::kFullRange);
  ASSERT_EQ(names.notes().size(), 1u);
  EXPECT_NE(names.notes()[0].find("the pattern [ "), std::string::npos) << names.notes()[0];
}

// A pattern that backtracks for ever is given up; the name then does not match.
TEST(QuantizationConfig, HostilePatternsEnd) {
  const nlohmann::ordered_json section = {{"quant_method", "auto-round"},
                                          {"packing_format", "auto_round"},
                                          {"bits", 4},
                                          {"group_size", 64},
                                          {"extra_config", {{"(a+)+$", {{"bits", 8}}}}}};
  EXPECT_EQ(QuantizationConfig(section, "test").scheme_of(std::string(4000, 'a') + "b").bits, 4);
}

}  // namespace
}  // namespace signround
