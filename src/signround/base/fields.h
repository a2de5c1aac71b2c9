// One list of fields per options struct feeds flags, --help, the JSON record of a run, and the
// journal's comparison:
//
//   struct Options {
//     int iters = 200;
//     template <class Visitor> void visit(Visitor&& v) { v("iters", iters, {.help = "tuning steps
//     per block", .min = 0}); }
//   };
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace signround {

struct FieldInfo {
  std::string_view help;
  std::vector<std::string_view> aliases = {};  // other spellings of the flag, without dashes
  std::vector<std::string_view> choices = {};  // of a string field; empty: any text
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::string_view value = "";  // what --help calls the value; "" = by type
  std::string_view group = "";  // heading in --help; "" = the heading before
  // Other spellings of values of text and lists: {theirs, ours}.
  std::vector<std::pair<std::string_view, std::string_view>> spellings = {};
  bool hidden = false;  // not in --help, and nothing that a misspelled flag is taken for
};

// The fields and their values, in order.
template <class Options>
nlohmann::ordered_json fields_to_json(const Options& options) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  const_cast<Options&>(options).visit(
      [&](const char* name, auto& field, const FieldInfo&) { json[name] = field; });
  return json;
}

}  // namespace signround
