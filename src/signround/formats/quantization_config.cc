#include "signround/formats/quantization_config.h"

#include <algorithm>
#include <cctype>
#include <span>

#include "signround/base/error.h"
#include "signround/formats/name_pattern.h"

namespace signround {
namespace {

constexpr const char* kWhere = "quantization_config";
struct PackingName {
  std::string_view name;
  Packing packing;
};
constexpr PackingName kAutoRoundPackings[] = {
    {"auto_round:auto_gptq", Packing::kGptqV1}, {"auto_round:gptq", Packing::kGptqV1},
    {"auto_round", Packing::kGptqV2},           {"auto_round:gptqmodel", Packing::kGptqV2},
    {"auto_round:auto_awq", Packing::kAwq},     {"auto_round:awq", Packing::kAwq},
};
constexpr PackingName kCheckpointFormats[] = {{"gptq", Packing::kGptqV1},
                                              {"gptq_v2", Packing::kGptqV2}};
constexpr PackingName kAwqVersions[] = {{"gemm", Packing::kAwq}};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

struct QuantizationConfig::Rule {
  NamePattern pattern;
  QuantScheme scheme;
};

namespace {

// Typed access to the fields of one JSON object, with errors that name the field.
class Fields {
 public:
  Fields(const nlohmann::ordered_json& json, std::string where)
      : json_(json), where_(std::move(where)) {
    if (!json.is_object()) fail(ErrorKind::kCorruptFile, kWhere, where_, " is not a JSON object");
  }

  const nlohmann::ordered_json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t integer(const char* key, int64_t lowest, int64_t highest) const {
    const nlohmann::ordered_json* v = find(key);
    if (!v) fail(ErrorKind::kCorruptFile, kWhere, where_, " has no \"", key, "\"");
    // Lists are block shapes, which none of the packings read here has.
    if (!v->is_number_integer() || v->get<double>() < double(lowest) ||
        v->get<double>() > double(highest)) {
      fail(ErrorKind::kUnsupported, kWhere, where_, " has \"", key, "\": ", excerpt(v->dump()),
           ", expected an integer from ", lowest, " to ", highest);
    }
    return v->get<int64_t>();
  }
  bool boolean(const char* key, bool otherwise) const {
    const nlohmann::ordered_json* v = find(key);
    if (!v) return otherwise;
    if (!v->is_boolean()) {
      fail(ErrorKind::kCorruptFile, kWhere, where_, " has \"", key, "\": ", excerpt(v->dump()),
           ", expected true or false");
    }
    return v->get<bool>();
  }
  std::string text(const char* key, const char* otherwise) const {
    const nlohmann::ordered_json* v = find(key);
    if (!v) return otherwise;
    if (!v->is_string()) {
      fail(ErrorKind::kCorruptFile, kWhere, where_, " has \"", key, "\": ", excerpt(v->dump()),
           ", expected a text");
    }
    return v->get<std::string>();
  }

