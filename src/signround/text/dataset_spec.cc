#include "signround/text/dataset_spec.h"

#include <charconv>

#include "signround/base/error.h"

namespace signround {
namespace {

constexpr const char* kWhere = "dataset";

// A character and whether quotes protected it from being a separator.
struct Glyph {
  char c;
  bool quoted;
};
using Glyphs = std::vector<Glyph>;

Glyphs unquote(std::string_view text) {
  Glyphs out;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (quoted && text[i] == '\\' && i + 1 < text.size() &&
        (text[i + 1] == '"' || text[i + 1] == '\\')) {
      out.push_back({text[++i], true});
    } else if (text[i] == '"') {
      quoted = !quoted;
    } else {
      out.push_back({text[i], quoted});
    }
  }
  require(!quoted, kWhere, "'", text, "' has a quote that is never closed");
  return out;
}

std::vector<Glyphs> split(const Glyphs& glyphs, char separator, size_t most = SIZE_MAX) {
  std::vector<Glyphs> parts(1);
  for (const Glyph& g : glyphs) {
    if (g.c == separator && !g.quoted && parts.size() < most) {
      parts.emplace_back();
    } else {
      parts.back().push_back(g);
    }
  }
  return parts;
}

// Without the unquoted blanks at both ends.
std::string plain(const Glyphs& glyphs) {
  size_t begin = 0, end = glyphs.size();
  auto blank = [&](size_t i) {
    return !glyphs[i].quoted && (glyphs[i].c == ' ' || glyphs[i].c == '\t');
  };
  while (begin < end && blank(begin)) ++begin;
  while (begin < end && blank(end - 1)) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) out += glyphs[i].c;
  return out;
}

bool is_true(std::string value) {
  for (char& c : value) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return value != "false";
}

int64_t parse_count(const std::string& name, const std::string& value) {
  int64_t count = 0;
  const char* end = value.data() + value.size();
  const auto [stop, problem] = std::from_chars(value.data(), end, count);
  require(problem == std::errc() && stop == end && count > 0, kWhere, "'", name, "': num=", value,
          " is not a positive number");
  return count;
}

void apply_option(DatasetSpec& spec, const Glyphs& option) {
  const auto parts = split(option, '=', 2);
  const std::string key = plain(parts[0]);
  const std::string value = parts.size() > 1 ? plain(parts[1]) : "";
  if (key == "split") {
    for (const Glyphs& part : split(parts.size() > 1 ? parts[1] : Glyphs{}, '+'))
      spec.splits.push_back(plain(part));
    for (const std::string& name : spec.splits)
      require(!name.empty(), kWhere, "'", spec.name, "': split= has an empty name");
  } else if (key == "num") {
    spec.num = parse_count(spec.name, value);
  } else if (key == "concat") {
    spec.concat = is_true(value);
  } else if (key == "apply_chat_template") {
    spec.apply_chat_template = is_true(value);
  } else if (key == "system_prompt") {
    spec.system_prompt = value;
    spec.apply_chat_template = true;
  } else if (key == "shuffle") {
    spec.shuffle = is_true(value);
  } else if (key == "column") {
    spec.column = value;
  } else if (key == "config") {
    spec.config = value;
  } else {
    fail(ErrorKind::kInvalidArgument, kWhere, "'", spec.name, "': '", key,
         "' is not an option; there are split, num, concat, apply_chat_template, system_prompt, "
         "shuffle, column, config");
  }
}

}  // namespace

std::vector<DatasetSpec> parse_dataset_specs(std::string_view text) {
  std::vector<DatasetSpec> specs;
  for (const Glyphs& one : split(unquote(text), ',')) {
    const auto parts = split(one, ':');
    DatasetSpec spec;
    spec.name = plain(parts[0]);
    if (!specs.empty()) spec.system_prompt = specs.back().system_prompt;
    require(!spec.name.empty(), kWhere, "'", text, "' names no data set before a ':' or ','");
    for (size_t i = 1; i < parts.size(); ++i) apply_option(spec, parts[i]);
    specs.push_back(std::move(spec));
  }
  return specs;
}

}  // namespace signround
