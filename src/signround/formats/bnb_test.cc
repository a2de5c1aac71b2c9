// NF4 as bitsandbytes 0.50.2 saves it: our bytes are its bytes (scripts/peers/nf4_goldens.py), and
// what is broken is said.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>

#include "signround/formats/decode_bnb.h"
#include "signround/formats/decoded_checkpoint.h"
#include "signround/formats/format.h"
#include "signround/io/safetensors.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"
#include "signround/testing/temp_dir.h"
#include "signround/testing/tensor_file.h"
#include "signround/testing/testdata.h"

namespace signround {
namespace {

using testing::expect_error;
using testing::TempDir;

const std::string kName = "model.layers.0.mlp.up_proj";

constexpr QuantScheme nf4_scheme(bool double_quant, int64_t block = kNf4Block) {
  return {4, block, Symmetry::kClassic, DType::kF32, Levels::kNf4, double_quant};
}

// A layer, what it was rounded to, and its tensors, which a test may spoil.
struct Layer {
  FormatLayer layer;
  Nf4Linear linear;
  std::unique_ptr<CheckpointFormat> format;
  std::vector<PackedTensor> tensors;

  Layer(const std::vector<float>& w, FormatLayer of) : layer(std::move(of)) {
    linear = nf4(w.data(), layer.out, layer.in, layer.scheme);
    format = make_format("bnb", model());
    tensors = format->pack_nf4(layer, linear);
  }
  FormatModel model() const { return {layer.scheme, {layer}, {"model.layers"}, {}}; }

  PackedTensor& tensor(const std::string& suffix) {
    for (PackedTensor& t : tensors)
      if (t.info.name == layer.name + suffix) return t;
    throw std::out_of_range(suffix);
  }
  // Another text for quant_state.
  void set_state(const std::string& text) {
    PackedTensor& t = tensor(kState);
    const auto bytes = std::as_bytes(std::span(text));
    t.bytes = {bytes.begin(), bytes.end()};
    t.info.shape = {static_cast<int64_t>(text.size())};
  }
  std::string state() {
    const PackedTensor& t = tensor(kState);
    return {reinterpret_cast<const char*>(t.bytes.data()), t.bytes.size()};
  }
  void replace(const std::string& what, const std::string& by) {
    std::string text = state();
    const size_t at = text.find(what);
    ASSERT_NE(at, std::string::npos) << text;
    set_state(text.replace(at, what.size(), by));
  }
  RawLayer raw() const {
    RawLayer raw;
    raw.name = layer.name;
    for (const Part& part : parts_of(Packing::kBnb))
      for (const PackedTensor& t : tensors)
        if (t.info.name == layer.name + std::string(part.suffix))
          raw.*part.tensor = {t.info, t.bytes};
    return raw;
  }
  static constexpr const char* kState = ".weight.quant_state.bitsandbytes__nf4";
};

Layer random_layer(bool double_quant, int64_t out = 96, int64_t in = 72) {
  return Layer(testing::random_normal(out * in, 3, 0.02),
               {kName, nf4_scheme(double_quant), out, in, DType::kBF16});
}

TEST(Bnb, BytesAreThoseOfBitsandbytes) {
  const testing::TensorFile file(testing::testdata() / "quant/nf4.safetensors");
  for (const std::string name : {"f32", "bf16", "f16", "block128", "short", "special"}) {
    for (const bool nested : {false, true}) {
      const std::string of = name + (nested ? ".double" : ".single");
      SCOPED_TRACE(of);
      const TensorInfo& info = file.info(name + ".weight");
      Layer layer(file.floats(name + ".weight"),
                  {kName, nf4_scheme(nested, name == "block128" ? 128 : 64), info.shape[0],
                   info.shape[1], info.dtype});
      const auto expect_bytes = [&](const char* suffix, const std::string& golden) {
        const PackedTensor& ours = layer.tensor(suffix);
        EXPECT_EQ(ours.info.dtype, file.info(golden).dtype) << suffix;
        EXPECT_EQ(ours.info.shape, file.info(golden).shape) << suffix;
        EXPECT_EQ(ours.bytes, file.values<std::byte>(golden)) << suffix;
      };
      expect_bytes(".weight", of + ".packed");
      expect_bytes(".weight.absmax", of + ".absmax");
      expect_bytes(".weight.quant_map", "levels");
      if (nested) {
        expect_bytes(".weight.nested_absmax", of + ".nested_absmax");
        expect_bytes(".weight.nested_quant_map", "dynamic_map");
      }
      // The text, but for the blanks behind it.
      const std::string text = layer.state(), want = file.text(of + ".quant_state");
      EXPECT_EQ(text.substr(0, text.find_last_not_of(' ') + 1), want);
      EXPECT_LE(want.size(), text.size());
    }
  }
}

TEST(Bnb, PlannedTensorsAreWhatIsPacked) {
  for (const bool nested : {false, true}) {
    const Layer layer = random_layer(nested);
    const auto planned = layer.format->tensors(layer.layer);
    ASSERT_EQ(planned.size(), layer.tensors.size());
    for (size_t k = 0; k < planned.size(); ++k) {
      EXPECT_EQ(planned[k], layer.tensors[k].info);
      EXPECT_EQ(planned[k].nbytes(), std::ssize(layer.tensors[k].bytes));
    }
  }
}

// Row lengths that are no whole bytes or blocks, and every range of rows.
TEST(Bnb, DecodesWhatWasPacked) {
  for (const bool nested : {false, true}) {
    for (const int64_t in : {1, 37, 64, 72}) {
      const int64_t out = 5;
      const Layer layer = random_layer(nested, out, in);
      const Nf4Linear got = decode_bnb(layer.raw());
      EXPECT_EQ(got.scheme, layer.linear.scheme);
      EXPECT_EQ(got.out, out);
      EXPECT_EQ(got.in, in);
      EXPECT_EQ(got.codes, layer.linear.codes);
      EXPECT_EQ(got.magnitudes, layer.linear.magnitudes);
      EXPECT_EQ(got.nested, layer.linear.nested);
      std::vector<float> all(static_cast<size_t>(out * in));
      dequantize(layer.linear, all.data());
      for (int64_t row = 0; row <= out; ++row) {
        for (int64_t rows = 0; row + rows <= out; ++rows) {
          std::vector<float> part(static_cast<size_t>(rows * in));
          dequantize_rows(Packing::kBnb, layer.layer.scheme, layer.raw(), row, rows, part.data());
          EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + row * in))
              << "rows " << row << " to " << row + rows << " of " << in;
        }
      }
    }
  }
}

