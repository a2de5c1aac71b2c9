// "%d" % x
#include <algorithm>

#include "signround/text/jinja_format.h"
#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

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
    FormatSpec spec;
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
      spec.fill.assign(1, '0');
    }
    write(spec, type, value);
  }

  void write(FormatSpec& spec, char type, const Value& value) {
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

}  // namespace

std::string format_percent(Runtime& runtime, const StringObject& format, const Value& args) {
  return PercentFormatter(runtime, format, args).run();
}

}  // namespace signround::jinja
