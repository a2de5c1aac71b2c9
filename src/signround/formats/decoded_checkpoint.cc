#include "signround/formats/decoded_checkpoint.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "signround/base/error.h"
#include "signround/formats/decode_bnb.h"
#include "signround/formats/quantization_config.h"
#include "signround/io/convert.h"
#include "signround/io/file.h"

namespace signround {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWhere = "quantized checkpoint";
constexpr std::string_view kWeight = ".weight";
constexpr int64_t kMaxConfig = 16 << 20;
constexpr int64_t kRowsAtOnce = 256;  // of a weight that is decoded to bytes: bounds the f32 copy

// "X" if the name is X + suffix.
std::string_view without_suffix(std::string_view name, std::string_view suffix) {
  return name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : std::string_view();
}

DType dtype_of_config(const nlohmann::json& config, const std::string& source) {
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto found = config.find(key);
    if (found == config.end() || !found->is_string()) continue;
    const auto dtype = dtype_from_torch_name(found->get<std::string>());
    if (dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF32) return *dtype;
    fail(ErrorKind::kUnsupported, kWhere, source, " has ", key, " ", excerpt(found->dump()),
         " in config.json, expected float16, bfloat16 or float32");
  }
  return DType::kF16;
}

class DecodedCheckpoint final : public QuantizedCheckpoint {
 public:
  DecodedCheckpoint(std::unique_ptr<Checkpoint> inner, const nlohmann::ordered_json& section)
      : inner_(std::move(inner)), rules_(section, inner_->source()) {
    source_ = inner_->source();
    config_ = inner_->config();
    config_.erase("quantization_config");
    dtype_ = dtype_of_config(config_, source_);
    parts_ = parts_of(rules_.packing());
    std::vector<TensorInfo> tensors;
    for (const TensorInfo& info : inner_->tensors()) {
      const std::string_view layer = without_suffix(info.name, parts_[0].suffix);
      if (!layer.empty()) {
        tensors.push_back(add_layer(std::string(layer)));
      } else if (!is_part_of_a_layer(info.name)) {
        if (info.name.ends_with(".qzeros") || info.name.ends_with(".weight.absmax")) {
          fail(ErrorKind::kCorruptFile, kWhere, source_, " has ", info.name, " without the ",
               parts_[0].suffix.substr(1), " beside it");
        }
        tensors.push_back(info);
      }
    }
    set_tensors(std::move(tensors));
  }

  const nlohmann::ordered_json& quantization_config() const override { return rules_.section(); }
  std::span<const QuantizedView> layers() const override { return layers_; }
  std::span<const std::string> notes() const override { return rules_.notes(); }

  const QuantizedView* quantized(std::string_view layer) const override {
    const auto found = index_.find(std::string(layer));
    return found == index_.end() ? nullptr : &layers_[found->second];
  }

  DecodedLinear decode(std::string_view layer) const override {
    const QuantizedView* view = quantized(layer);
    require(view != nullptr, kWhere, layer, " is not a quantized layer of ", source_);
    if (view->packing == Packing::kBnb)
      fail(ErrorKind::kUnsupported, kWhere, layer, " of ", source_, " is NF4 and has no integers");
    Scratch scratch;
    return decode_rows(view->packing, view->scheme, raw_layer(view->name, &scratch), 0, view->out);
  }

  std::span<const std::byte> bytes(std::string_view name,
                                   std::vector<std::byte>& scratch) const override {
    const QuantizedView* view = layer_of_weight(name);
    if (!view) return inner_->bytes(name, scratch);
    const int64_t size = size_of(dtype_);
    scratch.resize(static_cast<size_t>(view->out * view->in * size));
    std::vector<float> values(static_cast<size_t>(std::min(view->out, kRowsAtOnce) * view->in));
    for (int64_t row = 0; row < view->out; row += kRowsAtOnce) {
      const int64_t rows = std::min(kRowsAtOnce, view->out - row), n = rows * view->in;
      read_rows(*view, row, rows, values.data());
      std::byte* to = scratch.data() + row * view->in * size;
      // A fresh std::vector<std::byte> is aligned for every scalar type.
      if (dtype_ == DType::kF32) std::memcpy(to, values.data(), static_cast<size_t>(4 * n));
      if (dtype_ == DType::kF16) convert_to_f16(values.data(), n, reinterpret_cast<F16*>(to));
      if (dtype_ == DType::kBF16) convert_to_bf16(values.data(), n, reinterpret_cast<BF16*>(to));
    }
    return scratch;
  }

  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override {
    const QuantizedView* view = layer_of_weight(name);
    if (!view) return inner_->read_f32(name, row, rows, out);
    require(row >= 0 && rows >= 0 && row <= view->out && rows <= view->out - row, kWhere, "rows ",
            row, " to ", row + rows, " of tensor ", name, " were asked for, it has ", view->out);
    read_rows(*view, row, rows, out);
  }

  void release(std::string_view name) const override {
    const QuantizedView* view = layer_of_weight(name);
    if (!view) return inner_->release(name);
    for (const Part& part : parts_) {
      const std::string tensor = view->name + std::string(part.suffix);
      if (inner_->find(tensor)) inner_->release(tensor);
    }
  }

  std::vector<ExtraFile> extra_files() const override { return inner_->extra_files(); }
  int64_t bytes_on_disk() const override { return inner_->bytes_on_disk(); }

 private:
  using Scratch = std::vector<std::vector<std::byte>>;  // of each part

  const QuantizedView* layer_of_weight(std::string_view name) const {
    const std::string_view layer = without_suffix(name, kWeight);
    return layer.empty() ? nullptr : quantized(layer);
  }