// The nested offset takes the place that was left for it, however long it is.
TEST(Bnb, EveryOffsetFits) {
  for (const float offset :
       {0.0f, 3.0f, 0.1f, -1.17549435e-38f, 1.23456789e-38f, 3.4028235e38f, -7.0064923e-45f}) {
    Layer layer = random_layer(true, 2, 64);
    layer.linear.nested->offset = offset;
    layer.linear.nested->scales = {0};
    layer.linear.magnitudes = flatten_scales(*layer.linear.nested);
    layer.tensors = layer.format->pack_nf4(layer.layer, layer.linear);
    EXPECT_EQ(decode_bnb(layer.raw()).nested->offset, offset);
  }
}

TEST(Bnb, RefusesWhatIsBroken) {
  struct Case {
    const char* expected;
    std::function<void(Layer&)> spoil;
    ErrorKind kind = ErrorKind::kCorruptFile;
  };
  const auto drop = [](const char* suffix) {
    return [suffix](Layer& l) {
      std::erase_if(l.tensors,
                    [&](const PackedTensor& t) { return t.info.name == l.layer.name + suffix; });
    };
  };
  const auto replace = [](const char* what, const char* by) {
    return [=](Layer& l) { l.replace(what, by); };
  };
  const auto put = [](const char* suffix, float value) {
    return [=](Layer& l) { std::memcpy(l.tensor(suffix).bytes.data(), &value, sizeof(value)); };
  };
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Case cases[] = {
      {"there is no", drop(Layer::kState)},
      {"there is no", drop(".weight")},
      {"there is no", drop(".weight.absmax")},
      {"there is no", drop(".weight.quant_map")},
      {"there is no", drop(".weight.nested_absmax")},
      {"there is no", drop(".weight.nested_quant_map")},
      {"is not a JSON object", [](Layer& l) { l.set_state(""); }},
      {"is not a JSON object", [](Layer& l) { l.set_state("{\"quant_type\": \"nf4\""); }},
      {"is not a JSON object", [](Layer& l) { l.set_state("\xff\xfe"); }},
      {"is not a JSON object", [](Layer& l) { l.set_state("[1]"); }},
      {"expected U8 [at most", [](Layer& l) { l.set_state(std::string(1 << 17, ' ')); }},
      {"expected U8 [at most",
       [](Layer& l) {
         l.tensor(Layer::kState).info.shape.insert(l.tensor(Layer::kState).info.shape.begin(), 1);
       }},
      {"has no \"shape\"", replace("\"shape\"", "\"form\"")},
      {"expected \"nf4\"", replace("\"nf4\"", "\"fp4\"")},
      {"expected \"nf4\"", replace("\"nf4\"", "4")},
      {"power of 2", replace("\"blocksize\": 64", "\"blocksize\": 65")},
      {"\"blocksize\": 0", replace("\"blocksize\": 64", "\"blocksize\": 0")},
      {"\"blocksize\": -64", replace("\"blocksize\": 64", "\"blocksize\": -64")},
      {"\"blocksize\": 1e+300", replace("\"blocksize\": 64", "\"blocksize\": 1e300")},
      {"expected U8 [108]", [](Layer& l) { l.tensor(".weight.absmax").info.dtype = DType::kI8; }},
      {"two sides", replace("[96, 72]", "[96]")},
      {"two sides", replace("[96, 72]", "null")},
      {"integers from 1", replace("[96, 72]", "[96, 0]")},
      {"integers from 1", replace("[96, 72]", "[96, 18446744073709551615]")},
      {"integers from 1", replace("[96, 72]", "[\"96\", 72]")},
      {"expected U8 [3492, 1]", replace("[96, 72]", "[97, 72]")},
      {"expected U8 [36028797018963968, 1]", replace("[96, 72]", "[268435456, 268435456]")},
      {"nested_blocksize", replace("\"nested_blocksize\": 256", "\"nested_blocksize\": 0")},
      {"expected F32 [2]", replace("\"nested_blocksize\": 256", "\"nested_blocksize\": 64")},
      {"has no \"nested_blocksize\"", replace("nested_blocksize", "nested")},
      {"expected F32 [108]", replace("nested_offset", "offset")},
      {"expected a number", replace("\"nested_offset\": ", "\"nested_offset\": true, \"x\": ")},
      {"expected a finite number",
       replace("\"nested_offset\": ", "\"nested_offset\": 1e300, \"x\": ")},
      {"has 3455 bytes", [](Layer& l) { l.tensor(".weight").bytes.pop_back(); }},
      {"has 63 bytes", [](Layer& l) { l.tensor(".weight.quant_map").bytes.pop_back(); }},
      {"value 0 is nan", put(".weight.nested_absmax", kNan)},
      {"value 0 is inf", put(".weight.nested_quant_map", std::numeric_limits<float>::infinity())},
      {"the scale of block",
       [](Layer& l) {
         const float huge = 3e38f;
         std::memcpy(l.tensor(".weight.nested_absmax").bytes.data(), &huge, 4);
         l.tensor(".weight.absmax").bytes[0] = std::byte{255};
         l.replace("\"nested_offset\": ", "\"nested_offset\": 3e38, \"x\": ");
       }},
      {"level 0 is -0.5", put(".weight.quant_map", -0.5f), ErrorKind::kUnsupported},
      {"reads bnb_4bit_quant_storage uint8",
       [](Layer& l) {
         l.tensor(".weight").info = {kName + ".weight", DType::kBF16, {1728, 1}};
       },
       ErrorKind::kUnsupported},
  };
  std::vector<float> row(72);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.expected);
    Layer layer = random_layer(true);
    c.spoil(layer);
    expect_error(c.kind, c.expected, [&] { decode_bnb(layer.raw()); });
    expect_error(c.kind, c.expected, [&] { dequantize_bnb_rows(layer.raw(), 0, 1, row.data()); });
  }
  const Layer layer = random_layer(true);
  expect_error(ErrorKind::kInvalidArgument, "rows 95 to 97 of 96",
               [&] { dequantize_bnb_rows(layer.raw(), 95, 2, row.data()); });
}

