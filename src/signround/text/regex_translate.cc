// Oniguruma's dialect to PCRE2's. They differ in: what \s \w \d \h \v and \b mean (Oniguruma: the
// Unicode properties White_Space, Alphabetic + M + Nd + Pc (and Latin-1 superscripts and fractions), Nd; hex digit; tab),
// scripts (\p{Han}: the script, not its extensions), {n,m}+ (a repeated repeat, not a possessive
// one), {,n}, (?m) (dot matches a line end), ^ and $ (always at lines), and bracket expressions,
// which nest.
#include <array>
#include <cctype>
#include <cstdio>
#include <vector>

#include "signround/base/error.h"
#include "signround/text/regex.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer regex";
constexpr const char* kSpaceSet =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* kWordSet =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";
constexpr const char* kHexSet = "0-9A-Fa-f";

std::string hex_escape(uint32_t cp) {
  char text[16];
  std::snprintf(text, sizeof text, "\\x{%x}", cp);
  return text;
}

// The code points for which `bits` are all clear, as ranges for a bracket expression.
std::string complement_set(uint16_t bits) {
  std::string set;
  const uint16_t* table = unicode::class_table();
  for (uint32_t cp = 0; cp < 0x110000;) {
    if ((table[cp] & bits) || (cp >= 0xD800 && cp <= 0xDFFF)) {
      ++cp;
      continue;
    }
    const uint32_t first = cp;
    while (cp < 0x110000 && !(table[cp] & bits) && !(cp >= 0xD800 && cp <= 0xDFFF)) ++cp;
    set += hex_escape(first) + "-" + hex_escape(cp - 1);
  }
  return set;
}

// `set` with the newer characters of each \p{category} in it added: PCRE2 may know an older Unicode
// than the reference.
std::string with_newer(std::string_view set) {
  std::string out(set);
  for (size_t at = set.find("\\p{"); at != std::string_view::npos; at = set.find("\\p{", at + 1)) {
    const std::string_view name = set.substr(at + 3, set.find('}', at) - at - 3);
    if (name.size() <= 2)
      for (const auto& [first, last] : unicode::newer_in_category(name))
        out += hex_escape(first) + "-" + hex_escape(last);
    if (name == "sc:Han") out += R"(\x{2b739}\x{2ebf0}-\x{2ee5d}\x{31350}-\x{323af})";
  }
  return out;
}