 private:
  const nlohmann::ordered_json& json_;
  std::string where_;
};

Packing packing_named(std::span<const PackingName> table, const char* key, const std::string& name,
                      const std::string& source) {
  std::string known;
  for (const PackingName& entry : table) {
    if (entry.name == name) return entry.packing;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  fail(ErrorKind::kUnsupported, kWhere, source, " has ", key, " \"", name,
       "\"; this program reads ", known);
}

void check_data_type(const Fields& fields, const std::string& where) {
  if (const std::string type = fields.text("data_type", "int"); type != "int") {
    fail(ErrorKind::kUnsupported, kWhere, where, " has data_type \"", type,
         "\"; this program reads int");
  }
}

constexpr int64_t kMaxGroup = int64_t{1} << 40;

}  // namespace

QuantizationConfig::~QuantizationConfig() = default;

QuantizationConfig::QuantizationConfig(const nlohmann::ordered_json& section, std::string source)
    : section_(section), source_(std::move(source)) {
  const Fields fields(section_, source_);
  const std::string method = fields.text("quant_method", "");
  const bool awq = method == "awq", gptq = method == "gptq";
  if (method == "bitsandbytes") {
    if (!fields.boolean("load_in_4bit", false) ||
        fields.text("bnb_4bit_quant_type", "fp4") != "nf4")
      fail(ErrorKind::kUnsupported, kWhere, source_, " holds ",
           fields.boolean("load_in_4bit", false) ? "FP4" : "8 bits",
           " of bitsandbytes; this program reads its NF4");
    packing_ = Packing::kBnb;
    // Blocks and double quantization: each layer's quant_state tells.
    scheme_ = {.bits = 4,
               .group_size = 64,
               .symmetry = Symmetry::kClassic,
               .scale_dtype = DType::kF32,
               .levels = Levels::kNf4};
    return;
  }
  if (!awq && !gptq && method != "auto-round" && method != "intel/auto-round") {
    fail(ErrorKind::kUnsupported, kWhere, source_, " is quantized with \"", method,
         "\"; this program reads auto-round, gptq, awq and bitsandbytes");
  }
  if (gptq) {
    const std::string format =
        fields.text("checkpoint_format", fields.text("format", "gptq").c_str());
    packing_ = packing_named(kCheckpointFormats, "checkpoint_format", format, source_);
  } else if (awq) {
    packing_ =
        packing_named(kAwqVersions, "version", lower(fields.text("version", "gemm")), source_);
  } else {
    const std::string packing =
        fields.text("packing_format", "auto_round:gptq");  // transformers' default
    packing_ = packing_named(kAutoRoundPackings, "packing_format", packing, source_);
    check_data_type(fields, source_);
  }
  scheme_.bits =
      static_cast<int>(fields.integer(awq && !fields.find("bits") ? "w_bit" : "bits", 1, 32));
  scheme_.group_size = fields.integer(
      awq && !fields.find("group_size") ? "q_group_size" : "group_size", -1, kMaxGroup);
  // Where a config does not say, the stored zero points do.
  const bool symmetric = awq ? !fields.boolean("zero_point", true) : fields.boolean("sym", false);
  scheme_.symmetry = symmetric ? Symmetry::kFullRange : Symmetry::kAsym;
  act_order_ = gptq && fields.boolean("desc_act", false) && scheme_.group_size > 0;
  if (gptq) read_dynamic();
  if (!gptq && !awq) read_extra_config();
}

// Layers by name, or by a pattern if the key has a character that no name has.
void QuantizationConfig::read_extra_config() {
  const auto extra = section_.find("extra_config");
  if (extra == section_.end() || extra->is_null()) return;
  if (!extra->is_object())
    fail(ErrorKind::kCorruptFile, kWhere, source_, " has an extra_config that is not an object");
  for (const auto& [key, json] : extra->items()) {
    const QuantScheme scheme = changed(json, source_ + " extra_config of " + key);
    exact_.emplace(key, scheme);
    if (NamePattern::is_pattern(key)) add_rule(key, false, scheme);
  }
}

// "+:pattern" changes the scheme, "-:pattern" leaves the layer as it is, a pattern alone is as
// "+:".
void QuantizationConfig::read_dynamic() {
  const auto dynamic = section_.find("dynamic");
  if (dynamic == section_.end() || dynamic->is_null()) return;
  if (!dynamic->is_object())
    fail(ErrorKind::kCorruptFile, kWhere, source_, " has a dynamic that is not an object");
  for (const auto& [key, json] : dynamic->items()) {
    const bool left = key.starts_with("-:");
    QuantScheme scheme = scheme_;
    scheme.bits = 16;
    if (!left) scheme = changed(json, source_ + " dynamic rule " + key);
    add_rule(left || key.starts_with("+:") ? key.substr(2) : key, true, scheme);
  }
}

void QuantizationConfig::add_rule(const std::string& pattern, bool anchored, QuantScheme scheme) {
  Rule rule{NamePattern(pattern, anchored), scheme};
  if (rule.pattern.problem().empty())
    rules_.push_back(std::move(rule));
  else
    notes_.push_back(source_ + ": the pattern " + pattern +
                     " of quantization_config matches nothing: " + rule.pattern.problem());
}

QuantScheme QuantizationConfig::changed(const nlohmann::ordered_json& json,
                                        const std::string& where) const {
  const Fields fields(json, where);
  QuantScheme scheme = scheme_;
  if (fields.find("bits")) scheme.bits = static_cast<int>(fields.integer("bits", 1, 32));
  if (scheme.bits >= 16) return scheme;
  check_data_type(fields, where);
  if (fields.find("group_size")) scheme.group_size = fields.integer("group_size", -1, kMaxGroup);
  if (fields.find("sym"))
    scheme.symmetry = fields.boolean("sym", false) ? Symmetry::kFullRange : Symmetry::kAsym;
  return scheme;
}

QuantScheme QuantizationConfig::scheme_of(std::string_view layer) const {
  constexpr std::string_view kPrefix = "model.";
  const std::string name(layer);
  const std::string other =
      layer.starts_with(kPrefix) ? name.substr(kPrefix.size()) : std::string(kPrefix) + name;
  for (const std::string& key : {name, other}) {
    if (const auto found = exact_.find(key); found != exact_.end()) return found->second;
  }
  for (const Rule& rule : rules_) {
    if (rule.pattern.matches(layer)) return rule.scheme;
  }
  return scheme_;
}

}  // namespace signround