  bool is_part_of_a_layer(std::string_view name) const {
    return std::any_of(parts_.begin() + 1, parts_.end(), [&](const Part& part) {
      const std::string_view layer = without_suffix(name, part.suffix);
      return !layer.empty() && inner_->find(std::string(layer) + std::string(parts_[0].suffix));
    });
  }

  // The layer's tensors; their bytes only where there is a scratch for them.
  RawLayer raw_layer(const std::string& layer, Scratch* scratch) const {
    RawLayer raw;
    raw.name = layer;
    if (scratch) scratch->resize(parts_.size());
    for (size_t k = 0; k < parts_.size(); ++k) {
      const TensorInfo* info = inner_->find(layer + std::string(parts_[k].suffix));
      if (!info) continue;
      RawTensor& part = raw.*parts_[k].tensor;
      part.info = *info;
      if (scratch) part.bytes = inner_->bytes(info->name, (*scratch)[k]);
    }
    return raw;
  }

  TensorInfo add_layer(std::string name) {
    QuantizedView view{name, rules_.scheme_of(name), rules_.packing()};
    view.packing == Packing::kBnb ? read_bnb_shape(view) : read_shape(view);
    TensorInfo weight{name + std::string(kWeight), dtype_, {view.out, view.in}};
    index_.emplace(std::move(name), layers_.size());
    layers_.push_back(std::move(view));
    return weight;
  }

  void read_bnb_shape(QuantizedView& view) const {
    Scratch scratch;
    const BnbShape shape = check_bnb_shape(raw_layer(view.name, &scratch));
    view.scheme = shape.scheme;
    view.out = shape.out;
    view.in = shape.in;
  }

  void read_shape(QuantizedView& view) const {
    const std::string& name = view.name;
    if (view.scheme.bits >= 16) {
      fail(ErrorKind::kCorruptFile, kWhere, source_, " has ", name,
           ".qweight, but its quantization_config says that ", name, " is not quantized");
    }
    const RawLayer raw = raw_layer(name, nullptr);
    if (rules_.act_order() && !raw.g_idx.present()) {
      fail(ErrorKind::kCorruptFile, kWhere, source_, " has desc_act, but there is no ", name,
           ".g_idx");
    }
    const PackedShape shape = check_packed_shape(view.packing, view.scheme, raw);
    view.out = shape.out;
    view.in = shape.in;
    view.scheme.scale_dtype = raw.scales.info.dtype;
  }

  void read_rows(const QuantizedView& view, int64_t row, int64_t rows, float* out) const {
    Scratch scratch;
    dequantize_rows(view.packing, view.scheme, raw_layer(view.name, &scratch), row, rows, out);
  }

  std::unique_ptr<Checkpoint> inner_;
  QuantizationConfig rules_;
  std::span<const Part> parts_;
  DType dtype_ = DType::kF16;
  std::vector<QuantizedView> layers_;
  std::unordered_map<std::string, size_t> index_;
};

// The file as an object with its keys in their order; null where there is no such file.
nlohmann::ordered_json read_ordered(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return nullptr;
  auto json =
      nlohmann::ordered_json::parse(read_text_file(kWhere, path, kMaxConfig), nullptr, false);
  if (!json.is_object())
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), " is not a JSON object");
  return json;
}

// The section with its rules in the order of the file, which config() does not keep: the first rule
// that matches counts.
nlohmann::ordered_json ordered_section(const Checkpoint& checkpoint) {
  const nlohmann::json& section = checkpoint.config()["quantization_config"];
  const nlohmann::ordered_json file = read_ordered(fs::path(checkpoint.source()) / "config.json");
  if (file.is_object() && file.contains("quantization_config")) return file["quantization_config"];
  return nlohmann::ordered_json::parse(section.dump());
}

// What GPTQ tools wrote before config.json had a section. It never says "quant_method".
nlohmann::ordered_json old_gptq_section(const Checkpoint& checkpoint) {
  nlohmann::ordered_json section =
      read_ordered(fs::path(checkpoint.source()) / "quantize_config.json");
  if (section.is_object() && !section.contains("quant_method")) section["quant_method"] = "gptq";
  return section;
}

}  // namespace

std::unique_ptr<Checkpoint> decode_quantized(std::unique_ptr<Checkpoint> checkpoint) {
  const nlohmann::json& config = checkpoint->config();
  const auto found = config.find("quantization_config");
  if (found != config.end() && !found->is_null()) {
    const nlohmann::ordered_json section = ordered_section(*checkpoint);
    return std::make_unique<DecodedCheckpoint>(std::move(checkpoint), section);
  }
  if (config.contains("compression_config")) {
    fail(ErrorKind::kUnsupported, kWhere, checkpoint->source(),
         " is quantized with \"compressed-tensors\" (compression_config); this program reads "
         "auto-round, gptq, awq and bitsandbytes");
  }
  const auto packed = std::find_if(
      checkpoint->tensors().begin(), checkpoint->tensors().end(), [](const TensorInfo& t) {
        return t.name.ends_with(parts_of(Packing::kGptqV2)[0].suffix) ||
               t.name.ends_with(parts_of(Packing::kBnb)[0].suffix);
      });
  if (packed == checkpoint->tensors().end()) return checkpoint;
  const nlohmann::ordered_json section = old_gptq_section(*checkpoint);
  if (section.is_null()) {
    fail(ErrorKind::kCorruptFile, kWhere, checkpoint->source(), " has ", packed->name,
         ", but config.json has no quantization_config that says how to read it");
  }
  return std::make_unique<DecodedCheckpoint>(std::move(checkpoint), section);
}

const QuantizedCheckpoint* as_quantized(const Checkpoint& checkpoint) {
  return dynamic_cast<const QuantizedCheckpoint*>(&checkpoint);
}

}  // namespace signround
