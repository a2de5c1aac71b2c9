#include "signround/text/jinja_string_methods.h"

#include <algorithm>
#include <unordered_map>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

// What a method may append to a marked string.
std::string text_for(Runtime& runtime, const StringObject& self, const Value& other) {
  return self.markup ? escape_for_markup(runtime, other) : other.text();
}

template <std::string (*convert)(std::string_view)>
Value converted(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "str method", args, {});
  runtime.reserve(
      4 * static_cast<int64_t>(self.text.size()));  // a case mapping is at most three times as long
  std::string text = convert(self.text);
  runtime.release(4 * static_cast<int64_t>(self.text.size()));
  return like(runtime, self, std::move(text));
}

template <bool left, bool right>
Value stripped(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "strip", args, {""});
  return like(runtime, self,
              strip_chars(runtime, self, params.given(0) ? &params[0] : nullptr, left, right));
}

template <bool (*holds)(char32_t)>
Value all_are(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "str method", args, {});
  runtime.step(self.length >> 2);
  if (self.text.empty()) return Value::boolean(false);
  for (size_t at = 0; at < self.text.size();)
    if (!holds(next_code_point(self.text, at))) return Value::boolean(false);
  return Value::boolean(true);
}

Value is_ascii(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "isascii", args, {});
  return Value::boolean(self.length == static_cast<int64_t>(self.text.size()));
}

Value is_printable_text(Runtime& runtime, const StringObject& self, const Args& args) {
  return Value::boolean(self.text.empty() || truthy(all_are<is_printable>(runtime, self, args)));
}

Value is_identifier(Runtime& runtime, const StringObject& self, const Args& args) {
  size_t at = 0;
  if (self.text.empty() || !is_identifier_start(next_code_point(self.text, at)))
    return Value::boolean(false);
  return all_are<is_identifier_part>(runtime, self, args);
}

Value is_title_text(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "istitle", args, {});
  runtime.step(self.length >> 2);
  bool any = false, in_word = false;
  for (size_t at = 0; at < self.text.size();) {
    const char32_t c = next_code_point(self.text, at);
    const bool starts = is_upper(c) || is_title(c);
    if ((starts && in_word) || (is_lower(c) && !in_word)) return Value::boolean(false);
    in_word = starts || is_lower(c);
    any = any || in_word;
  }
  return Value::boolean(any);
}

template <bool (*holds)(std::string_view)>
Value text_is(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "str method", args, {});
  runtime.step(self.length >> 2);
  return Value::boolean(holds(self.text));
}

// The part [start, end) that find, count, startswith and so on look at. false: start lies behind
// the string.
struct Part {
  std::string_view text;
  size_t offset = 0;  // bytes
  bool valid = true;
};

Part part_of(Runtime& runtime, const StringObject& self, const Params& params, size_t first) {
  const auto bound = [&](size_t i, int64_t otherwise) {
    int64_t index = params.given(i) ? params.integer(i, 0) : otherwise;
    if (index < 0) index = std::max<int64_t>(0, index + self.length);
    return index;
  };
  const int64_t start = bound(first, 0), end = std::min(bound(first + 1, self.length), self.length);
  if (start > end) return {{}, 0, false};
  runtime.step(static_cast<int64_t>(self.text.size() >> 6));
  if (self.length == static_cast<int64_t>(self.text.size()))
    return {std::string_view(self.text).substr(static_cast<size_t>(start),
                                               static_cast<size_t>(end - start)),
            static_cast<size_t>(start), true};
  const size_t from = byte_offset(self.text, start);
  const std::string_view rest = std::string_view(self.text).substr(from);
  return {rest.substr(0, byte_offset(rest, end - start)), from, true};
}

template <bool backwards, bool must_exist>
Value found(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "find", args, {"", "", ""}, 1);
  const std::string& pattern = params.string(0);
  const Part part = part_of(runtime, self, params, 1);
  runtime.step(static_cast<int64_t>(part.text.size() >> 4));
  const size_t at = !part.valid ? kNone
                    : backwards ? rfind_text(part.text, pattern)
                                : find_text(part.text, pattern);
  if (at == kNone && must_exist) runtime.fail("substring not found");
  if (at == kNone) return Value::integer(-1);
  return Value::integer(count_code_points(std::string_view(self.text).substr(0, part.offset + at)));
}

