#include "signround/formats/decode_bnb.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "signround/base/error.h"
#include "signround/base/parallel.h"

namespace signround {
namespace {

constexpr const char* kWhere = "decode";
constexpr int64_t kMaxSide = 1 << 28, kMaxState = 1 << 16;

template <class... Parts>
[[noreturn]] void corrupt(const Parts&... parts) {
  fail(ErrorKind::kCorruptFile, kWhere, parts...);
}

std::string label(const RawTensor& t) {
  return t.info.name + " " + std::string(name_of(t.info.dtype)) + " " + shape_text(t.info.shape);
}

void check(const RawLayer& layer, const RawTensor& t, const char* suffix, DType dtype,
           const std::vector<int64_t>& shape) {
  if (!t.present()) corrupt(layer.name, ": there is no ", layer.name, suffix);
  if (t.info.dtype != dtype || t.info.shape != shape)
    corrupt(label(t), ", expected ", name_of(dtype), " ", shape_text(shape), " by the quant_state");
}

void check_bytes(const RawTensor& t) {
  if (t.present() && static_cast<int64_t>(t.bytes.size()) != t.info.nbytes())
    corrupt(label(t), " has ", t.bytes.size(), " bytes, expected ", t.info.nbytes());
}

std::vector<float> floats(const RawTensor& t) {
  std::vector<float> values(t.bytes.size() / sizeof(float));
  std::memcpy(values.data(), t.bytes.data(), values.size() * sizeof(float));
  for (size_t k = 0; k < values.size(); ++k)
    if (!std::isfinite(values[k])) corrupt(label(t), ": value ", k, " is ", values[k]);
  return values;
}

uint8_t byte(const RawTensor& t, int64_t k) { return static_cast<uint8_t>(t.bytes[k]); }

// Code k of the flattened matrix: the first of a byte is its high half.
uint8_t code(const RawTensor& t, int64_t k) {
  return static_cast<uint8_t>(k % 2 == 0 ? byte(t, k / 2) >> 4 : byte(t, k / 2) & 15);
}

// The JSON object in a tensor of bytes.
class State {
 public:
  explicit State(const RawTensor& t) : label_(label(t)) {
    const auto* text = reinterpret_cast<const char*>(t.bytes.data());
    json_ = nlohmann::json::parse(text, text + t.bytes.size(), nullptr, false);
    if (!json_.is_object()) corrupt(label_, " is not a JSON object");
  }
  const nlohmann::json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() ? nullptr : &*found;
  }
  const nlohmann::json& at(const char* key) const {
    const auto* value = find(key);
    if (!value) corrupt(label_, " has no \"", key, "\"");
    return *value;
  }
  [[noreturn]] void wrong(const char* key, const std::string& expected) const {
    corrupt(label_, " has \"", key, "\": ", at(key).dump(-1, ' ', true, kReplace).substr(0, 80),
            ", expected ", expected);
  }
  int64_t integer(const nlohmann::json& value, const char* key, int64_t lowest,
                  int64_t highest) const {
    if (!value.is_number_integer() || value.get<double>() < static_cast<double>(lowest) ||
        value.get<double>() > static_cast<double>(highest))
      wrong(key, "integers from " + std::to_string(lowest) + " to " + std::to_string(highest));
    return value.get<int64_t>();
  }

 private:
  static constexpr auto kReplace = nlohmann::json::error_handler_t::replace;
  std::string label_;
  nlohmann::json json_;
};

// bitsandbytes multiplies by its own levels, whatever the file says.
void check_levels(const RawTensor& t, const std::vector<float>& levels) {
  for (size_t k = 0; k < levels.size(); ++k)
    if (std::abs(levels[k] - kNf4Levels[k]) > 1e-6f)
      fail(ErrorKind::kUnsupported, kWhere, label(t), ": level ", k, " is ", levels[k],
           ", NF4 has ", kNf4Levels[k]);
}

// Everything but the codes.
struct Parts {
  BnbShape shape;
  std::vector<float> levels, nested_scales, nested_map;
  std::vector<float> magnitudes;  // of blocks from first_block on
  int64_t first_block = 0;
};

// With the magnitudes of the rows [row, row + rows); rows < 0: of all.
Parts read_parts(const RawLayer& layer, int64_t row, int64_t rows) {
  Parts parts{.shape = check_bnb_shape(layer),
              .levels = {},
              .nested_scales = {},
              .nested_map = {},
              .magnitudes = {}};
  const BnbShape& shape = parts.shape;
  if (rows < 0) rows = shape.out;
  require(row >= 0 && row <= shape.out && rows <= shape.out - row, kWhere, layer.name, ": rows ",
          row, " to ", row + rows, " of ", shape.out);
  for (const Part& part : parts_of(Packing::kBnb)) check_bytes(layer.*part.tensor);
  parts.levels = floats(layer.quant_map);
  check_levels(layer.quant_map, parts.levels);
  if (shape.nested_block == 0) {
    parts.magnitudes = floats(layer.scales);
    return parts;
  }
  parts.nested_scales = floats(layer.nested_absmax);
  parts.nested_map = floats(layer.nested_quant_map);
  const int64_t block = shape.scheme.group_size;
  parts.first_block = row * shape.in / block;
  const int64_t end = ((row + rows) * shape.in + block - 1) / block;
  for (int64_t k = parts.first_block; k < end; ++k) {
    const float product =
        parts.nested_map[byte(layer.scales, k)] * parts.nested_scales[k / shape.nested_block];
    parts.magnitudes.push_back(product + shape.nested_offset);
    if (!std::isfinite(parts.magnitudes.back()))
      corrupt(label(layer.scales), ": the scale of block ", k, " is ", parts.magnitudes.back());
  }
  return parts;
}

}  // namespace

