#include "signround/text/jinja_lexer.h"

#include <algorithm>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

// Line ends become "\n", and one at the very end is dropped.
std::string normalize_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }

void append_escape(std::string& out,
                   char32_t c) {  // what Python's backslashreplace writes behind the backslash
  const int digits = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
  out += digits == 2 ? 'x' : digits == 4 ? 'u' : 'U';
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4)
    out += "0123456789abcdef"[(c >> shift) & 15];
}

class Lexer {
 public:
  Lexer(const std::string& where, std::string_view source)
      : where_(where), source_(normalize_lines(source.substr(0, kMaxSourceBytes))) {
    if (source.size() > kMaxSourceBytes)
      error("the template has ", source.size(), " bytes, at most ", kMaxSourceBytes, " expected");
    if (const size_t bad = find_invalid_utf8(source_); bad != std::string::npos) {
      at_ = bad;
      error("the template is not valid UTF-8");
    }
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_data();
    add(TokenKind::kEnd);
    return std::move(tokens_);
  }

 private:
  template <class... Parts>
  [[noreturn]] void error(const Parts&... parts) {
    syntax_error(where_, position_of(std::min(at_, source_.size())), parts...);
  }

  // Counts on from the last place that was asked for; tokens come in order.
  Position position_of(size_t at) {
    if (at < counted_) {
      counted_ = 0;
      counted_position_ = {};
    }
    for (; counted_ < at; ++counted_) {
      const auto byte = static_cast<unsigned char>(source_[counted_]);
      if (byte == '\n') {
        ++counted_position_.line;
        counted_position_.column = 1;
      } else if ((byte & 0xC0) != 0x80) {
        ++counted_position_.column;
      }
    }
    return counted_position_;
  }

  Token& add(TokenKind kind, std::string text = {}) {
    tokens_.push_back({kind, position_of(at_), std::move(text)});
    return tokens_.back();
  }

  bool looking_at(std::string_view text, size_t at) const {
    return source_.compare(at, text.size(), text) == 0;
  }
  bool looking_at(std::string_view text) const { return looking_at(text, at_); }

  size_t skip_spaces(size_t at) const {
    while (at < source_.size()) {
      size_t next = at;
      if (!is_space(next_code_point(source_, next))) break;
      at = next;
    }
    return at;
  }

  // The text before a tag, without the white space that the tag's sign or lstrip_blocks takes away.
  std::string_view data_before(size_t begin, size_t end, char sign, bool is_variable) const {
    const std::string_view text = std::string_view(source_).substr(begin, end - begin);
    if (sign == '-') return strip(text, false, true);
    if (sign == '+' || is_variable) return text;
    const size_t line = text.rfind('\n') + 1;  // npos + 1 is 0
    const bool line_starting = begin == 0 || source_[begin - 1] == '\n';
    if (line == 0 && !line_starting) return text;
    if (line == text.size() || !strip(text.substr(line), true, false).empty()) return text;
    return text.substr(0, line);
  }

  static char sign_at(std::string_view source, size_t at) {
    return at < source.size() && (source[at] == '-' || source[at] == '+') ? source[at] : '\0';
  }

  void add_data(size_t begin, size_t end, char sign, bool is_variable) {
    const std::string_view data = data_before(begin, end, sign, is_variable);
    at_ = begin;
    if (!data.empty()) add(TokenKind::kData, std::string(data));
  }

  void lex_data() {
    const size_t begin = at_;
    size_t tag = source_.find('{', at_);
    while (tag != std::string::npos && !looking_at("{{", tag) && !looking_at("{%", tag) &&
           !looking_at("{#", tag))
      tag = source_.find('{', tag + 1);
    if (tag == std::string::npos) {
      add(TokenKind::kData, source_.substr(begin));
      at_ = source_.size();
      return;
    }
    const char type = source_[tag + 1];
    const char sign = sign_at(source_, tag + 2);
    add_data(begin, tag, sign, type == '{');
    at_ = tag;
    const size_t inside = tag + 2 + (sign != '\0' ? 1 : 0);
    if (type == '#') return skip_comment(inside);
    if (type == '%') {
      if (const size_t raw = raw_begin(inside); raw != 0) return lex_raw(raw);
      add(TokenKind::kBlockBegin);
    } else {
      add(TokenKind::kVariableBegin);
    }
    at_ = inside;
    lex_tag(type == '%');
  }

  // Behind a closing tag with this sign: '-' takes all white space, none takes one line end
  // (trim_blocks).
  size_t behind_tag(size_t at, char sign, bool trim) const {
    if (sign == '-') return skip_spaces(at);
    return sign == '\0' && trim && at < source_.size() && source_[at] == '\n' ? at + 1 : at;
  }