Value count(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "count", args, {"", "", ""}, 1);
  const std::string& pattern = params.string(0);
  const Part part = part_of(runtime, self, params, 1);
  if (!part.valid) return Value::integer(0);
  if (pattern.empty()) return Value::integer(count_code_points(part.text) + 1);
  runtime.step(static_cast<int64_t>(part.text.size() >> 4));
  int64_t result = 0;
  for (size_t at = 0; (at = find_text(part.text, pattern, at)) != kNone; at += pattern.size())
    ++result;
  return Value::integer(result);
}

template <bool at_end>
Value begins_or_ends(Runtime& runtime, const StringObject& self, const Args& args) {
  const char* name = at_end ? "endswith" : "startswith";
  const Params params(runtime, name, args, {"", "", ""}, 1);
  const Part part = part_of(runtime, self, params, 1);
  const auto matches = [&](const Value& affix) {
    if (!affix.is_string())
      runtime.fail(name, " first arg must be str or a tuple of str, not ", type_name(affix));
    const std::string& text = affix.text();
    if (!part.valid || text.size() > part.text.size()) return false;
    return at_end ? part.text.substr(part.text.size() - text.size()) == text
                  : part.text.substr(0, text.size()) == text;
  };
  if (!params[0].is(Kind::kTuple)) return Value::boolean(matches(params[0]));
  const auto& affixes = params[0].items();
  return Value::boolean(std::any_of(affixes.begin(), affixes.end(), matches));
}

template <bool from_end>
Value remove_affix(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "removeprefix", args, {""}, 1);
  const std::string& affix = params.string(0);
  const std::string_view text = self.text;
  if (affix.size() > text.size()) return like(runtime, self, self.text);
  const size_t rest = text.size() - affix.size();
  if (from_end)
    return like(runtime, self,
                std::string(text.substr(rest) == affix ? text.substr(0, rest) : text));
  return like(
      runtime, self,
      std::string(text.substr(0, affix.size()) == affix ? text.substr(affix.size()) : text));
}

Value replace(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "replace", args, {"", "", ""}, 2);
  const std::string& old = params.string(0);
  params.string(1);
  return like(runtime, self,
              replace_text(runtime, self.text, old, text_for(runtime, self, params[1]),
                           params.integer(2, -1)));
}

Value strings(Runtime& runtime, const StringObject& self, Pieces& parts, bool reversed) {
  if (reversed) std::reverse(parts.values().begin(), parts.values().end());
  Items items(runtime);
  for (const std::string_view part : parts.values())
    items.push(like(runtime, self, std::string(part)));
  return Value::list(runtime, items.take());
}

// Runs of white space separate; `limit` < 0: no limit.
void split_spaces(std::string_view text, int64_t limit, bool from_end, Pieces& parts) {
  while (true) {
    text = strip(text, !from_end, from_end);
    if (text.empty()) return;
    if (limit-- == 0) return parts.push(text);
    size_t at = from_end ? text.size() : 0;
    while (from_end ? at > 0 : at < text.size()) {
      size_t next = at;
      if (is_space(from_end ? previous_code_point(text, next) : next_code_point(text, next))) break;
      at = next;
    }
    parts.push(from_end ? text.substr(at) : text.substr(0, at));
    text = from_end ? text.substr(0, at) : text.substr(at);
  }
}

void split_at(Runtime& runtime, std::string_view text, std::string_view separator, int64_t limit,
              bool from_end, Pieces& parts) {
  for (; limit != 0; --limit) {
    if (from_end)
      runtime.step(static_cast<int64_t>(text.size() >> 6));  // a search backwards may look at all
    const size_t at = from_end ? rfind_text(text, separator) : find_text(text, separator);
    if (at == kNone) break;
    parts.push(from_end ? text.substr(at + separator.size()) : text.substr(0, at));
    text = from_end ? text.substr(0, at) : text.substr(at + separator.size());
  }
  parts.push(text);
}

