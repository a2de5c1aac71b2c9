// wordwrap and pprint: Python's textwrap.wrap and pprint.pformat.
#include <algorithm>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_string_methods.h"
#include "signround/text/jinja_text_filters.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja::filters {
namespace {

// Positions of code points in a line.
struct Span {
  size_t begin, end;
};

// textwrap.TextWrapper of CPython 3.11, with expand_tabs and replace_whitespace off.
class LineWrapper {
 public:
  LineWrapper(Runtime& runtime, int64_t width, bool break_long_words, bool break_on_hyphens)
      : runtime_(runtime),
        width_(static_cast<size_t>(width)),
        break_words_(break_long_words),
        break_hyphens_(break_on_hyphens) {}

  // Appends the lines that `text` becomes, with `separator` between them: if that is marked as
  // safe, the lines are escaped, as whatever is joined with such a string.
  void wrap(std::string_view text, const StringObject& separator, Text& out) {
    Growing<char32_t> letters(runtime_);
    for (size_t at = 0; at < text.size();) letters.push(next_code_point(text, at));
    text_ = &letters.values();
    Growing<Span> chunks(runtime_);
    for (size_t at = 0; at < text_->size();) {
      const size_t begin = at;
      at = chunk_end(begin);
      chunks.push({begin, at});
    }
    bool any = false;
    Growing<Span> lines(runtime_);
    break_lines(chunks.values(), lines);
    for (const Span& line : lines.values()) {
      if (any) out.append(separator.text);
      any = true;
      std::string bytes;
      for (size_t i = line.begin; i < line.end; ++i) append_code_point(bytes, (*text_)[i]);
      out.append(separator.markup ? escape_html(runtime_, bytes) : bytes);
    }
  }

 private:
  static bool is_blank(char32_t c) { return (c >= '\t' && c <= '\r') || c == ' '; }
  static bool is_word(char32_t c) { return is_alnum(c) || c == '_'; }
  static bool is_letter(char32_t c) { return is_word(c) && !is_decimal(c); }

  // 0 outside of the text, which no rule takes.
  char32_t at(size_t i) const { return i < text_->size() ? (*text_)[i] : 0; }
  bool letter(size_t i) const { return is_letter(at(i)); }
  size_t end_of_dashes(size_t i) const {
    while (at(i) == '-') ++i;
    return i;
  }
  // Dashes at `i`, two or more, with a word before and behind them.
  bool dash_between_words(size_t i) const {
    if (i == 0 || at(i) != '-' || at(i + 1) != '-') return false;
    const char32_t before = at(i - 1);
    if (!is_word(before) &&
        std::u32string_view(U"!\"'&.,?").find(before) == std::u32string_view::npos)
      return false;
    return is_word(at(end_of_dashes(i)));
  }
  // A hyphen at `i` behind which a word may be broken.
  bool soft_hyphen(size_t i) const {
    if (at(i) != '-') return false;
    const bool before = (i >= 2 && letter(i - 1) && letter(i - 2)) ||
                        (i >= 3 && letter(i - 1) && at(i - 2) == '-' && letter(i - 3));
    return before && letter(i + 1) && (letter(i + 2) || (at(i + 2) == '-' && letter(i + 3)));
  }

  // The end of what is never broken unless it is too long.
  size_t chunk_end(size_t begin) const {
    size_t i = begin;
    if (is_blank(at(i))) {
      while (i < text_->size() && is_blank(at(i))) ++i;
      return i;
    }
    if (break_hyphens_ && dash_between_words(i)) return end_of_dashes(i);
    for (++i; i < text_->size() && !is_blank(at(i)); ++i) {
      if (!break_hyphens_) continue;
      if (soft_hyphen(i)) return i + 1;
      if (dash_between_words(i)) return i;
    }
    return i;
  }

  bool all_space(const Span& span) const {
    size_t i = span.begin;
    while (i < span.end && is_space(at(i))) ++i;
    runtime_.step(static_cast<int64_t>((i - span.begin) >> 3));
    return i == span.end;
  }

  // Where to cut a chunk that is longer than a line, of which `room` is left.
  size_t cut(size_t begin, size_t room) const {
    if (!break_hyphens_) return begin + room;
    size_t hyphen = begin + room;
    while (hyphen > begin && at(hyphen - 1) != '-') --hyphen;  // behind the last one
    if (hyphen < begin + 2) return begin + room;
    for (size_t i = begin; i + 1 < hyphen; ++i)
      if (at(i) != '-') return hyphen;
    return begin + room;
  }