TEST(Bnb, ScalesWithoutDoubleQuantizationMustBeFinite) {
  Layer layer = random_layer(false);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(layer.tensor(".weight.absmax").bytes.data() + 4, &nan, 4);
  expect_error(ErrorKind::kCorruptFile, "value 1 is nan", [&] { decode_bnb(layer.raw()); });
}

TEST(Bnb, NestedMapsOfOthersAreDequantizedButNotDecoded) {
  Layer layer = random_layer(true);
  const float other = -0.5f;
  std::memcpy(layer.tensor(".weight.nested_quant_map").bytes.data(), &other, 4);
  std::vector<float> weight(96 * 72);
  dequantize_bnb_rows(layer.raw(), 0, 96, weight.data());
  expect_error(ErrorKind::kUnsupported, "another map", [&] { decode_bnb(layer.raw()); });
}

TEST(Bnb, OtherFormatsRefuseNf4AndBnbRefusesIntegers) {
  const Layer layer = random_layer(true, 64, 128);
  for (const std::string_view name : format_names()) {
    const auto format = make_format(name, layer.model());
    const bool holds = name == "bnb" || name == "fake";
    EXPECT_EQ(format->problems(layer.layer.scheme, 64, 128).empty(), holds) << name;
    if (!holds)
      expect_error(ErrorKind::kInvalidArgument, "NF4",
                   [&] { format->pack_nf4(layer.layer, layer.linear); });
  }
  EXPECT_NE(layer.format->problems(QuantScheme{}, 64, 128).find("bnb holds NF4"),
            std::string::npos);
  expect_error(ErrorKind::kInvalidArgument, "holds NF4",
               [&] { layer.format->pack(layer.layer, QuantizedLinear{}); });
}