template <bool from_end>
Value split(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "split", args, {"sep", "maxsplit"});
  const int64_t limit = std::max<int64_t>(-1, params.integer(1, -1));
  runtime.step(self.length >> 2);
  Pieces parts(runtime);
  if (params.given(0)) {
    if (params.string(0).empty()) runtime.fail("empty separator");
    split_at(runtime, self.text, params.string(0), limit, from_end, parts);
  } else {
    split_spaces(self.text, limit, from_end, parts);
  }
  return strings(runtime, self, parts, from_end);
}

Value splitlines(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "splitlines", args, {"keepends"});
  Pieces lines(runtime);
  split_lines(runtime, self.text, params.flag(0, false), lines);
  return strings(runtime, self, lines, false);
}

template <bool from_end>
Value partition(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "partition", args, {""}, 1);
  const std::string& separator = params.string(0);
  if (separator.empty()) runtime.fail("empty separator");
  const std::string_view text = self.text;
  runtime.step(self.length >> 4);
  const size_t at = from_end ? rfind_text(text, separator) : find_text(text, separator);
  std::string_view parts[3] = {text, {}, {}};
  if (at != kNone) {
    parts[0] = text.substr(0, at);
    parts[1] = separator;
    parts[2] = text.substr(at + separator.size());
  } else if (from_end) {
    std::swap(parts[0], parts[2]);
  }
  std::vector<Value> items;
  for (const std::string_view part : parts) items.push_back(like(runtime, self, std::string(part)));
  return Value::tuple(runtime, std::move(items));
}

Value join(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "join", args, {""}, 1);
  Text text(runtime);
  Iteration iteration(runtime, params[0]);
  bool first = true;
  for (Value item; iteration.next(item);) {
    if (!item.is_string() && !self.markup)
      runtime.fail("join() expects strings, found ", type_name(item));
    if (!first) text.append(self.text);
    first = false;
    text.append(text_for(runtime, self, item));
  }
  return like(runtime, self, text.take());
}

// Width and fill character of center, ljust, rjust.
std::pair<int64_t, std::string> fill_args(Runtime& runtime, const Params& params) {
  std::string fill = params.has(1) ? params.string(1) : " ";
  if (count_code_points(fill) != 1)
    runtime.fail("the fill character must be exactly one character long");
  return {params.integer(0, 0), std::move(fill)};
}

template <bool left>
Value justified(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, left ? "ljust" : "rjust", args, {"", ""}, 1);
  const auto [width, fill] = fill_args(runtime, params);
  Text text(runtime);
  if (left) text.append(self.text);
  text.append_repeated(width - self.length, fill);
  if (!left) text.append(self.text);
  return like(runtime, self, text.take());
}

Value center(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "center", args, {"", ""}, 1);
  const auto [width, fill] = fill_args(runtime, params);
  return like(runtime, self, center_text(runtime, self, width, fill));
}

Value zfill(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "zfill", args, {""}, 1);
  const int64_t missing = params.integer(0, 0) - self.length;
  const bool sign = !self.text.empty() && (self.text[0] == '-' || self.text[0] == '+');
  Text text(runtime);
  if (sign) text.append(std::string_view(self.text).substr(0, 1));
  text.append_repeated(missing, "0");
  text.append(std::string_view(self.text).substr(sign ? 1 : 0));
  return like(runtime, self, text.take());
}

Value expandtabs(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "expandtabs", args, {"tabsize"});
  const int64_t size = params.integer(0, 8);
  Text text(runtime);
  int64_t column = 0;
  for (size_t at = 0; at < self.text.size();) {
    const size_t start = at;
    const char32_t c = next_code_point(self.text, at);
    if (c == '\t') {
      const int64_t gap = size > 0 ? size - column % size : 0;
      text.append_repeated(gap, " ");
      column += gap;
    } else {
      text.append(std::string_view(self.text).substr(start, at - start));
      column = c == '\n' || c == '\r' ? 0 : column + 1;
    }
  }
  return like(runtime, self, text.take());
}

