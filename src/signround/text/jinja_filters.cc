// Jinja's built-in filters on single values; those on sequences are in jinja_sequence_filters.cc.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "signround/text/jinja_ast.h"
#include "signround/text/jinja_json.h"
#include "signround/text/jinja_sequence_filters.h"
#include "signround/text/jinja_string_methods.h"
#include "signround/text/jinja_text_filters.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

// Jinja's soft_str: strings as they are, everything else as Python prints it.
Value soft_str(Runtime& runtime, const Value& value) {
  return value.is_string() ? value : Value::string(runtime, to_str(runtime, value));
}

template <std::string (*convert)(std::string_view)>
Value converted(Runtime& runtime, const Args& args) {
  const Params params(runtime, "filter", args, {"s"}, 1);
  const Value text = soft_str(runtime, params[0]);
  runtime.reserve(4 * static_cast<int64_t>(text.text().size()));
  std::string result = convert(text.text());
  runtime.release(4 * static_cast<int64_t>(text.text().size()));
  return like(runtime, text.as_string(), std::move(result));
}

// Words begin behind white space and -({[<, unlike in Python's str.title.
std::string title(std::string_view text) {
  std::string out;
  const auto flush = [&out](std::string_view word) {
    if (word.empty()) return;
    size_t first = 0;
    next_code_point(word, first);
    out += to_upper(word.substr(0, first)) + to_lower(word.substr(first));
  };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    const char32_t c = next_code_point(text, at);
    const bool separates = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (!separates) continue;
    flush(text.substr(begin, start - begin));
    out += text.substr(start, at - start);
    begin = at;
  }
  flush(text.substr(begin));
  return out;
}

Value default_value(Runtime& runtime, const Args& args) {
  const Params params(runtime, "default", args, {"value", "default_value", "boolean"}, 1);
  if (!params[0].is_undefined() && !(params.flag(2, false) && !truthy(params[0]))) return params[0];
  return params.has(1) ? params[1] : Value::string(runtime, "");
}

Value length(Runtime& runtime, const Args& args) {
  const Params params(runtime, "length", args, {"obj"}, 1);
  const int64_t size = length_of(params[0]);
  if (size < 0) runtime.fail("object of type '", type_name(params[0]), "' has no len()");
  return Value::integer(size);
}

Value trim(Runtime& runtime, const Args& args) {
  const Params params(runtime, "trim", args, {"value", "chars"}, 1);
  const Value text = soft_str(runtime, params[0]);
  return like(
      runtime, text.as_string(),
      strip_chars(runtime, text.as_string(), params.given(1) ? &params[1] : nullptr, true, true));
}

Value string(Runtime& runtime, const Args& args) {
  const Params params(runtime, "string", args, {"s"}, 1);
  return soft_str(runtime, params[0]);
}

Value replace(Runtime& runtime, const Args& args) {
  const Params params(runtime, "replace", args, {"s", "old", "new", "count"}, 3);
  const std::string text = to_str(runtime, params[0]);
  const std::string old = to_str(runtime, params[1]), with = to_str(runtime, params[2]);
  const int64_t count = params.given(3) ? params.integer(3, -1) : -1;
  return Value::string(runtime, replace_text(runtime, text, old, with, count));
}

Value safe(Runtime& runtime, const Args& args) {
  const Params params(runtime, "safe", args, {"value"}, 1);
  return Value::string(runtime, to_str(runtime, params[0]), true);
}

Value escape(Runtime& runtime, const Args& args) {
  const Params params(runtime, "escape", args, {"s"}, 1);
  return Value::string(runtime, escape_for_markup(runtime, params[0]), true);
}

Value force_escape(Runtime& runtime, const Args& args) {
  const Params params(runtime, "forceescape", args, {"value"}, 1);
  return Value::string(runtime, escape_html(runtime, to_str(runtime, params[0])), true);
}

Value indent(Runtime& runtime, const Args& args) {
  const Params params(runtime, "indent", args, {"s", "width", "first", "blank"}, 1);
  if (!params[0].is_string()) runtime.fail("indent expects a string, not ", type_name(params[0]));
  Text indention(runtime);
  if (params.has(1) && params[1].is_string())
    indention.append(params[1].text());
  else
    indention.append_repeated(params.integer(1, 4), " ");
  Pieces lines(runtime);
  const std::string& text = params[0].text();
  split_lines(runtime, text, false, lines);
  // The filter appends a line end before it splits, so text that ends with one gains an empty line.
  size_t before_end = text.size();
  if (text.empty() ||
      (previous_code_point(text, before_end), is_line_break(next_code_point(text, before_end))))
    lines.push({});
  const bool blank = params.flag(3, false);
  Text out(runtime);
  if (params.flag(2, false)) out.append(indention.view());
  bool first_line = true;
  for (const std::string_view line : lines.values()) {
    if (!first_line) {
      out.append("\n");
      if (blank || !line.empty()) out.append(indention.view());
    }
    first_line = false;
    out.append(line);
  }
  return like(runtime, params[0].as_string(), out.take());
}