TEST(Bnb, PackingChecksWhatItIsGiven) {
  const auto refused = [](const std::string& expected,
                          const std::function<void(Nf4Linear&)>& spoil) {
    Layer layer = random_layer(true);
    spoil(layer.linear);
    for (const char* name : {"bnb", "fake"})
      expect_error(ErrorKind::kInvalidArgument, expected,
                   [&] { make_format(name, layer.model())->pack_nf4(layer.layer, layer.linear); });
  };
  refused("the plan says", [](Nf4Linear& l) { l.scheme.double_quant = false; });
  refused("in 8 bits", [](Nf4Linear& l) { l.nested.reset(); });
  refused("codes and", [](Nf4Linear& l) { l.codes.pop_back(); });
  refused("a code is above 15", [](Nf4Linear& l) { l.codes[9] = 16; });
  refused("nested scales that do not fit", [](Nf4Linear& l) { l.nested->scales.pop_back(); });
  refused("magnitude of block 3 is nan",
          [](Nf4Linear& l) { l.magnitudes[3] = std::numeric_limits<float>::quiet_NaN(); });
}

// The config that transformers reads, and the folder that this program reads.
struct Folder {
  TempDir dir;
  Layer layer;
  nlohmann::ordered_json section;

  explicit Folder(bool nested) : layer(random_layer(nested)) {
    section = layer.format->quantization_config(layer.model());
  }
  std::unique_ptr<Checkpoint> open() {
    std::vector<TensorInfo> infos = {{"model.norm.weight", DType::kBF16, {4}}};
    for (const PackedTensor& t : layer.tensors) infos.push_back(t.info);
    auto writer = SafetensorsWriter::create(dir / "model.safetensors", sorted_for_alignment(infos));
    for (const PackedTensor& t : layer.tensors) writer.write(t.info.name, t.bytes);
    writer.write("model.norm.weight", std::vector<std::byte>(8));
    writer.finish();
    nlohmann::ordered_json config = {{"model_type", "llama"}, {"torch_dtype", "bfloat16"}};
    if (!section.is_null()) config["quantization_config"] = section;
    testing::write_file(dir / "config.json", config.dump());
    return decode_quantized(open_hf_checkpoint(dir.path()));
  }
};