  void skip_comment(size_t inside) {
    const size_t end = source_.find("#}", inside);
    if (end == std::string::npos) error("the comment has no end, '#}' expected");
    const char sign = end > inside ? sign_at(source_, end - 1) : '\0';
    at_ = behind_tag(end + 2, sign, true);
  }

  // Where the raw text begins if a raw tag's inside is at `inside`; 0: it is another tag.
  size_t raw_begin(size_t inside) const {
    size_t at = skip_spaces(inside);
    if (!looking_at("raw", at)) return 0;
    at = skip_spaces(at + 3);
    if (looking_at("-%}", at)) return skip_spaces(at + 3);
    return looking_at("%}", at) ? at + 2 : 0;
  }

  void lex_raw(size_t begin) {
    for (size_t tag = source_.find("{%", begin); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      const char sign = sign_at(source_, tag + 2);
      size_t at = skip_spaces(tag + 2 + (sign != '\0' ? 1 : 0));
      if (!looking_at("endraw", at)) continue;
      at = skip_spaces(at + 6);
      const char end_sign = sign_at(source_, at);
      if (end_sign != '\0') ++at;
      if (!looking_at("%}", at)) continue;
      add_data(begin, tag, sign, false);
      at_ = behind_tag(at + 2, end_sign, true);
      return;
    }
    error("the raw block has no end, '{% endraw %}' expected");
  }

  // Behind the end of the tag if it is here, else 0. The signs of a closing tag also look like
  // operators; within brackets they are.
  size_t tag_end(bool is_block) const {
    if (!brackets_.empty()) return 0;
    const std::string_view close = is_block ? "%}" : "}}";
    if (looking_at(close)) return behind_tag(at_ + 2, '\0', is_block);
    const char sign = sign_at(source_, at_);
    if (sign == '\0' || (sign == '+' && !is_block) || !looking_at(close, at_ + 1)) return 0;
    return behind_tag(at_ + 3, sign, is_block);
  }

  void lex_tag(bool is_block) {
    brackets_.clear();
    while (at_ < source_.size()) {
      if (const size_t end = tag_end(is_block); end != 0) {
        add(is_block ? TokenKind::kBlockEnd : TokenKind::kVariableEnd);
        at_ = end;
        return;
      }
      lex_token();
    }
  }

  void lex_token() {
    const char c = source_[at_];
    if (const size_t behind = skip_spaces(at_); behind != at_) {
      at_ = behind;
    } else if (is_digit_char(c)) {
      lex_number();
    } else if (c == '"' || c == '\'') {
      lex_string(c);
    } else if (size_t next = at_; is_identifier_part(next_code_point(source_, next))) {
      lex_name();
    } else {
      lex_operator();
    }
  }

  // Digits with single underscores between them; returns where they end.
  template <class IsDigit>
  size_t skip_digits(size_t at, IsDigit is_digit) const {
    while (at < source_.size()) {
      if (is_digit(source_[at]))
        ++at;
      else if (source_[at] == '_' && at + 1 < source_.size() && is_digit(source_[at + 1]))
        at += 2;
      else
        break;
    }
    return at;
  }

