// Python's str() and repr() of values.
#include <charconv>
#include <cmath>

#include "signround/text/jinja_macro.h"
#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

void append_hex(std::string& out, char32_t c, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
    out += "0123456789abcdef"[(c >> shift) & 15];
}

void append_joined(Text& out, Runtime& runtime, const std::vector<Value>& items, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(out, runtime, items[i], depth + 1);
  }
}

void append_dict(Text& out, Runtime& runtime, const DictObject& dict, int depth) {
  out.append("{");
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(out, runtime, dict.entries[i].first, depth + 1);
    out.append(": ");
    append_repr(out, runtime, dict.entries[i].second, depth + 1);
  }
  out.append("}");
}

void append_view(Text& out, Runtime& runtime, const Value& value, int depth) {
  const auto& view = value.as<ViewObject>();
  out.append(type_name(value));
  out.append("([");
  bool first = true;
  for (const auto& entry : view.entries()) {
    if (!first) out.append(", ");
    first = false;
    append_repr(out, runtime, view.item(runtime, entry), depth + 1);
  }
  out.append("])");
}

void append_range(Text& out, const RangeObject& range) {
  out.append("range(" + to_string(range.start) + ", " + to_string(range.stop));
  if (range.step != 1) out.append(", " + to_string(range.step));
  out.append(")");
}

}  // namespace

// The shortest digits that read back as the same value; an exponent below 1e-4 and from 1e16 on.
std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
  const bool negative = text[0] == '-';
  std::string digits;
  for (char c : text.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  std::string out = negative ? "-" : "";
  const int count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    const int magnitude = std::abs(exponent);
    if (magnitude < 10) out += '0';
    return out + std::to_string(magnitude);
  }
  if (exponent < 0)
    return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1)
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return out + digits.substr(0, static_cast<size_t>(exponent + 1)) + "." +
         digits.substr(static_cast<size_t>(exponent + 1));
}

std::string string_repr(std::string_view text) {
  const bool double_quotes =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_code_point(out, c);
    } else if (c < 0x100) {
      out += "\\x";
      append_hex(out, c, 2);
    } else if (c < 0x10000) {
      out += "\\u";
      append_hex(out, c, 4);
    } else {
      out += "\\U";
      append_hex(out, c, 8);
    }
  }
  return out + quote;
}

void append_repr(Text& out, Runtime& runtime, const Value& value, int depth) {
  runtime.step();
  // Namespaces can hold each other, so this depth is not that of the value.
  if (depth > 2 * kMaxValueDepth) runtime.fail("values nested too deep to be printed");
  switch (value.kind()) {
    case Kind::kUndefined:
      return out.append("Undefined");
    case Kind::kNone:
      return out.append("None");
    case Kind::kBool:
      return out.append(value.as_bool() ? "True" : "False");
    case Kind::kInt:
      return out.append(to_string(value.as_int()));
    case Kind::kFloat:
      return out.append(float_repr(value.as_float()));
    case Kind::kString:
      if (!value.as_string().markup) return out.append(string_repr(value.text()));
      return out.append("Markup(" + string_repr(value.text()) + ")");
    case Kind::kList:
      out.append("[");
      append_joined(out, runtime, value.items(), depth);
      return out.append("]");
    case Kind::kTuple:
      out.append("(");
      append_joined(out, runtime, value.items(), depth);
      return out.append(value.items().size() == 1 ? ",)" : ")");
    case Kind::kDict:
      return append_dict(out, runtime, value.dict(), depth);
    case Kind::kDictView:
      return append_view(out, runtime, value, depth);
    case Kind::kRange:
      return append_range(out, value.as<RangeObject>());
    case Kind::kIterator:
      return out.append(std::string("<") + value.as<IteratorObject>().name + ">");
    case Kind::kNamespace:
      out.append("<Namespace ");
      append_dict(out, runtime, value.as<NamespaceObject>().attributes, depth);
      return out.append(">");
    case Kind::kMacro:
      return out.append(describe(value.as<MacroObject>()));
    case Kind::kLoop:
      return out.append(describe(value.as<LoopObject>()));
    case Kind::kCycler:
      return out.append("<Cycler>");
    case Kind::kJoiner:
      return out.append("<Joiner>");
    case Kind::kFunction:
      return out.append("<function " + value.as<FunctionObject>().name + ">");
  }
}

void append_str(Text& out, Runtime& runtime, const Value& value) {
  if (value.is_string()) return out.append(value.text());
  if (value.is_undefined()) return;
  append_repr(out, runtime, value);
}

std::string to_str(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value.text();
  Text out(runtime);
  append_str(out, runtime, value);
  return out.take();
}

}  // namespace signround::jinja