Value center(Runtime& runtime, const Args& args) {
  const Params params(runtime, "center", args, {"value", "width"}, 1);
  const Value text = soft_str(runtime, params[0]);
  return like(runtime, text.as_string(),
              center_text(runtime, text.as_string(), params.integer(1, 80), " "));
}

Value truncate(Runtime& runtime, const Args& args) {
  const Params params(runtime, "truncate", args, {"s", "length", "killwords", "end", "leeway"}, 1);
  if (!params[0].is_string()) runtime.fail("truncate expects a string, not ", type_name(params[0]));
  const StringObject& text = params[0].as_string();
  const std::string end = params.has(3) ? params.string(3) : "...";
  const int64_t size = params.integer(1, 255), leeway = params.given(4) ? params.integer(4, 5) : 5;
  const int64_t kept = size - count_code_points(end);
  if (kept < 0) runtime.fail("truncate: the length must be at least that of the end");
  if (leeway < 0) runtime.fail("truncate: the leeway must not be negative");
  if (text.length <= size + leeway) return params[0];
  std::string_view result = std::string_view(text.text).substr(0, byte_offset(text.text, kept));
  if (!params.flag(2, false)) result = result.substr(0, std::min(result.rfind(' '), result.size()));
  return Value::string(runtime, std::string(result) + end);
}

Value word_count(Runtime& runtime, const Args& args) {
  const Params params(runtime, "wordcount", args, {"s"}, 1);
  const Value text = soft_str(runtime, params[0]);
  runtime.step(text.as_string().length >> 2);
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.text().size();) {
    const char32_t c = next_code_point(text.text(), at);
    const bool is_word = is_alnum(c) || c == '_';
    count += is_word && !in_word ? 1 : 0;
    in_word = is_word;
  }
  return Value::integer(count);
}

Value to_int(Runtime& runtime, const Args& args) {
  const Params params(runtime, "int", args, {"value", "default", "base"}, 1);
  const Value otherwise = params.has(1) ? params[1] : Value::integer(0);
  const Value& value = params[0];
  Int result = 0;
  double real = 0;
  if (value.is_undefined()) fail_undefined(runtime, value);
  if (value.is_integral()) return Value::integer(value.as_int());
  if (value.is(Kind::kFloat))
    return float_to_int(value.as_float(), result) ? Value::integer(result) : otherwise;
  if (!value.is_string()) return otherwise;
  const int64_t base = params.integer(2, 10);
  const bool base_ok = base == 0 || (base >= 2 && base <= 36);
  if (base_ok && parse_int(value.text(), static_cast<int>(base), result))
    return Value::integer(result);
  if (parse_float(value.text(), real) && float_to_int(real, result)) return Value::integer(result);
  return otherwise;
}

Value to_float(Runtime& runtime, const Args& args) {
  const Params params(runtime, "float", args, {"value", "default"}, 1);
  const Value& value = params[0];
  double result = 0;
  if (value.is_undefined()) fail_undefined(runtime, value);
  if (value.is_number()) return Value::real(value.to_float());
  if (value.is_string() && parse_float(value.text(), result)) return Value::real(result);
  return params.has(1) ? params[1] : Value::real(0);
}

Value absolute(Runtime& runtime, const Args& args) {
  const Params params(runtime, "abs", args, {"x"}, 1);
  const Value& value = params[0];
  if (value.is_integral())
    return Value::integer(value.as_int() < 0 ? -value.as_int() : value.as_int());
  if (value.is(Kind::kFloat)) return Value::real(std::abs(value.as_float()));
  if (value.is_undefined()) fail_undefined(runtime, value);
  runtime.fail("bad operand type for abs(): '", type_name(value), "'");
}

