#include "signround/pipeline/layer_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "signround/base/error.h"

namespace signround {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kWhere = "--layer-config";

QuantScheme scheme_of(const std::string& key, const Json& json, QuantScheme scheme) {
  const auto wrong = [&](const std::string& field, const Json& found, const char* expected) {
    fail(ErrorKind::kInvalidArgument, kWhere, "'", key, "': ", field, " is ", found.dump(),
         ", expected ", expected);
  };
  const auto preset = [&](const Json& name) {
    const QuantScheme named = scheme_preset(name.get<std::string>());
    scheme.bits = named.bits;
    scheme.group_size = named.group_size;
  };
  if (json.is_string()) {
    preset(json);
  } else if (json.is_number_integer()) {
    scheme.bits = static_cast<int>(std::clamp<int64_t>(json.get<int64_t>(), -1, 1000));
  } else if (json.is_object()) {
    if (const auto name = json.find("scheme"); name != json.end()) {
      if (!name->is_string()) wrong("scheme", *name, "the name of a scheme");
      preset(*name);
    }
    for (const auto& [field, value] : json.items()) {
      if (field == "bits" || field == "group_size") {
        if (!value.is_number_integer()) wrong(field, value, "a whole number");
        const int64_t number = std::clamp<int64_t>(value.get<int64_t>(), -2, 1 << 20);
        (field == "bits" ? (scheme.bits = static_cast<int>(number)) : (scheme.group_size = number));
      } else if (field == "sym") {
        if (!value.is_boolean()) wrong(field, value, "true or false");
        if (!value.get<bool>())
          scheme.symmetry = Symmetry::kAsym;
        else if (scheme.symmetry == Symmetry::kAsym)
          scheme.symmetry = Symmetry::kFullRange;
      } else if (field == "data_type") {
        if (value != "int" && !(value == "float" && scheme.bits >= 16))
          wrong(field, value, "\"int\" (\"float\" with 16 bits)");
      } else if (field != "scheme") {
        fail(ErrorKind::kInvalidArgument, kWhere, "'", key, "': unknown field '", field,
             "'; known are bits, group_size, sym, data_type, scheme");
      }
    }
  } else {
    fail(ErrorKind::kInvalidArgument, kWhere, "'", key, "' is ", json.dump(),
         ", expected bits, the name of a scheme, or an object with bits, group_size, sym");
  }
  if (const std::string problem = problems(scheme); !problem.empty())
    fail(ErrorKind::kInvalidArgument, kWhere, "'", key, "': ", problem);
  return scheme;
}

}  // namespace

LayerConfig::LayerConfig(const std::string& text, const QuantScheme& base) {
  if (text.empty()) return;
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object())
    fail(ErrorKind::kInvalidArgument, kWhere, "'", excerpt(text),
         "' is no JSON object; write {\"down_proj\": 8} or the path of a file that holds it");
  for (const auto& [key, value] : json.items()) {
    if (key.empty()) fail(ErrorKind::kInvalidArgument, kWhere, "an entry has an empty name");
    const bool is_pattern = NamePattern::is_pattern(key);
    NamePattern pattern(key);
    if (is_pattern && !pattern.problem().empty())
      fail(ErrorKind::kInvalidArgument, kWhere, "'", key, "': ", pattern.problem());
    entries_.push_back({key, scheme_of(key, value, base), std::move(pattern), is_pattern});
  }
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.key.size() > b.key.size(); });
}

// A part that ends in a digit does not end within a number: layers.1 is not layers.10.
bool LayerConfig::Entry::matches(const std::string& layer) const {
  if (is_pattern) return pattern.matches(layer);
  const std::string part = key.back() >= '0' && key.back() <= '9' ? key + "." : key;
  return (layer + ".").find(part) != std::string::npos;
}

const QuantScheme* LayerConfig::find(const std::string& layer) {
  const auto use = [](Entry& entry) {
    entry.used = true;
    return &entry.scheme;
  };
  for (Entry& entry : entries_)
    if (entry.key == layer) return use(entry);
  for (Entry& entry : entries_)
    if (entry.matches(layer)) return use(entry);
  return nullptr;
}

bool LayerConfig::names(const std::string& layer) const {
  return std::any_of(entries_.begin(), entries_.end(),
                     [&](const Entry& entry) { return entry.key == layer; });
}

std::vector<std::string> LayerConfig::unused() const {
  std::vector<std::string> keys;
  for (const Entry& entry : entries_)
    if (!entry.used) keys.push_back(entry.key);
  return keys;
}

std::string layer_config_text(const std::string& option) {
  const size_t first = option.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return "";
  std::string text = option;
  if (option[first] != '{') {
    std::ifstream file(option, std::ios::binary);
    if (!file)
      fail(ErrorKind::kInvalidArgument, kWhere, "'", option,
           "' is no JSON object and no file that can be read");
    text.assign(std::istreambuf_iterator<char>(file), {});
  }
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) fail(ErrorKind::kInvalidArgument, kWhere, option, " holds no JSON");
  return json.dump();
}

Json layer_config_entry(const QuantScheme& scheme) {
  if (scheme.bits >= 16) return {{"bits", 16}, {"data_type", "float"}};
  return {{"bits", scheme.bits},
          {"group_size", scheme.group_size},
          {"sym", scheme.symmetry != Symmetry::kAsym}};
}

}  // namespace signround
