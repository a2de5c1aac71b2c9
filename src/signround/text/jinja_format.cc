// Python's two ways to format strings: "%d" % x and "{:d}".format(x).
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

constexpr int64_t kMaxPrecision =
    1000;  // more digits than any double has behind the point that are not zero

// How one value is to be written, in either language.
struct Spec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '=' (between sign and digits); '\0': the type's own
  char sign = '-';
  bool alternate = false;
  char grouping = '\0';
  int64_t width = 0;
  int64_t precision = -1;
  char type = '\0';
};

std::string digits_of(Int value, int base, bool upper) {  // of a value that is not negative
  std::string out;
  do {
    const auto digit = static_cast<size_t>(value % base);
    out += (upper ? "0123456789ABCDEF" : "0123456789abcdef")[digit];
    value /= base;
  } while (value != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

void group_thousands(std::string& digits, char separator, size_t every) {
  size_t end = digits.find_first_not_of("0123456789abcdefABCDEF");
  if (end == std::string::npos) end = digits.size();
  for (size_t at = end; at > every; at -= every) digits.insert(at - every, 1, separator);
}

// Sign, prefix and digits padded to the width.
std::string pad_number(Runtime& runtime, const Spec& spec, const std::string& sign,
                       const std::string& digits) {
  const int64_t missing = spec.width - static_cast<int64_t>(sign.size() + digits.size());
  Text out(runtime);
  const char align = spec.align == '\0' ? '>' : spec.align;
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  if (align != '=') out.append_repeated(left, spec.fill);
  out.append(sign);
  if (align == '=') out.append_repeated(missing, spec.fill);
  out.append(digits);
  if (align == '<' || align == '^') out.append_repeated(missing - left, spec.fill);
  return out.take();
}

std::string pad_text(Runtime& runtime, const Spec& spec, std::string_view text) {
  if (spec.precision >= 0) text = text.substr(0, byte_offset(text, spec.precision));
  const int64_t missing = std::max<int64_t>(0, spec.width - count_code_points(text));
  const char align = spec.align == '\0' ? '<' : spec.align;
  const int64_t left = align == '>' ? missing : align == '^' ? missing / 2 : 0;
  Text out(runtime);
  out.append_repeated(left, spec.fill);
  out.append(text);
  out.append_repeated(missing - left, spec.fill);
  return out.take();
}

std::string sign_text(const Spec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

std::string format_integer(Runtime& runtime, const Spec& spec, Int value) {
  const bool negative = value < 0;
  std::string digits, prefix;
  switch (spec.type) {
    case 'x':
    case 'X':
      digits = digits_of(negative ? -value : value, 16, spec.type == 'X');
      prefix = spec.type == 'X' ? "0X" : "0x";
      break;
    case 'o':
      digits = digits_of(negative ? -value : value, 8, false);
      prefix = "0o";
      break;
    case 'b':
      digits = digits_of(negative ? -value : value, 2, false);
      prefix = "0b";
      break;
    default:
      digits = digits_of(negative ? -value : value, 10, false);
  }
  if (spec.precision > kMaxPrecision)
    runtime.fail("a precision of more than ", kMaxPrecision, " digits");
  const int64_t zeros = spec.precision - static_cast<int64_t>(digits.size());
  if (zeros > 0)
    digits.insert(0, static_cast<size_t>(zeros), '0');  // only the % operator has this for integers
  if (spec.grouping != '\0') group_thousands(digits, spec.grouping, prefix.empty() ? 3 : 4);
  return pad_number(runtime, spec, sign_text(spec, negative) + (spec.alternate ? prefix : ""),
                    digits);
}

// The digits of |value| for a type of e, f, g, or % (and upper case).
std::string float_digits(const Spec& spec, double value) {
  const bool upper = spec.type == 'E' || spec.type == 'F' || spec.type == 'G';
  if (!std::isfinite(value)) {
    const std::string text = std::isnan(value) ? "nan" : "inf";
    const std::string out = upper ? to_upper(text) : text;
    return spec.type == '%' ? out + "%" : out;
  }
  if (spec.type == '%') value *= 100;
  const char type = spec.type == '%' ? 'f' : spec.type;
  const auto precision = static_cast<int>(
      std::clamp<int64_t>(spec.precision < 0 ? 6 : spec.precision, 0, kMaxPrecision));
  const std::string pattern = std::string("%") + (spec.alternate ? "#" : "") + ".*" + type;
  char buffer[1500];
  const int size =
      std::snprintf(buffer, sizeof buffer, pattern.c_str(), precision, std::abs(value));
  std::string out(buffer,
                  static_cast<size_t>(std::clamp(size, 0, static_cast<int>(sizeof buffer) - 1)));
  return spec.type == '%' ? out + "%" : out;
}

std::string format_float(Runtime& runtime, Spec spec, double value) {
  if (spec.precision > kMaxPrecision)
    runtime.fail("a precision of more than ", kMaxPrecision, " digits");
  const bool negative = std::signbit(value) && !std::isnan(value);
  std::string digits;
  if (spec.type == '\0' && spec.precision < 0) {
    digits = float_repr(std::abs(value));
  } else if (spec.type == '\0') {
    // As 'g', but with a digit behind the point where the exponent leaves room for it.
    spec.type = 'g';
    digits = float_digits(spec, value);
    if (digits.find_first_of(".en") == std::string::npos) {
      if (static_cast<int64_t>(digits.size()) < std::max<int64_t>(1, spec.precision)) {
        digits += ".0";
      } else {
        spec.type = 'e';
        spec.precision = std::max<int64_t>(0, spec.precision - 1);
        digits = float_digits(spec, value);
      }
    }
  } else {
    if (spec.type == 'n') spec.type = 'g';
    digits = float_digits(spec, value);
  }
  if (spec.grouping != '\0') group_thousands(digits, spec.grouping, 3);
  return pad_number(runtime, spec, sign_text(spec, negative), digits);
}

// ---- The % operator ----

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const StringObject& format, const Value& args)
      : runtime_(runtime),
        format_(format.text),
        escapes_(format.markup),
        args_(args),
        out_(runtime) {}

  std::string run() {
    while (at_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', at_), format_.size());
      out_.append(std::string_view(format_).substr(at_, percent - at_));
      at_ = percent + 1;
      if (percent < format_.size()) directive();
    }
    if (!mapped_ && next_ < argument_count() && !args_.is(Kind::kDict) && !args_.is(Kind::kList))
      runtime_.fail("not all arguments converted during string formatting");
    return out_.take();
  }

 private:
  size_t argument_count() const { return args_.is(Kind::kTuple) ? args_.items().size() : 1; }

  Value next_argument() {
    if (next_ >= argument_count()) runtime_.fail("not enough arguments for format string");
    return args_.is(Kind::kTuple) ? args_.items()[next_++] : (++next_, args_);
  }

  char peek() const { return at_ < format_.size() ? format_[at_] : '\0'; }

  int64_t number() {
    if (peek() == '*') {
      ++at_;
      const Value value = next_argument();
      if (!value.is_integral()) runtime_.fail("* wants int");
      return static_cast<int64_t>(std::clamp<Int>(value.as_int(), -(1 << 30), 1 << 30));
    }
    int64_t value = 0;
    for (; peek() >= '0' && peek() <= '9'; ++at_)
      value = std::min<int64_t>(value * 10 + (peek() - '0'), 1 << 30);
    return value;
  }

  Value mapped_argument() {
    size_t end = at_ + 1;
    for (int open = 1; end < format_.size(); ++end) {
      open += format_[end] == '(' ? 1 : format_[end] == ')' ? -1 : 0;
      if (open == 0) break;
    }
    if (end >= format_.size()) runtime_.fail("incomplete format key");
    if (!args_.is(Kind::kDict)) runtime_.fail("format requires a mapping");
    const std::string key = format_.substr(at_ + 1, end - at_ - 1);
    const Value* value = args_.dict().find(key);
    if (value == nullptr) runtime_.fail("the mapping has no key '", key, "'");
    at_ = end + 1;
    mapped_ = true;
    return *value;
  }

  void directive() {
    Spec spec;
    Value value;
    const bool named = peek() == '(';
    if (named) value = mapped_argument();
    bool zero = false, left = false;
    for (bool more = true; more;) {
      switch (peek()) {
        case '-':
          left = true;
          break;
        case '+':
          spec.sign = '+';
          break;
        case ' ':
          spec.sign = spec.sign == '+' ? '+' : ' ';
          break;
        case '#':
          spec.alternate = true;
          break;
        case '0':
          zero = true;
          break;
        default:
          more = false;
      }
      if (more) ++at_;
    }
    spec.width = number();
    if (spec.width < 0) {
      left = true;
      spec.width = -spec.width;
    }
    if (peek() == '.') {
      ++at_;
      spec.precision = std::max<int64_t>(0, number());
    }
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++at_;
    const char type = peek();
    if (at_++ >= format_.size()) runtime_.fail("incomplete format");
    if (type == '%') return out_.append("%");
    if (!named) value = next_argument();
    spec.align = left ? '<' : '>';
    if (zero && !left && type != 's' && type != 'r' && type != 'a' && type != 'c') {
      spec.align = '=';
      spec.fill = "0";
    }
    write(spec, type, value);
  }

  void write(Spec& spec, char type, const Value& value) {
    spec.type = type;
    switch (type) {
      case 's':
        return out_.append(
            pad_text(runtime_, spec,
                     escapes_ ? escape_for_markup(runtime_, value) : to_str(runtime_, value)));
      case 'r':
      case 'a': {
        Text text(runtime_);
        append_repr(text, runtime_, value);
        return out_.append(
            pad_text(runtime_, spec, escapes_ ? escape_html(runtime_, text.view()) : text.view()));
      }
      case 'c':
        return out_.append(pad_text(runtime_, spec, character(value)));
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': {
        Int whole = 0;
        const bool any_number = type == 'd' || type == 'i' || type == 'u';
        if (value.is_integral())
          whole = value.as_int();
        else if (!any_number || !value.is(Kind::kFloat) || !float_to_int(value.as_float(), whole))
          runtime_.fail("%", type, " format: a number is required, not ", type_name(value));
        return out_.append(format_integer(runtime_, spec, whole));
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (value.is_undefined()) fail_undefined(runtime_, value);
        if (!value.is_number()) runtime_.fail("must be real number, not ", type_name(value));
        return out_.append(format_float(runtime_, spec, value.to_float()));
      default:
        runtime_.fail("unsupported format character '", type, "'");
    }
  }

  std::string character(const Value& value) {
    if (value.is_string() && value.as_string().length == 1) return value.text();
    if (!value.is_integral() || value.as_int() < 0 || value.as_int() > 0x10FFFF ||
        (value.as_int() >= 0xD800 && value.as_int() < 0xE000))
      runtime_.fail("%c requires a character");
    std::string out;
    append_code_point(out, static_cast<char32_t>(value.as_int()));
    return out;
  }

  Runtime& runtime_;
  const std::string& format_;
  const bool escapes_;
  const Value& args_;
  Text out_;
  size_t at_ = 0;
  size_t next_ = 0;
  bool mapped_ = false;
};

// ---- str.format ----

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

  Spec parse(std::string_view text) {
    Spec spec;
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
        spec.fill = "0";
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

  std::string apply(const Value& value, Spec spec) {
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

std::string format_percent(Runtime& runtime, const StringObject& format, const Value& args) {
  return PercentFormatter(runtime, format, args).run();
}

std::string format_braces(Runtime& runtime, const StringObject& format, const Args& args) {
  return BraceFormatter(runtime, format.markup, args).format(format.text, 0);
}

std::string escape_html(Runtime& runtime, std::string_view text) {
  Text out(runtime);
  size_t begin = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const std::string_view with = text[at] == '&'    ? "&amp;"
                                  : text[at] == '<'  ? "&lt;"
                                  : text[at] == '>'  ? "&gt;"
                                  : text[at] == '\'' ? "&#39;"
                                  : text[at] == '"'  ? "&#34;"
                                                     : "";
    if (with.empty()) continue;
    out.append(text.substr(begin, at - begin));
    out.append(with);
    begin = at + 1;
  }
  out.append(text.substr(begin));
  return out.take();
}

std::string escape_for_markup(Runtime& runtime, const Value& value) {
  if (value.is_string() && value.as_string().markup) return value.text();
  return escape_html(runtime, to_str(runtime, value));
}

}  // namespace signround::jinja