// Python's round(value, digits): to the nearest decimal, halves (of the exact binary value) to
// even. printf rounds like this, also to significant digits, of which negative `digits` leave
// fewer.
double round_decimal(Runtime& runtime, double value, int64_t digits) {
  if (!std::isfinite(value) || value == 0 || digits > 323) return value;
  if (digits < -310) return std::copysign(0.0, value);
  char buffer[700];
  if (digits >= 0) {
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(digits), value);
  } else {
    std::snprintf(buffer, sizeof buffer, "%.20e", value);
    const int exponent = std::atoi(std::strchr(buffer, 'e') + 1);
    const int precision = exponent + static_cast<int>(digits);
    if (precision < -1) return std::copysign(0.0, value);
    if (precision == -1) {  // one digit in front of what is kept: above half of it or not
      const double half = std::strtod(("5e" + std::to_string(-digits - 1)).c_str(), nullptr);
      const double whole = std::strtod(("1e" + std::to_string(-digits)).c_str(), nullptr);
      return std::copysign(std::abs(value) > half ? whole : 0.0, value);
    }
    std::snprintf(buffer, sizeof buffer, "%.*e", precision, value);
  }
  const double result = std::strtod(buffer, nullptr);
  if (!std::isfinite(result)) runtime.fail("rounded value too large to represent");
  return result;
}

Value round_value(Runtime& runtime, const Args& args) {
  const Params params(runtime, "round", args, {"value", "precision", "method"}, 1);
  const Value& value = params[0];
  const std::string method = params.has(2) ? params.string(2) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    runtime.fail("method must be common, ceil or floor");
  if (value.is_undefined()) fail_undefined(runtime, value);
  if (!value.is_number()) runtime.fail("type ", type_name(value), " cannot be rounded");
  const int64_t digits = params.integer(1, 0);
  if (method == "common") {
    if (!value.is_integral()) return Value::real(round_decimal(runtime, value.as_float(), digits));
    if (digits >= 0) return Value::integer(value.as_int());
    if (digits < -36) return Value::integer(0);
    const Int power =
        binary(runtime, BinaryOp::kPow, Value::integer(10), Value::integer(-digits)).as_int();
    const Int rest =
        binary(runtime, BinaryOp::kMod, Value::integer(value.as_int()), Value::integer(power))
            .as_int();
    const Int floor = value.as_int() - rest;
    const bool up = rest * 2 > power || (rest * 2 == power && floor / power % 2 != 0);
    return Value::integer(floor + (up ? power : 0));
  }
  const Value power = binary(runtime, BinaryOp::kPow, Value::integer(10), Value::integer(digits));
  const Value scaled = binary(runtime, BinaryOp::kMul, value, power);
  Int whole = 0;
  if (scaled.is_integral())
    whole = scaled.as_int();
  else if (!float_to_int(
               method == "ceil" ? std::ceil(scaled.as_float()) : std::floor(scaled.as_float()),
               whole))
    runtime.fail("cannot convert ", float_repr(scaled.as_float()), " to integer");
  return binary(runtime, BinaryOp::kDiv, Value::integer(whole), power);
}

std::string url_quote(Runtime& runtime, const Value& value, bool for_query) {
  Text out(runtime);
  for (const char byte : to_str(runtime, value)) {
    const auto c = static_cast<unsigned char>(byte);
    const bool plain = (c < 0x80 && std::isalnum(c)) || c == '_' || c == '.' || c == '-' ||
                       c == '~' || (c == '/' && !for_query);
    if (plain) {
      out.append(std::string_view(&byte, 1));
    } else if (c == ' ' && for_query) {
      out.append("+");
    } else {
      const char escaped[] = {'%', "0123456789ABCDEF"[c >> 4], "0123456789ABCDEF"[c & 15]};
      out.append(std::string_view(escaped, 3));
    }
  }
  return out.take();
}

Value url_encode(Runtime& runtime, const Args& args) {
  const Params params(runtime, "urlencode", args, {"value"}, 1);
  const Value& value = params[0];
  if (value.is_string() || !is_iterable(value))
    return Value::string(runtime, url_quote(runtime, value, false));
  Text out(runtime);
  const auto add = [&](const Value& key, const Value& item) {
    if (out.size() > 0) out.append("&");
    out.append(url_quote(runtime, key, true));
    out.append("=");
    out.append(url_quote(runtime, item, true));
  };
  if (value.is(Kind::kDict)) {
    for (const auto& [key, item] : value.dict().entries) add(key, item);
  } else {
    for (const Value& pair : collect(runtime, value)) {
      const std::vector<Value> parts = collect(runtime, pair);
      if (parts.size() != 2) runtime.fail("urlencode expects pairs");
      add(parts[0], parts[1]);
    }
  }
  return Value::string(runtime, out.take());
}

Value format(Runtime& runtime, const Args& args) {
  if (args.positional.size() > 1 && !args.named.empty())
    runtime.fail("format: can't handle positional and keyword arguments at the same time");
  const Value text = soft_str(runtime, args.positional[0]);
  Value values;
  if (args.named.empty()) {
    values = Value::tuple(runtime, {args.positional.begin() + 1, args.positional.end()});
  } else {
    std::vector<DictObject::Entry> entries;
    for (const auto& [name, value] : args.named)
      entries.emplace_back(Value::string(runtime, name), value);
    values = make_dict(runtime, std::move(entries));
  }
  return like(runtime, text.as_string(), format_percent(runtime, text.as_string(), values));
}