TEST(Bnb, FolderLooksLikeTheOriginal) {
  for (const bool nested : {false, true}) {
    Folder folder(nested);
    const auto checkpoint = folder.open();
    ASSERT_EQ(checkpoint->tensors().size(), 2u);
    const TensorInfo expected{kName + ".weight", DType::kBF16, {96, 72}};
    EXPECT_EQ(checkpoint->at(kName + ".weight"), expected);
    std::vector<float> want(96 * 72);
    dequantize(folder.layer.linear, want.data());
    EXPECT_EQ(checkpoint->read_all_f32(kName + ".weight"), want);
    std::vector<std::byte> scratch;
    const auto bytes = checkpoint->bytes(kName + ".weight", scratch);
    for (size_t k = 0; k < want.size(); ++k) {
      BF16 v;
      std::memcpy(&v, bytes.data() + 2 * k, 2);
      ASSERT_EQ(v.bits, to_bf16(want[k]).bits) << k;
    }
    const QuantizedCheckpoint* quantized = as_quantized(*checkpoint);
    ASSERT_NE(quantized, nullptr);
    EXPECT_EQ(quantized->quantized(kName)->scheme, nf4_scheme(nested));
    expect_error(ErrorKind::kUnsupported, "no integers", [&] { quantized->decode(kName); });
    checkpoint->release(kName + ".weight");
  }
}

TEST(Bnb, ConfigSaysWhatIsLeftAsItIs) {
  const Layer layer = random_layer(true);
  FormatModel model = layer.model();
  model.layers.push_back({"model.layers.0.mlp.down_proj", QuantScheme{.bits = 16}, 72, 96});
  auto config = layer.format->quantization_config(model);
  EXPECT_EQ(config["quant_method"], "bitsandbytes");
  EXPECT_EQ(config["bnb_4bit_compute_dtype"], "bfloat16");
  EXPECT_EQ(config["llm_int8_skip_modules"],
            (std::vector<std::string>{"model.layers.0.mlp.down_proj", "lm_head"}));
  model.layers.push_back({"lm_head", layer.layer.scheme, 96, 72, DType::kBF16, false});
  config = layer.format->quantization_config(model);
  EXPECT_EQ(config["llm_int8_skip_modules"],
            (std::vector<std::string>{"model.layers.0.mlp.down_proj"}));
}

TEST(Bnb, FoldersOfOtherKindsAreRefused) {
  const auto refused = [](ErrorKind kind, const std::string& expected,
                          const std::function<void(Folder&)>& spoil) {
    Folder folder(true);
    spoil(folder);
    expect_error(kind, expected, [&] { folder.open(); });
  };
  refused(ErrorKind::kUnsupported, "holds FP4 of bitsandbytes",
          [](Folder& f) { f.section["bnb_4bit_quant_type"] = "fp4"; });
  refused(ErrorKind::kUnsupported, "holds 8 bits of bitsandbytes",
          [](Folder& f) { f.section["load_in_4bit"] = false; });
  refused(ErrorKind::kCorruptFile, "expected true or false",
          [](Folder& f) { f.section["load_in_4bit"] = "yes"; });
  refused(ErrorKind::kCorruptFile, "no quantization_config",
          [](Folder& f) { f.section = nullptr; });
  refused(ErrorKind::kCorruptFile, "without the weight.quant_state", [](Folder& f) {
    std::erase_if(f.layer.tensors,
                  [&](const PackedTensor& t) { return t.info.name == kName + Layer::kState; });
  });
  refused(ErrorKind::kCorruptFile, "by the quant_state",
          [](Folder& f) { f.layer.replace("[96, 72]", "[96, 74]"); });
}

}  // namespace
}  // namespace signround