  void break_lines(std::vector<Span>& chunks, Growing<Span>& lines) {
    for (size_t k = 0; k < chunks.size();) {
      // White space is dropped where a line begins (but the first one's) and where it ends.
      if (!lines.values().empty() && all_space(chunks[k]) && ++k == chunks.size()) break;
      Span line = {chunks[k].begin, chunks[k].begin};
      Span last = line;
      bool any = false;
      for (; k < chunks.size() && chunks[k].end - line.begin <= width_; ++k) {
        last = chunks[k];
        line.end = last.end;
        any = true;
      }
      if (k < chunks.size() && chunks[k].end - chunks[k].begin > width_) {
        if (break_words_) {
          last = {line.end, cut(line.end, width_ - (line.end - line.begin))};
          chunks[k].begin = last.end;
        } else if (!any) {
          last = chunks[k++];
        }
        line.end = last.end;
        any = true;
      }
      if (any && all_space(last)) line.end = last.begin;
      if (line.end > line.begin) lines.push(line);
    }
  }

  Runtime& runtime_;
  const size_t width_;
  const bool break_words_, break_hyphens_;
  const std::vector<char32_t>* text_ = nullptr;
};

// pprint.PrettyPrinter of CPython 3.11 with its default settings.
class PrettyPrinter {
 public:
  PrettyPrinter(Runtime& runtime, Text& out) : runtime_(runtime), out_(out) {}

  // `indent` columns are taken in front of the value, `allowance` behind it.
  void print(const Value& value, int64_t indent, int64_t allowance, int level) {
    runtime_.step();
    const std::string flat = repr(value);
    if (count_code_points(flat) <= kWidth - indent - allowance) return out_.append(flat);
    if (value.is(Kind::kDict)) return print_dict(value.dict(), indent, allowance, level + 1);
    if (value.is(Kind::kList))
      return print_items(value.items(), "[", "]", indent, allowance, level);
    if (value.is(Kind::kTuple) && !value.as<SequenceObject>().group)
      return print_items(value.items(), "(", value.items().size() == 1 ? ",)" : ")", indent,
                         allowance, level);
    if (value.is_string() && !value.as_string().markup && !value.text().empty())
      return print_string(value.text(), indent, allowance, level + 1);
    out_.append(flat);
  }

 private:
  static constexpr int64_t kWidth = 80;

  void new_line(int64_t indent, std::string_view comma = "") {
    out_.append(comma);
    out_.append("\n");
    out_.append(indent, ' ');
  }

  // -1, 0, 1; values without an order are in that of their types' names.
  int order(const Value& a, const Value& b) {
    const bool tuples = a.is(Kind::kTuple) && b.is(Kind::kTuple);
    if ((a.is_number() && b.is_number()) || (a.is_string() && b.is_string()))
      return compare(runtime_, a, b, "<");
    const size_t common = tuples ? std::min(a.items().size(), b.items().size()) : 0;
    for (size_t i = 0; i < common; ++i)
      if (!equals(runtime_, a.items()[i], b.items()[i])) return order(a.items()[i], b.items()[i]);
    if (tuples) return a.items().size() < b.items().size() ? -1 : 1;
    const auto type_of = [](const Value& value) {
      const std::string name = type_name(value);
      return name == "Markup"      ? "markupsafe." + name
             : name == "Undefined" ? "jinja2.runtime." + name
                                   : name;
    };
    return type_of(a).compare(type_of(b));
  }

  std::vector<DictObject::Entry> sorted(const DictObject& dict) {
    runtime_.step(static_cast<int64_t>(dict.entries.size()));
    std::vector<DictObject::Entry> entries = dict.entries;
    std::stable_sort(entries.begin(), entries.end(),
                     [this](const auto& a, const auto& b) { return order(a.first, b.first) < 0; });
    return entries;
  }

  // As repr(), but dictionaries in the order of their keys.
  void append_flat(Text& out, const Value& value, int depth) {
    if (value.is(Kind::kDict)) {
      out.append("{");
      bool first = true;
      for (const auto& [key, item] : sorted(value.dict())) {
        if (!first) out.append(", ");
        first = false;
        append_flat(out, key, depth + 1);
        out.append(": ");
        append_flat(out, item, depth + 1);
      }
      return out.append("}");
    }
    if (!value.is_sequence() || (value.is(Kind::kTuple) && value.as<SequenceObject>().group))
      return append_repr(out, runtime_, value, depth);
    const bool list = value.is(Kind::kList);
    out.append(list ? "[" : "(");
    for (size_t i = 0; i < value.items().size(); ++i) {
      if (i > 0) out.append(", ");
      append_flat(out, value.items()[i], depth + 1);
    }
    out.append(list ? "]" : value.items().size() == 1 ? ",)" : ")");
  }

  std::string repr(const Value& value) {
    Text out(runtime_);
    append_flat(out, value, 0);
    return out.take();
  }

