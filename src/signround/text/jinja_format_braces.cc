// "{:d}".format(x)
#include <algorithm>

#include "signround/text/jinja_format.h"
#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, bool escapes, const Args& args)
      : runtime_(runtime), escapes_(escapes), args_(args) {}

  std::string format(std::string_view text, int depth) {
    if (depth > 2) runtime_.fail("Max string recursion exceeded");
    Text out(runtime_);
    size_t at = 0;
    while (at < text.size()) {
      const char c = text[at];
      if (c != '{' && c != '}') {
        const size_t end = std::min(text.find_first_of("{}", at), text.size());
        out.append(text.substr(at, end - at));
        at = end;
      } else if (at + 1 < text.size() && text[at + 1] == c) {
        out.append(text.substr(at, 1));
        at += 2;
      } else if (c == '}') {
        runtime_.fail("Single '}' encountered in format string");
      } else {
        out.append(field(text, at, depth));
      }
    }
    return out.take();
  }

 private:
  // The replacement field at `at`, which moves behind it.
  std::string field(std::string_view text, size_t& at, int depth) {
    size_t end = at + 1;
    for (int open = 1; end < text.size(); ++end) {
      open += text[end] == '{' ? 1 : text[end] == '}' ? -1 : 0;
      if (open == 0) break;
    }
    if (end >= text.size()) runtime_.fail("expected '}' before end of string");
    std::string_view inside = text.substr(at + 1, end - at - 1);
    at = end + 1;
    // The name reaches up to the first ':' or '!' outside of brackets.
    size_t name_end = 0;
    bool in_brackets = false;
    for (; name_end < inside.size(); ++name_end) {
      const char c = inside[name_end];
      if (c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      if (!in_brackets && (c == ':' || c == '!')) break;
    }
    const Value value = lookup(inside.substr(0, name_end));
    inside.remove_prefix(name_end);
    char conversion = '\0';
    if (!inside.empty() && inside[0] == '!') {
      if (inside.size() < 2 || (inside.size() > 2 && inside[2] != ':'))
        runtime_.fail("expected ':' after conversion specifier");
      conversion = inside[1];
      inside.remove_prefix(2);
    }
    const std::string spec = inside.empty() ? std::string() : format(inside.substr(1), depth + 1);
    return convert(value, conversion, spec);
  }

  Value lookup(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, first_end));
    size_t at = first_end;
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        value = get_attribute(runtime_, value, std::string(name.substr(at + 1, end - at - 1)));
        at = end;
      } else {
        const size_t end = name.find(']', at);
        if (name[at] != '[' || end == std::string_view::npos)
          runtime_.fail("malformed field name in format string");
        const std::string_view key = name.substr(at + 1, end - at - 1);
        Int index = 0;
        const bool numeric =
            !key.empty() && key.find_first_not_of("0123456789") == std::string_view::npos;
        value = get_item(runtime_, value,
                         numeric && parse_int(key, 10, index)
                             ? Value::integer(index)
                             : Value::string(runtime_, std::string(key)));
        at = end + 1;
      }
    }
    return value;
  }

  Value argument(std::string_view name) {
    if (name.empty() || name.find_first_not_of("0123456789") == std::string_view::npos) {
      const bool automatic = name.empty();
      if (numbering_ != '\0' && numbering_ != (automatic ? 'a' : 'm'))
        runtime_.fail("cannot switch between automatic and manual field numbering");
      numbering_ = automatic ? 'a' : 'm';
      Int index = 0;
      if (automatic)
        index = next_++;
      else if (!parse_int(name, 10, index))
        runtime_.fail("Too many decimal digits in format string");
      if (index >= static_cast<Int>(args_.positional.size()))
        runtime_.fail("Replacement index ", to_string(index),
                      " out of range for positional args tuple");
      return args_.positional[static_cast<size_t>(index)];
    }
    for (const auto& [key, value] : args_.named)
      if (key == name) return value;
    runtime_.fail("format string names the argument '", name, "', which is not given");
  }

  std::string convert(Value value, char conversion, const std::string& spec) {
    if (conversion == 's') {
      value = Value::string(runtime_, to_str(runtime_, value));
    } else if (conversion == 'r' || conversion == 'a') {
      Text text(runtime_);
      append_repr(text, runtime_, value);
      value = Value::string(runtime_, text.take());
    } else if (conversion != '\0') {
      runtime_.fail("unknown conversion specifier '", conversion, "'");
    }
    if (escapes_ && value.is_string() && value.as_string().markup) return value.text();
    const std::string text = spec.empty() ? to_str(runtime_, value) : apply(value, parse(spec));
    return escapes_ ? escape_html(runtime_, text) : text;
  }

  FormatSpec parse(std::string_view text) {
    FormatSpec spec;
    size_t at = 0;
    size_t behind_fill = 0;
    next_code_point(text, behind_fill);
    const auto is_align = [&](size_t i) {
      return i < text.size() && std::string_view("<>=^").find(text[i]) != std::string_view::npos;
    };
    if (is_align(behind_fill)) {
      spec.fill = std::string(text.substr(0, behind_fill));
      spec.align = text[behind_fill];
      at = behind_fill + 1;
    } else if (is_align(0)) {
      spec.align = text[0];
      at = 1;
    }
    const auto peek = [&] { return at < text.size() ? text[at] : '\0'; };
    if (peek() == '+' || peek() == '-' || peek() == ' ') spec.sign = text[at++];
    if (peek() == '#') {
      spec.alternate = true;
      ++at;
    }
    if (peek() == '0') {
      if (spec.align == '\0') {
        spec.align = '=';
        spec.fill.assign(1, '0');
      }
      ++at;
    }
    const auto number = [&] {
      int64_t value = 0;
      for (; peek() >= '0' && peek() <= '9'; ++at)
        value = std::min<int64_t>(value * 10 + (peek() - '0'), 1 << 30);
      return value;
    };
    spec.width = number();
    if (peek() == ',' || peek() == '_') spec.grouping = text[at++];
    if (peek() == '.') {
      ++at;
      if (peek() < '0' || peek() > '9') runtime_.fail("Format specifier missing precision");
      spec.precision = number();
    }
    if (at < text.size()) spec.type = text[at++];
    if (at < text.size()) runtime_.fail("Invalid format specifier '", text, "'");
    return spec;
  }

  std::string apply(const Value& value, FormatSpec spec) {
    const auto bad_type = [&] {
      runtime_.fail("unknown format code '", spec.type, "' for object of type '", type_name(value),
                    "'");
    };
    const std::string_view integer_types = "bcdnoxX", float_types = "eEfFgG%n";
    const auto is_in = [&](std::string_view types) {
      return types.find(spec.type) != std::string_view::npos;
    };
    if (value.is_string()) {
      if (spec.type != '\0' && spec.type != 's') bad_type();
      if (spec.align == '=' && spec.fill != "0")
        runtime_.fail("'=' alignment not allowed in string format specifier");
      if (spec.align == '=') spec.align = '<';
      return pad_text(runtime_, spec, value.text());
    }
    if (value.is_integral() && (spec.type == '\0' || is_in(integer_types))) {
      if (spec.precision >= 0) runtime_.fail("Precision not allowed in integer format specifier");
      if (spec.type == 'c') bad_type();
      return format_integer(runtime_, spec, value.as_int());
    }
    if (value.is_number()) {
      if (spec.type != '\0' && !is_in(float_types)) bad_type();
      return format_float(runtime_, spec, value.to_float());
    }
    runtime_.fail("unsupported format string passed to ", type_name(value), ".__format__");
  }

  Runtime& runtime_;
  const bool escapes_;
  const Args& args_;
  int64_t next_ = 0;
  char numbering_ = '\0';
};

}  // namespace

std::string format_braces(Runtime& runtime, const StringObject& format, const Args& args) {
  return BraceFormatter(runtime, format.markup, args).format(format.text, 0);
}

}  // namespace signround::jinja