BnbShape check_bnb_shape(const RawLayer& layer) {
  const RawTensor& t = layer.quant_state;
  if (!t.present())
    corrupt(layer.name, ": there is no ", layer.name, ".weight.quant_state.bitsandbytes__nf4");
  if (t.info.dtype != DType::kU8 || t.info.shape.size() != 1 || t.info.shape[0] > kMaxState)
    corrupt(label(t), ", expected U8 [at most ", kMaxState, "]");
  check_bytes(t);
  const State state(t);
  if (state.at("quant_type") != "nf4") state.wrong("quant_type", "\"nf4\"");
  BnbShape shape;
  shape.scheme = {.bits = 4,
                  .group_size = state.integer(state.at("blocksize"), "blocksize", 1, kMaxSide),
                  .symmetry = Symmetry::kClassic,
                  .scale_dtype = DType::kF32,
                  .levels = Levels::kNf4};
  if (!problems(shape.scheme).empty()) state.wrong("blocksize", "a power of 2 from 32 to 4096");
  const nlohmann::json& sides = state.at("shape");
  if (!sides.is_array() || sides.size() != 2) state.wrong("shape", "two sides");
  shape.out = state.integer(sides[0], "shape", 1, kMaxSide);
  shape.in = state.integer(sides[1], "shape", 1, kMaxSide);
  const int64_t n = shape.out * shape.in, block = shape.scheme.group_size;
  shape.blocks = (n + block - 1) / block;
  if (layer.qweight.present() && layer.qweight.info.dtype != DType::kU8)
    fail(ErrorKind::kUnsupported, kWhere, label(layer.qweight),
         ": this program reads bnb_4bit_quant_storage uint8");
  check(layer, layer.qweight, ".weight", DType::kU8, {(n + 1) / 2, 1});
  check(layer, layer.quant_map, ".weight.quant_map", DType::kF32, {16});
  shape.scheme.double_quant = state.find("nested_offset") != nullptr;
  check(layer, layer.scales, ".weight.absmax", shape.scheme.double_quant ? DType::kU8 : DType::kF32,
        {shape.blocks});
  if (!shape.scheme.double_quant) return shape;
  shape.nested_block = state.integer(state.at("nested_blocksize"), "nested_blocksize", 1, kMaxSide);
  const nlohmann::json& offset = state.at("nested_offset");
  if (!offset.is_number()) state.wrong("nested_offset", "a number");
  shape.nested_offset = offset.get<float>();
  if (!std::isfinite(shape.nested_offset)) state.wrong("nested_offset", "a finite number");
  check(layer, layer.nested_absmax, ".weight.nested_absmax", DType::kF32,
        {(shape.blocks + shape.nested_block - 1) / shape.nested_block});
  check(layer, layer.nested_quant_map, ".weight.nested_quant_map", DType::kF32, {256});
  return shape;
}

Nf4Linear decode_bnb(const RawLayer& layer) {
  Parts parts = read_parts(layer, 0, -1);
  const BnbShape& shape = parts.shape;
  Nf4Linear linear{.scheme = shape.scheme,
                   .out = shape.out,
                   .in = shape.in,
                   .codes = std::vector<uint8_t>(static_cast<size_t>(shape.out * shape.in)),
                   .magnitudes = std::move(parts.magnitudes),
                   .nested = {}};
  parallel_for(shape.out * shape.in, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) linear.codes[k] = code(layer.qweight, k);
  });
  if (shape.nested_block == 0) return linear;
  const auto& map = dynamic_map();
  if (shape.nested_block != kNf4NestedBlock ||
      !std::equal(map.begin(), map.end(), parts.nested_map.begin()))
    fail(ErrorKind::kUnsupported, kWhere, layer.name, ": nested scales in blocks of ",
         shape.nested_block, " or of another map, expected blocks of ", kNf4NestedBlock,
         " and bitsandbytes' dynamic map");
  const auto* codes = reinterpret_cast<const uint8_t*>(layer.scales.bytes.data());
  linear.nested = NestedScales{.codes = {codes, codes + shape.blocks},
                               .scales = std::move(parts.nested_scales),
                               .offset = shape.nested_offset};
  return linear;
}

void dequantize_bnb_rows(const RawLayer& layer, int64_t row, int64_t rows, float* weight) {
  require(rows >= 0, kWhere, layer.name, ": ", rows, " rows");
  const Parts parts = read_parts(layer, row, rows);
  const BnbShape& shape = parts.shape;
  const int64_t block = shape.scheme.group_size;
  parallel_for(rows, (1 << 16) / shape.in + 1, [&](int64_t begin, int64_t end) {
    float* to = weight + begin * shape.in;
    const int64_t last = (row + end) * shape.in;
    for (int64_t k = (row + begin) * shape.in; k < last;) {
      const float magnitude = parts.magnitudes[k / block - parts.first_block];
      for (const int64_t stop = std::min(last, (k / block + 1) * block); k < stop; ++k)
        *to++ = parts.levels[code(layer.qweight, k)] * magnitude;
    }
  });
}

}  // namespace signround