// The code point of a string that has one.
Value code_of(Runtime& runtime, const Value& text, const char* where) {
  if (!text.is_string() || text.as_string().length != 1)
    runtime.fail(where, "() expects strings of length 1, not ", type_name(text));
  size_t at = 0;
  return Value::integer(next_code_point(text.text(), at));
}

// A table for translate: of a dictionary, or of two strings of one length and one of what goes.
Value maketrans(Runtime& runtime, const StringObject&, const Args& args) {
  const Params params(runtime, "maketrans", args, {"", "", ""}, 1);
  std::vector<DictObject::Entry> entries;
  if (!params.has(1)) {
    if (!params[0].is(Kind::kDict))
      runtime.fail("if you give only one argument to maketrans it must be a dict");
    for (const auto& [key, value] : params[0].dict().entries)
      entries.emplace_back(key.is_integral() ? key : code_of(runtime, key, "maketrans"), value);
    return make_dict(runtime, std::move(entries));
  }
  params.string(0), params.string(1);
  const std::vector<Value> from = collect(runtime, params[0]), to = collect(runtime, params[1]);
  if (from.size() != to.size())
    runtime.fail("the first two maketrans arguments must have equal length");
  for (size_t i = 0; i < from.size(); ++i)
    entries.emplace_back(code_of(runtime, from[i], "maketrans"),
                         code_of(runtime, to[i], "maketrans"));
  if (params.has(2)) {
    params.string(2);
    for (const Value& gone : collect(runtime, params[2]))
      entries.emplace_back(code_of(runtime, gone, "maketrans"), Value::none());
  }
  return make_dict(runtime, std::move(entries));
}

Value translate(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "translate", args, {""}, 1);
  if (!params[0].is(Kind::kDict))
    runtime.fail("translate() expects a mapping, not ", type_name(params[0]));
  Text text(runtime);
  for (size_t at = 0; at < self.text.size();) {
    runtime.step();
    const size_t start = at;
    const Value* found = params[0].dict().find(Value::integer(next_code_point(self.text, at)));
    if (found == nullptr) {
      text.append(std::string_view(self.text).substr(start, at - start));
    } else if (found->is_string()) {
      text.append(found->text());
    } else if (found->is_integral()) {
      const Int code = found->as_int();
      if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        runtime.fail("character mapping must be in range(0x110000), and no surrogate");
      std::string character;
      append_code_point(character, static_cast<char32_t>(code));
      text.append(character);
    } else if (!found->is(Kind::kNone)) {
      runtime.fail("character mapping must return integer, None or str, not ", type_name(*found));
    }
  }
  return like(runtime, self, text.take());
}

Value format(Runtime& runtime, const StringObject& self, const Args& args) {
  return like(runtime, self, format_braces(runtime, self, args));
}

Value format_map(Runtime& runtime, const StringObject& self, const Args& args) {
  const Params params(runtime, "format_map", args, {""}, 1);
  if (!params[0].is(Kind::kDict))
    runtime.fail("format_map() expects a mapping, not ", type_name(params[0]));
  Args fields;
  for (const auto& [key, value] : params[0].dict().entries)
    if (key.is_string()) fields.named.emplace_back(key.text(), value);
  return like(runtime, self, format_braces(runtime, self, fields));
}

}  // namespace

Value like(Runtime& runtime, const StringObject& self, std::string text) {
  return Value::string(runtime, std::move(text), self.markup);
}

std::string strip_chars(Runtime& runtime, const StringObject& self, const Value* chars, bool left,
                        bool right) {
  if (chars == nullptr) return std::string(strip(self.text, left, right));
  if (!chars->is_string()) runtime.fail("strip arg must be None or str, not ", type_name(*chars));
  const std::string_view set = chars->text();
  // Every stripped character is looked for in the whole set.
  if (set.size() > 64) runtime.step(self.length / 64 * static_cast<int64_t>(set.size()));
  runtime.step(self.length >> 4);
  return std::string(strip(self.text, left, right, &set));
}

