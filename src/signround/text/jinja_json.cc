// Python's json.dumps with the arguments that transformers' tojson passes on.
#include "signround/text/jinja_json.h"

#include <algorithm>
#include <cmath>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

struct Style {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool indented = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

void append_unit(std::string& out, char32_t unit) {
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += "0123456789abcdef"[(unit >> shift) & 15];
}

void append_string(Text& out, std::string_view text, bool ensure_ascii) {
  std::string piece = "\"";
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_code_point(text, at);
    switch (c) {
      case '"':
        piece += "\\\"";
        break;
      case '\\':
        piece += "\\\\";
        break;
      case '\n':
        piece += "\\n";
        break;
      case '\r':
        piece += "\\r";
        break;
      case '\t':
        piece += "\\t";
        break;
      case '\b':
        piece += "\\b";
        break;
      case '\f':
        piece += "\\f";
        break;
      default:
        if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
          append_unit(piece, c);
        } else if (ensure_ascii && c >= 0x10000) {
          append_unit(piece, 0xD800 + ((c - 0x10000) >> 10));
          append_unit(piece, 0xDC00 + ((c - 0x10000) & 0x3FF));
        } else {
          append_code_point(piece, c);
        }
    }
    if (piece.size() >= 4096) {
      out.append(piece);
      piece.clear();
    }
  }
  piece += '"';
  out.append(piece);
}

std::string float_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return float_repr(value);
}

class Writer {
 public:
  Writer(Runtime& runtime, const Style& style, Text& out)
      : runtime_(runtime), style_(style), out_(out) {}

  void write(const Value& value, int level) {
    runtime_.step();
    switch (value.kind()) {
      case Kind::kNone:
        return out_.append("null");
      case Kind::kBool:
        return out_.append(value.as_bool() ? "true" : "false");
      case Kind::kInt:
        return out_.append(to_string(value.as_int()));
      case Kind::kFloat:
        return out_.append(float_text(value.as_float()));
      case Kind::kString:
        return append_string(out_, value.text(), style_.ensure_ascii);
      case Kind::kList:
      case Kind::kTuple:
        return write_list(value.items(), level);
      case Kind::kDict:
        return write_dict(value.dict(), level);
      default:
        runtime_.fail("Object of type ", type_name(value), " is not JSON serializable");
    }
  }

 private:
  void new_line(int level) {
    if (!style_.indented) return;
    out_.append("\n");
    out_.append_repeated(level, style_.indent);
  }

  void write_list(const std::vector<Value>& items, int level) {
    if (items.empty()) return out_.append("[]");
    out_.append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(level + 1);
      write(items[i], level + 1);
    }
    new_line(level);
    out_.append("]");
  }

  std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return key.text();
      case Kind::kNone:
        return "null";
      case Kind::kBool:
        return key.as_bool() ? "true" : "false";
      case Kind::kInt:
        return to_string(key.as_int());
      case Kind::kFloat:
        return float_text(key.as_float());
      default:
        runtime_.fail("keys must be str, int, float, bool or None, not ", type_name(key));
    }
  }

  void write_dict(const DictObject& dict, int level) {
    if (dict.entries.empty()) return out_.append("{}");
    std::vector<const DictObject::Entry*> order;
    for (const auto& entry : dict.entries) order.push_back(&entry);
    if (style_.sort_keys)
      std::stable_sort(order.begin(), order.end(), [this](const auto* a, const auto* b) {
        return compare(runtime_, a->first, b->first, "<") == -1;
      });
    out_.append("{");
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(level + 1);
      append_string(out_, key_text(order[i]->first), style_.ensure_ascii);
      out_.append(style_.key_separator);
      write(order[i]->second, level + 1);
    }
    new_line(level);
    out_.append("}");
  }

  Runtime& runtime_;
  const Style& style_;
  Text& out_;
};

}  // namespace

Value to_json(Runtime& runtime, const Args& args) {
  const Params params(runtime, "tojson", args,
                      {"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1);
  Style style;
  style.ensure_ascii = params.flag(1, false);
  style.sort_keys = params.flag(4, false);
  if (params.given(2)) {
    style.indented = true;
    style.item_separator.resize(1);
    if (params[2].is_string()) {
      style.indent = params[2].text();
    } else {
      const int64_t width = std::max<int64_t>(0, params.integer(2, 0));
      runtime.check_string_bytes(width);
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (params.given(3)) {
    if (!params[3].is_sequence() || params[3].items().size() != 2 ||
        !params[3].items()[0].is_string() || !params[3].items()[1].is_string())
      runtime.fail("tojson: separators must be two strings");
    style.item_separator = params[3].items()[0].text();
    style.key_separator = params[3].items()[1].text();
  }
  Text out(runtime);
  Writer(runtime, style, out).write(params[0], 0);
  return Value::string(runtime, out.take());
}

namespace {

Value from_json_at(Runtime& runtime, const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxValueDepth)
    runtime.fail("the input is nested deeper than ", kMaxValueDepth, " levels");
  switch (json.type()) {
    case nlohmann::json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case nlohmann::json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case nlohmann::json::value_t::number_unsigned:
      return Value::integer(json.get<uint64_t>());
    case nlohmann::json::value_t::number_float:
      return Value::real(json.get<double>());
    case nlohmann::json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (find_invalid_utf8(text) != std::string::npos)
        runtime.fail("the input holds a string that is not UTF-8");
      return Value::string(runtime, text);
    }
    case nlohmann::json::value_t::array: {
      Items items(runtime);
      for (const auto& item : json) items.push(from_json_at(runtime, item, depth + 1));
      return Value::list(runtime, items.take());
    }
    case nlohmann::json::value_t::object: {
      std::vector<DictObject::Entry> entries;
      for (const auto& [key, value] : json.items()) {
        if (find_invalid_utf8(key) != std::string::npos)
          runtime.fail("the input holds a key that is not UTF-8");
        entries.emplace_back(Value::string(runtime, key), from_json_at(runtime, value, depth + 1));
      }
      return make_dict(runtime, std::move(entries));
    }
    default:
      return Value::none();
  }
}

}  // namespace

Value from_json(Runtime& runtime, const nlohmann::ordered_json& json) {
  return from_json_at(runtime, json, 0);
}

}  // namespace signround::jinja