  // End of a float literal at at_, or 0.
  size_t float_end() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return 0;
    size_t end = skip_digits(at_, is_digit_char);
    bool is_float = false;
    if (end + 1 < source_.size() && source_[end] == '.' && is_digit_char(source_[end + 1])) {
      end = skip_digits(end + 1, is_digit_char);
      is_float = true;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (sign_at(source_, exponent) != '\0') ++exponent;
      if (exponent < source_.size() && is_digit_char(source_[exponent])) {
        end = skip_digits(exponent, is_digit_char);
        is_float = true;
      }
    }
    return is_float ? end : 0;
  }

  size_t integer_end() const {
    if (source_[at_] != '0') return skip_digits(at_, is_digit_char);
    const char letter =
        at_ + 1 < source_.size() ? static_cast<char>(source_[at_ + 1] | 0x20) : '\0';
    const auto is_digit = [letter](char c) {
      if (letter == 'b') return c == '0' || c == '1';
      if (letter == 'o') return c >= '0' && c <= '7';
      const char lower = static_cast<char>(c | 0x20);
      return is_digit_char(c) || (lower >= 'a' && lower <= 'f');
    };
    if (letter == 'b' || letter == 'o' || letter == 'x') {
      size_t first = at_ + 2;
      if (first < source_.size() && source_[first] == '_') ++first;
      if (first < source_.size() && is_digit(source_[first])) return skip_digits(first, is_digit);
    }
    return skip_digits(at_, [](char c) { return c == '0'; });
  }

  void lex_number() {
    size_t end = float_end();
    const bool is_float = end != 0;
    if (!is_float) end = integer_end();
    const std::string_view text = std::string_view(source_).substr(at_, end - at_);
    Token& token = add(is_float ? TokenKind::kFloat : TokenKind::kInteger);
    if (!(is_float ? parse_float(text, token.real) : parse_int(text, 0, token.integer)))
      error("the number ", text, " is out of range");
    at_ = end;
  }

  void lex_name() {
    size_t end = at_;
    bool first = true;
    while (end < source_.size()) {
      size_t next = end;
      const char32_t c = next_code_point(source_, next);
      if (!is_identifier_part(c)) break;
      if (first && !is_identifier_start(c)) error("invalid character in an identifier");
      first = false;
      end = next;
    }
    add(TokenKind::kName, source_.substr(at_, end - at_));
    at_ = end;
  }

  void lex_operator() {
    const std::string_view two = std::string_view(source_).substr(at_, 2);
    for (const std::string_view op : {"//", "**", "==", "!=", ">=", "<="})
      if (two == op) {
        add(TokenKind::kOperator, std::string(op));
        at_ += 2;
        return;
      }
    const char c = source_[at_];
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      size_t next = at_;
      next_code_point(source_, next);
      error("unexpected character '", source_.substr(at_, next - at_), "'");
    }
    if (c == '(' || c == '[' || c == '{') brackets_ += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets_.empty()) error("unexpected '", c, "'");
      if (brackets_.back() != c) error("unexpected '", c, "', '", brackets_.back(), "' expected");
      brackets_.pop_back();
    }
    add(TokenKind::kOperator, std::string(1, c));
    ++at_;
  }

  void lex_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) error("the string has no end, ", quote, " expected");
    Token& token = add(TokenKind::kString);
    token.text = unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
  }

  // Reads up to `count` digits of `base`; returns how many there were.
  static int read_digits(std::string_view text, size_t at, int count, int base, char32_t& value) {
    int read = 0;
    value = 0;
    for (; read < count && at + static_cast<size_t>(read) < text.size(); ++read) {
      const char c = text[at + static_cast<size_t>(read)];
      const int digit = is_digit_char(c)                         ? c - '0'
                        : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                                 : 99;
      if (digit >= base) break;
      value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
    }
    return read;
  }

  std::string unescape(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      if (text[i] != '\\') {
        out += text[i++];
        continue;
      }
      if (++i >= text.size()) error("a string ends with a backslash");
      i = unescape_one(text, i, out);
    }
    return out;
  }

  // The escape whose letter is at `i`; returns the place behind it. Unknown ones stay as they are.
  size_t unescape_one(std::string_view text, size_t i, std::string& out) {
    constexpr std::string_view kLetters = "\n\\'\"abfnrtv";
    constexpr char kMeanings[] = {0, '\\', '\'', '"', '\a', '\b', '\f', '\n', '\r', '\t', '\v'};
    const char c = text[i];
    if (const size_t known = kLetters.find(c); known != std::string_view::npos) {
      if (c != '\n') out += kMeanings[known];
      return i + 1;
    }
    char32_t value = 0;
    if (c >= '0' && c <= '7') {
      const int count = read_digits(text, i, 3, 8, value);
      append_code_point(out, value);
      return i + static_cast<size_t>(count);
    }
    const int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      if (read_digits(text, i + 1, digits, 16, value) != digits)
        error("a string has a truncated \\", c, " escape");
      if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
        error("a string has a \\", c, " escape that is no character");
      append_code_point(out, value);
      return i + 1 + static_cast<size_t>(digits);
    }
    if (c == 'N') error("a string has a \\N{name} escape, which is not supported");
    out += '\\';
    if (static_cast<unsigned char>(c) < 0x80) {
      out += c;
      return i + 1;
    }
    // Jinja writes characters beyond ASCII as escapes before it reads the escapes, so that the
    // backslash is kept and theirs is lost.
    append_escape(out, next_code_point(text, i));
    return i;
  }

  const std::string& where_;
  const std::string source_;
  size_t at_ = 0;
  size_t counted_ = 0;
  Position counted_position_;
  std::string brackets_;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(const std::string& where, std::string_view source) {
  return Lexer(where, source).run();
}

}  // namespace signround::jinja