Value file_size(Runtime& runtime, const Args& args) {
  const Params params(runtime, "filesizeformat", args, {"value", "binary"}, 1);
  double bytes = 0;
  if (params[0].is_number())
    bytes = params[0].to_float();
  else if (!params[0].is_string() || !parse_float(params[0].text(), bytes))
    runtime.fail("filesizeformat expects a number, not ", type_name(params[0]));
  const bool binary_units = params.flag(1, false);
  const double base = binary_units ? 1024 : 1000;
  if (bytes == 1) return Value::string(runtime, "1 Byte");
  if (bytes < base)
    return Value::string(runtime, to_string(static_cast<Int>(std::max(bytes, -1e18))) + " Bytes");
  const std::string letters = binary_units ? "KMGTPEZY" : "kMGTPEZY";
  double unit = base;
  size_t i = 0;
  while (i + 1 < letters.size() && bytes >= unit * base) {
    unit *= base;
    ++i;
  }
  char buffer[400];
  std::snprintf(buffer, sizeof buffer, "%.1f %c%s", bytes / unit, letters[i],
                binary_units ? "iB" : "B");
  return Value::string(runtime, buffer);
}

Value attribute(Runtime& runtime, const Args& args) {
  const Params params(runtime, "attr", args, {"obj", "name"}, 2);
  if (params[0].is_undefined()) fail_undefined(runtime, params[0]);
  Value result;
  if (find_attribute(runtime, params[0], params.string(1), result)) return result;
  return Value::undefined(runtime, std::string("'") + type_name(params[0]) +
                                       " object' has no attribute '" + params.string(1) + "'");
}

Value xml_attributes(Runtime& runtime, const Args& args) {
  const Params params(runtime, "xmlattr", args, {"d", "autospace"}, 1);
  if (!params[0].is(Kind::kDict))
    runtime.fail("xmlattr expects a mapping, not ", type_name(params[0]));
  Text out(runtime);
  const bool space = params.flag(1, true);
  for (const auto& [key, value] : params[0].dict().entries) {
    if (value.is(Kind::kNone) || value.is_undefined()) continue;
    const std::string name = to_str(runtime, key);
    if (name.find_first_of(" \t\n\v\f\r/>=") != std::string::npos)
      runtime.fail("invalid character in attribute name: ", string_repr(name));
    if (out.size() > 0 || space) out.append(" ");
    out.append(escape_for_markup(runtime, key));
    out.append("=\"");
    out.append(escape_for_markup(runtime, value));
    out.append("\"");
  }
  return Value::string(runtime, out.take());
}

}  // namespace

Filter find_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, Filter> kFilters = {
      {"abs", absolute},
      {"attr", attribute},
      {"batch", filters::batch},
      {"capitalize", converted<to_capitalized>},
      {"center", center},
      {"count", length},
      {"d", default_value},
      {"default", default_value},
      {"dictsort", filters::dictsort},
      {"e", escape},
      {"escape", escape},
      {"filesizeformat", file_size},
      {"first", filters::first},
      {"float", to_float},
      {"forceescape", force_escape},
      {"format", format},
      {"groupby", filters::groupby},
      {"indent", indent},
      {"int", to_int},
      {"items", filters::items},
      {"join", filters::join},
      {"last", filters::last},
      {"length", length},
      {"list", filters::list},
      {"lower", converted<to_lower>},
      {"map", filters::map},
      {"max", filters::max},
      {"min", filters::min},
      {"pprint", filters::pprint},
      {"random", filters::random},
      {"reject", filters::reject},
      {"rejectattr", filters::rejectattr},
      {"replace", replace},
      {"reverse", filters::reverse},
      {"round", round_value},
      {"safe", safe},
      {"select", filters::select},
      {"selectattr", filters::selectattr},
      {"slice", filters::slice},
      {"sort", filters::sort},
      {"string", string},
      {"striptags", filters::striptags},
      {"sum", filters::sum},
      {"title", converted<title>},
      {"tojson", to_json},
      {"trim", trim},
      {"truncate", truncate},
      {"unique", filters::unique},
      {"upper", converted<to_upper>},
      {"urlencode", url_encode},
      {"urlize", filters::urlize},
      {"wordcount", word_count},
      {"wordwrap", filters::wordwrap},
      {"xmlattr", xml_attributes},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace signround::jinja