  int64_t repr_length(std::string_view text) {
    runtime_.step(static_cast<int64_t>(text.size() >> 3));
    return count_code_points(string_repr(text));
  }

  void print_dict(const DictObject& dict, int64_t indent, int64_t allowance, int level) {
    out_.append("{");
    const std::vector<DictObject::Entry> entries = sorted(dict);
    for (size_t i = 0; i < entries.size(); ++i) {
      const bool last = i + 1 == entries.size();
      const std::string key = repr(entries[i].first);
      out_.append(key + ": ");
      print(entries[i].second, indent + 1 + count_code_points(key) + 2, last ? allowance + 1 : 1,
            level);
      if (!last) new_line(indent + 1, ",");
    }
    out_.append("}");
  }

  void print_items(const std::vector<Value>& items, std::string_view open, std::string_view close,
                   int64_t indent, int64_t allowance, int level) {
    out_.append(open);
    for (size_t i = 0; i < items.size(); ++i) {
      const bool last = i + 1 == items.size();
      print(items[i], indent + 1, last ? allowance + static_cast<int64_t>(close.size()) : 1,
            level + 1);
      if (!last) new_line(indent + 1, ",");
    }
    out_.append(close);
  }

  // A word and the white space behind it.
  static size_t end_of_part(std::string_view line, size_t at) {
    bool in_space = false;
    for (size_t next = at; next < line.size(); at = next) {
      const bool space = is_space(next_code_point(line, next));
      if (in_space && !space) return at;
      in_space = space;
    }
    return at;
  }

  // In several literals: one or more for each line of the text, cut between words.
  void print_string(const std::string& text, int64_t indent, int64_t allowance, int level) {
    if (level == 1) ++indent, ++allowance;
    Pieces lines(runtime_), chunks(runtime_);
    split_lines(runtime_, text, true, lines);
    const int64_t width = kWidth - indent;
    for (size_t i = 0; i < lines.values().size(); ++i) {
      const std::string_view line = lines.values()[i];
      const bool last_line = i + 1 == lines.values().size();
      if (repr_length(line) <= width - (last_line ? allowance : 0)) {
        chunks.push(line);
        continue;
      }
      size_t begin = 0;  // of what is collected for the next literal
      for (size_t at = 0; at < line.size();) {
        const size_t end = end_of_part(line, at);
        const bool last = last_line && end == line.size();
        const std::string_view candidate = line.substr(begin, end - begin);
        if (repr_length(candidate) > width - (last ? allowance : 0)) {
          if (at > begin) chunks.push(line.substr(begin, at - begin));
          begin = at;
        }
        at = end;
      }
      if (begin < line.size()) chunks.push(line.substr(begin));
    }
    const std::vector<std::string_view>& parts = chunks.values();
    const bool brackets = level == 1 && parts.size() > 1;
    if (brackets) out_.append("(");
    for (size_t i = 0; i < parts.size(); ++i) {
      if (i > 0) new_line(indent);
      out_.append(string_repr(parts[i]));
    }
    if (brackets) out_.append(")");
  }

  Runtime& runtime_;
  Text& out_;
};

}  // namespace

Value wordwrap(Runtime& runtime, const Args& args) {
  const Params params(runtime, "wordwrap", args,
                      {"s", "width", "break_long_words", "wrapstring", "break_on_hyphens"}, 1);
  if (!params[0].is_string()) runtime.fail("wordwrap expects a string, not ", type_name(params[0]));
  const int64_t width = params.integer(1, 79);
  const Value separator = params.given(3) ? params[3] : Value::string(runtime, "\n");
  if (!separator.is_string())
    runtime.fail("wordwrap: a string to join lines with expected, not ", type_name(separator));
  Pieces paragraphs(runtime);
  split_lines(runtime, params[0].text(), false, paragraphs);
  if (width <= 0 && !paragraphs.values().empty())
    runtime.fail("invalid width ", width, " (must be > 0)");
  LineWrapper wrapper(runtime, width, params.flag(2, true), params.flag(4, true));
  Text out(runtime);
  bool any = false;
  for (const std::string_view paragraph : paragraphs.values()) {
    if (any) out.append(separator.text());
    any = true;
    wrapper.wrap(paragraph, separator.as_string(), out);
  }
  return like(runtime, separator.as_string(), out.take());
}

Value pprint(Runtime& runtime, const Args& args) {
  const Params params(runtime, "pprint", args, {"value"}, 1);
  Text out(runtime);
  PrettyPrinter(runtime, out).print(params[0], 0, 0, 0);
  return Value::string(runtime, out.take());
}

}  // namespace signround::jinja::filters