struct PropertyName {
  const char* name;  // lower case, without space, '-' and '_'
  const char* set;   // for inside a bracket expression
};
constexpr std::array<PropertyName, 46> kProperties = {{
    {"letter", "\\p{L}"},
    {"mark", "\\p{M}"},
    {"number", "\\p{N}"},
    {"punctuation", "\\p{P}"},
    {"symbol", "\\p{S}"},
    {"separator", "\\p{Z}"},
    {"other", "\\p{C}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"lowercaseletter", "\\p{Ll}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"modifierletter", "\\p{Lm}"},
    {"otherletter", "\\p{Lo}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"spacingmark", "\\p{Mc}"},
    {"enclosingmark", "\\p{Me}"},
    {"decimalnumber", "\\p{Nd}"},
    {"letternumber", "\\p{Nl}"},
    {"othernumber", "\\p{No}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"openpunctuation", "\\p{Ps}"},
    {"closepunctuation", "\\p{Pe}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"otherpunctuation", "\\p{Po}"},
    {"mathsymbol", "\\p{Sm}"},
    {"currencysymbol", "\\p{Sc}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"othersymbol", "\\p{So}"},
    {"spaceseparator", "\\p{Zs}"},
    {"lineseparator", "\\p{Zl}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"control", "\\p{Cc}"},
    {"format", "\\p{Cf}"},
    {"unassigned", "\\p{Cn}"},
    {"privateuse", "\\p{Co}"},
    {"alpha", "\\p{Alphabetic}\\p{L}\\p{Nl}"},
    {"digit", "\\p{Nd}"},
    {"lower", "\\p{Lowercase}"},
    {"upper", "\\p{Uppercase}"},
    {"punct", "\\p{P}\\p{S}"},
    {"cntrl", "\\p{Cc}"},
    {"alnum", "\\p{Alphabetic}\\p{L}\\p{Nl}\\p{Nd}"},
    {"xdigit", "0-9A-Fa-f"},
    {"blank", "\\p{Zs}\\x{9}"},
    {"ascii", "\\x{0}-\\x{7f}"},
}};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    while (at_ < in_.size()) step();
    if (!groups_.empty()) bad("a group is not closed");
    return std::move(out_);
  }

 private:
  [[noreturn]] void bad(const char* what) const {
    fail(ErrorKind::kUnsupported, kWhere, "pattern \"", excerpt(in_, 200), "\", byte ", at_, ": ",
         what);
  }
  bool more() const { return at_ < in_.size(); }
  char peek() const {
    if (!more()) bad("it ends in the middle of an expression");
    return in_[at_];
  }
  bool accept(std::string_view s) {
    if (in_.substr(at_, s.size()) != s) return false;
    at_ += s.size();
    return true;
  }
  void begin_atom() { atom_ = out_.size(); }

  void step() {
    const char c = in_[at_];
    if (c == '(') return open_group();
    if (c == ')') return close_group();
    if (c == '*' || c == '+' || c == '?' || (c == '{' && interval_length() != 0))
      return quantifier();
    if (c == '|') {
      ++at_;
      out_ += '|';
      return begin_atom();
    }
    begin_atom();
    if (c == '\\') {
      escape();
    } else if (c == '[') {
      ++at_;
      std::string set;
      const bool negated = bracket(set, 0);
      out_ += (negated ? "[^" : "[") + with_newer(set) + "]";
    } else if (c == '{' || c == '}' || c == ']') {
      ++at_;
      out_ += '\\';
      out_ += c;
    } else {
      copy_character();
    }
  }

  void copy_character() {
    const size_t n =
        std::min(unicode::sequence_length(static_cast<unsigned char>(in_[at_])), in_.size() - at_);
    out_ += in_.substr(at_, n);
    at_ += n;
  }

  void open_group() {
    if (groups_.size() > 200) bad("groups are nested too deep");
    groups_.push_back(out_.size());
    if (accept("(?#")) {
      while (peek() != ')') ++at_;
      ++at_;
      groups_.pop_back();
      return;
    }
    for (const char* plain : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"})
      if (accept(plain)) {
        out_ += plain;
        return begin_atom();
      }
    if (accept("(?<")) {
      out_ += "(?<";
      while (peek() != '>') out_ += in_[at_++];
      out_ += in_[at_++];
    } else if (accept("(?")) {
      out_ += "(?";
      for (char c = peek(); c != ')' && c != ':'; c = peek()) {
        if (c != 'i' && c != 'm' && c != 'x' && c != '-') bad("unknown group or option");
        out_ += c == 'm' ? 's' : c;
        ++at_;
      }
      out_ += in_[at_++];
      if (out_.back() == ')') groups_.pop_back();
    } else {
      ++at_;
      out_ += '(';
    }
    begin_atom();
  }

  void close_group() {
    if (groups_.empty()) bad("')' without '('");
    ++at_;
    out_ += ')';
    atom_ = groups_.back();
    groups_.pop_back();
  }

  // Length of {n}, {n,}, {,m} or {n,m} at the current place; 0 if it is something else (then '{' is
  // literal).
  size_t interval_length() const {
    size_t i = at_ + 1;
    bool digits = false;
    const auto skip = [&] {
      for (; i < in_.size() && std::isdigit(static_cast<unsigned char>(in_[i])); ++i) digits = true;
    };
    skip();
    if (i < in_.size() && in_[i] == ',') {
      ++i;
      skip();
    }
    return digits && i < in_.size() && in_[i] == '}' ? i + 1 - at_ : 0;
  }

  void quantifier() {
    if (in_[at_] != '{') {
      out_ += in_[at_++];
      if (more() && (in_[at_] == '+' || in_[at_] == '?')) out_ += in_[at_++];
      return;
    }
    const size_t n = interval_length();
    std::string text(in_.substr(at_, n));
    const bool exact = text.find(',') == std::string::npos;
    if (text[1] == ',') text.insert(1, "0");
    at_ += n;
    out_ += text;
    if (!more()) return;
    // Here + and ? (after an exact count) repeat the repeat, they do not make it possessive or
    // lazy.
    if (in_[at_] == '+' || (in_[at_] == '?' && exact)) {
      out_.insert(atom_, "(?:");
      out_ += ')';
      out_ += in_[at_++];
    } else if (in_[at_] == '?') {
      out_ += in_[at_++];
    }
  }

  uint32_t hex_digits(size_t most, bool braces) {
    uint32_t value = 0;
    size_t n = 0;
    while (more() && n < most && std::isxdigit(static_cast<unsigned char>(in_[at_]))) {
      const char c = static_cast<char>(std::tolower(static_cast<unsigned char>(in_[at_++])));
      value = value * 16 + static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
      ++n;
    }
    if (braces && (!accept("}") || n == 0)) bad("expected \\x{...}");
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
      bad("a code point that is no character");
    return value;
  }

  // \p{...}: a set for a bracket expression, without its sign, which is flipped in *negated.
  std::string property(bool* negated) {
    std::string name;
    if (accept("{")) {
      if (accept("^")) *negated = !*negated;
      while (peek() != '}') name += in_[at_++];
      ++at_;
    } else {
      name = in_[at_];
      ++at_;
    }
    std::string key;
    for (const char c : name)
      if (c != ' ' && c != '-' && c != '_')
        key += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (key == "space" || key == "whitespace") return kSpaceSet;
    if (key == "word") return kWordSet;
    for (const PropertyName& p : kProperties)
      if (key == p.name) return p.set;
    for (const char c : name)
      if (!std::isalnum(static_cast<unsigned char>(c)) && c != '_') bad("unknown property");
    if (name.empty()) bad("unknown property");
    static constexpr std::string_view kBinary[] = {
        "alphabetic", "lowercase", "uppercase", "any", "emoji", "ideographic", "math", "assigned"};
    if (key == "assigned") {
      *negated = !*negated;
      return "\\p{Cn}";
    }
    for (const std::string_view b : kBinary)
      if (key == b) return "\\p{" + key + "}";
    return name.size() <= 2 ? "\\p{" + name + "}" : "\\p{sc:" + name + "}";
  }

  // A class escape (\s \w \d \h \p and their complements) as a set; false if the escape at hand is
  // none of them.
  bool class_escape(std::string* set, bool* negated) {
    const char c = peek();
    *negated = std::isupper(static_cast<unsigned char>(c)) != 0;
    switch (c) {
      case 's':
      case 'S':
        *set = kSpaceSet;
        break;
      case 'w':
      case 'W':
        *set = kWordSet;
        break;
      case 'd':
      case 'D':
        *set = "\\p{Nd}";
        break;
      case 'h':
      case 'H':
        *set = kHexSet;
        break;
      case 'p':
      case 'P':
        ++at_;
        *set = property(negated);
        return true;
      default:
        return false;
    }
    ++at_;
    return true;
  }

  // The code point of a character escape, inside or outside of brackets; false if it is none.
  bool character_escape(uint32_t* cp) {
    const char c = peek();
    static constexpr std::string_view kNames = "tnrfvae", kValues = "\t\n\r\f\v\a\x1b";
    if (const size_t i = kNames.find(c); i != std::string_view::npos) {
      ++at_;
      *cp = static_cast<unsigned char>(kValues[i]);
      return true;
    }
    if (c == 'x') {
      ++at_;
      const bool braces = accept("{");
      *cp = hex_digits(braces ? 8 : 2, braces);
      return true;
    }
    if (c == 'u') {
      ++at_;
      *cp = hex_digits(4, false);
      return true;
    }
    if (c == '0') {
      ++at_;
      *cp = 0;
      for (int i = 0; i < 2 && more() && in_[at_] >= '0' && in_[at_] <= '7'; ++i)
        *cp = *cp * 8 + static_cast<uint32_t>(in_[at_++] - '0');
      return true;
    }
    return false;
  }

  void escape() {
    ++at_;
    std::string set;
    bool negated = false;
    uint32_t cp = 0;
    if (class_escape(&set, &negated)) {
      out_ += (negated ? "[^" : "[") + with_newer(set) + "]";
    } else if (character_escape(&cp)) {
      out_ += hex_escape(cp);
    } else if (const char c = peek(); c == 'b' || c == 'B') {
      ++at_;
      const std::string w = "[" + with_newer(kWordSet) + "]";
      out_ += c == 'b' ? "(?:(?<=" + w + ")(?!" + w + ")|(?<!" + w + ")(?=" + w + "))"
                       : "(?:(?<=" + w + ")(?=" + w + ")|(?<!" + w + ")(?!" + w + "))";
    } else if (c == 'k' || c == 'g') {
      out_ += '\\';
      out_ += in_[at_++];
    } else if (std::string_view("AzZGRXKN").find(c) != std::string_view::npos ||
               std::isdigit(static_cast<unsigned char>(c))) {
      out_ += '\\';
      for (bool first = true;
           more() && (first || std::isdigit(static_cast<unsigned char>(in_[at_]))); first = false) {
        out_ += in_[at_++];
        if (!std::isdigit(static_cast<unsigned char>(c))) break;
      }
    } else {
      if (!std::isalnum(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 0x80)
        out_ += '\\';
      copy_character();
    }
  }

  // [:name:] after its '['.
  std::string posix_class() {
    const bool negated = accept("^");
    std::string name;
    while (peek() != ':') name += in_[at_++];
    if (!accept(":]")) bad("expected [:name:]");
    if (negated) bad("a negated [:name:] is not supported");
    if (name == "space") return kSpaceSet;
    if (name == "word") return kWordSet;
    for (const PropertyName& p : kProperties)
      if (name == p.name) return p.set;
    bad("unknown [:name:]");
  }

  // One member of a bracket expression, appended to `set`; its code point if it is a single
  // character (it may begin or end a range), else -1.
  int64_t bracket_item(std::string& set, int depth) {
    if (in_[at_] == '[') {
      ++at_;
      if (accept(":")) {
        set += posix_class();
        return -1;
      }
      std::string inner;
      if (bracket(inner, depth + 1))
        bad("a negated bracket expression inside another is not supported");
      set += inner;
      return -1;
    }
    if (in_[at_] != '\\') {
      const size_t n = std::min(unicode::sequence_length(static_cast<unsigned char>(in_[at_])),
                                in_.size() - at_);
      const uint32_t cp = unicode::decode(in_.data() + at_);
      at_ += n;
      return cp;
    }
    ++at_;
    std::string members;
    bool negated = false;
    uint32_t cp = 0;
    if (class_escape(&members, &negated)) {
      if (!negated) {
        set += members;
      } else if (members == kSpaceSet) {
        set += complement_set(unicode::kSpace);
      } else if (members == kWordSet) {
        set += complement_set(unicode::kWord);
      } else if (members.rfind("\\p{", 0) == 0 && members.find('}') == members.size() - 1) {
        set += "\\P" + members.substr(2);
      } else {
        bad("this complement inside a bracket expression is not supported");
      }
      return -1;
    }
    if (character_escape(&cp)) return cp;
    if (peek() == 'b') {
      ++at_;
      return 8;
    }
    const size_t n =
        std::min(unicode::sequence_length(static_cast<unsigned char>(in_[at_])), in_.size() - at_);
    cp = unicode::decode(in_.data() + at_);
    at_ += n;
    return cp;
  }

  // A bracket expression after its '[', up to and with its ']'. Appends its members, says whether
  // it was negated.
  bool bracket(std::string& set, int depth) {
    if (depth > 20) bad("bracket expressions are nested too deep");
    const bool negated = accept("^");
    if (accept("]")) set += "\\x{5d}";
    while (peek() != ']') {
      if (in_.substr(at_, 2) == "&&")
        bad("an intersection of bracket expressions is not supported");
      const int64_t first = bracket_item(set, depth);
      if (first < 0) continue;
      set += hex_escape(static_cast<uint32_t>(first));
      if (peek() != '-' || in_.substr(at_, 2) == "-]") continue;
      ++at_;
      const int64_t last = bracket_item(set, depth);
      if (last < first) bad("a range that ends before it begins");
      set += "-" + hex_escape(static_cast<uint32_t>(last));
    }
    ++at_;
    return negated;
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;  // where the expression that a quantifier would repeat starts in out_
  std::vector<size_t> groups_;  // where each open group starts in out_
};

}  // namespace

std::string oniguruma_to_pcre2(std::string_view pattern) { return Translator(pattern).run(); }

}  // namespace signround
