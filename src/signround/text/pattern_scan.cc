#include "signround/text/pattern_scan.h"

#include <array>

#include "signround/text/unicode.h"

namespace signround {

namespace {

using unicode::kLetter;
using unicode::kNumber;
using unicode::kSpace;

enum Kind : uint8_t {
  kL,
  kN,
  kS,
  kO,
  kMulti
};  // letter, number, white space, any other; not ASCII

constexpr std::array<uint8_t, 256> make_ascii_kinds() {
  std::array<uint8_t, 256> k{};
  for (size_t c = 0; c < 256; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    k[c] = c >= 0x80                         ? kMulti
           : letter                          ? kL
           : c >= '0' && c <= '9'            ? kN
           : c == ' ' || (c >= 9 && c <= 13) ? kS
                                             : kO;
  }
  return k;
}
constexpr std::array<uint8_t, 256> kAscii = make_ascii_kinds();

// A cursor's helpers over one text; all positions are pointers at character starts.
class Scanner {
 public:
  Scanner(const char* end) : end_(end), table_(unicode::class_table()) {}

  Kind kind(const char* p) const {
    const uint8_t k = kAscii[static_cast<unsigned char>(*p)];
    if (k != kMulti) return static_cast<Kind>(k);
    const uint16_t c = table_[unicode::decode(p)];
    return c & kLetter ? kL : c & kNumber ? kN : c & kSpace ? kS : kO;
  }
  static const char* step(const char* p) {
    return p + unicode::sequence_length(static_cast<unsigned char>(*p));
  }
  const char* run(const char* p, Kind k) const {
    while (p < end_ && kind(p) == k) p = step(p);
    return p;
  }
  const char* end() const { return end_; }

  // \s+(?!\S)|\s+ for the white space in [p, e): all of it at the end of the text, else all but its
  // last character.
  const char* space(const char* p, const char* e) const {
    if (e == end_) return e;
    const char* last = unicode::previous(e);
    return last > p ? last : e;
  }

 private:
  const char* end_;
  const uint16_t* table_;
};

// Length of 's 't 're 've 'm 'll 'd at p, 0 if there is none.
size_t contraction(const char* p, const char* end) {
  if (end - p < 2 || *p != '\'') return 0;
  const char a = p[1];
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (end - p < 3) return 0;
  const char b = p[2];
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

// The same in any case. U+017F (long s) is an s when case does not count.
size_t contraction_any_case(const char* p, const char* end) {
  if (end - p < 2 || *p != '\'') return 0;
  const char a = static_cast<char>(p[1] | 0x20);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (end - p < 3) return 0;
  if (p[1] == '\xC5' && p[2] == '\xBF') return 3;
  const char b = static_cast<char>(p[2] | 0x20);
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

const char* next_gpt2(const Scanner& s, const char* p) {
  if (const size_t n = contraction(p, s.end())) return p + n;
  const char* q = *p == ' ' && p + 1 < s.end() ? p + 1 : p;
  const Kind k = s.kind(q);
  if (k != kS) return s.run(Scanner::step(q), k);
  return s.space(p, s.run(p, kS));
}

bool is_line_end(char c) { return c == '\n' || c == '\r'; }

// cl100k's pattern as Llama 3 and Qwen2 have it; they differ in how many digits make a piece.
const char* next_llama3(const Scanner& s, const char* p, int max_digits) {
  if (const size_t n = contraction_any_case(p, s.end())) return p + n;
  const Kind k = s.kind(p);
  if (k == kL) return s.run(Scanner::step(p), kL);
  if (k == kN) {
    const char* q = Scanner::step(p);
    for (int i = 1; i < max_digits && q < s.end() && s.kind(q) == kN; ++i) q = Scanner::step(q);
    return q;
  }
  const char* after = Scanner::step(p);
  const Kind next = after < s.end() ? s.kind(after) : kS;
  if (next == kL && !is_line_end(*p)) return s.run(Scanner::step(after), kL);
  if (k == kO || (*p == ' ' && next == kO)) {
    const char* q = s.run(k == kO ? after : Scanner::step(after), kO);
    while (q < s.end() && is_line_end(*q)) ++q;
    return q;
  }
  const char* e = p;
  const char* line_end = nullptr;  // after the last line end of the white space
  while (e < s.end() && s.kind(e) == kS) {
    if (is_line_end(*e)) line_end = e + 1;
    e = Scanner::step(e);
  }
  return line_end ? line_end : s.space(p, e);
}

}  // namespace

std::string_view pattern_text(KnownPattern pattern) {
  switch (pattern) {
    case KnownPattern::kNone:
      break;
    case KnownPattern::kGpt2:
      return R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
    case KnownPattern::kLlama3:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    case KnownPattern::kQwen2:
      return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  }
  return "";
}

KnownPattern known_pattern(std::string_view regex) {
  for (const KnownPattern p : {KnownPattern::kGpt2, KnownPattern::kLlama3, KnownPattern::kQwen2})
    if (regex == pattern_text(p)) return p;
  return KnownPattern::kNone;
}

void scan_pattern(KnownPattern pattern, std::string_view text, size_t begin, size_t end,
                  std::vector<Piece>& out) {
  const char* base = text.data();
  const Scanner scanner(base + end);
  const char* p = base + begin;
  while (p < scanner.end()) {
    const char* q = pattern == KnownPattern::kGpt2
                        ? next_gpt2(scanner, p)
                        : next_llama3(scanner, p, pattern == KnownPattern::kLlama3 ? 3 : 1);
    out.push_back({static_cast<size_t>(p - base), static_cast<size_t>(q - base)});
    p = q;
  }
}

}  // namespace signround
