#include "signround/text/jinja_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

constexpr int64_t kMaxPrecision =
    1000;  // more digits than any double has behind the point that are not zero

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
std::string pad_number(Runtime& runtime, const FormatSpec& spec, const std::string& sign,
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

std::string sign_text(const FormatSpec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

// The digits of |value| for a type of e, f, g, or % (and upper case).
std::string float_digits(const FormatSpec& spec, double value) {
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

}  // namespace

std::string pad_text(Runtime& runtime, const FormatSpec& spec, std::string_view text) {
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

std::string format_integer(Runtime& runtime, const FormatSpec& spec, Int value) {
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

std::string format_float(Runtime& runtime, FormatSpec spec, double value) {
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