std::string replace_text(Runtime& runtime, std::string_view text, std::string_view old,
                         std::string_view with, int64_t count) {
  Text out(runtime);
  runtime.step(static_cast<int64_t>(text.size() >> 4));
  size_t at = 0;
  if (old.empty()) {  // between all characters
    for (; count != 0; --count) {
      out.append(with);
      if (at >= text.size()) return out.take();
      const size_t start = at;
      next_code_point(text, at);
      out.append(text.substr(start, at - start));
    }
  } else {
    for (; count != 0; --count) {
      const size_t found = find_text(text, old, at);
      if (found == kNone) break;
      out.append(text.substr(at, found - at));
      out.append(with);
      at = found + old.size();
    }
  }
  out.append(text.substr(at));
  return out.take();
}

std::string center_text(Runtime& runtime, const StringObject& self, int64_t width,
                        std::string_view fill) {
  const int64_t missing = std::max<int64_t>(0, width - self.length);
  const int64_t left =
      missing / 2 + (missing & width & 1);  // CPython's choice where both sides cannot be equal
  Text text(runtime);
  text.append_repeated(left, fill);
  text.append(self.text);
  text.append_repeated(missing - left, fill);
  return text.take();
}

void split_lines(Runtime& runtime, std::string_view text, bool keep_ends, Pieces& lines) {
  runtime.step(static_cast<int64_t>(text.size() >> 2));
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = at;
    const char32_t c = next_code_point(text, at);
    if (!is_line_break(c)) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push(text.substr(begin, (keep_ends ? at : end) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push(text.substr(begin));
}

bool is_lower_text(std::string_view text) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (is_upper(c) || is_title(c)) return false;
    any = any || is_lower(c);
  }
  return any;
}

bool is_upper_text(std::string_view text) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (is_lower(c) || is_title(c)) return false;
    any = any || is_upper(c);
  }
  return any;
}

StringMethod find_string_method(std::string_view name) {
  static const std::unordered_map<std::string_view, StringMethod> kMethods = {
      {"capitalize", converted<to_capitalized>},
      {"casefold", converted<to_casefold>},
      {"center", center},
      {"count", count},
      {"endswith", begins_or_ends<true>},
      {"expandtabs", expandtabs},
      {"find", found<false, false>},
      {"format", format},
      {"format_map", format_map},
      {"index", found<false, true>},
      {"isalnum", all_are<is_alnum>},
      {"isalpha", all_are<is_alpha>},
      {"isascii", is_ascii},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_digit>},
      {"isidentifier", is_identifier},
      {"islower", text_is<is_lower_text>},
      {"isnumeric", all_are<is_numeric>},
      {"isprintable", is_printable_text},
      {"isspace", all_are<is_space>},
      {"istitle", is_title_text},
      {"isupper", text_is<is_upper_text>},
      {"join", join},
      {"ljust", justified<true>},
      {"lower", converted<to_lower>},
      {"lstrip", stripped<true, false>},
      {"maketrans", maketrans},
      {"partition", partition<false>},
      {"removeprefix", remove_affix<false>},
      {"removesuffix", remove_affix<true>},
      {"replace", replace},
      {"rfind", found<true, false>},
      {"rindex", found<true, true>},
      {"rjust", justified<false>},
      {"rpartition", partition<true>},
      {"rsplit", split<true>},
      {"rstrip", stripped<false, true>},
      {"split", split<false>},
      {"splitlines", splitlines},
      {"startswith", begins_or_ends<false>},
      {"strip", stripped<true, true>},
      {"swapcase", converted<to_swapcase>},
      {"title", converted<to_titlecased>},
      {"translate", translate},
      {"upper", converted<to_upper>},
      {"zfill", zfill},
  };
  const auto found_method = kMethods.find(name);
  return found_method == kMethods.end() ? nullptr : found_method->second;
}

}  // namespace signround::jinja
