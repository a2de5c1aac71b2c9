#include "signround/text/unicode.h"

#include <utf8proc.h>

#include <vector>

namespace signround::unicode {

namespace {

struct CodeRange {
  uint32_t first, last;
};
struct CategoryRange {
  uint32_t first, last;
  utf8proc_category_t category;
};
struct Exception {
  uint32_t first, last;
  bool member;
};
struct CaseRange {
  uint32_t first, last;
  int distance;
};
#include "signround/text/unicode_reference.inc"

// In the order of utf8proc_category_t.
constexpr std::string_view kCategoryNames[] = {
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};

bool is_white_space(uint32_t cp) {
  return (cp >= 9 && cp <= 13) || cp == 32 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
         (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F ||
         cp == 0x205F || cp == 0x3000;
}

// Other_Alphabetic outside the categories L, M and Nl: circled and squared Latin letters.
bool is_other_alphabetic(uint32_t cp) {
  return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
         (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
}

uint16_t classify(uint32_t cp, int category) {
  uint16_t c = is_white_space(cp) ? kSpace : 0;
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      c |= kLetter | kWord;
      break;
    case UTF8PROC_CATEGORY_MN:
      c |= kMark | kNonspacing | kWord;
      break;
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
      c |= kMark | kWord;
      break;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
      c |= kNumber | kNumeric | kWord;
      break;
    case UTF8PROC_CATEGORY_NO:
      c |= kNumber | kNumeric;
      break;
    case UTF8PROC_CATEGORY_PC:
      c |= kPunctuation | kWord;
      break;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
      c |= kPunctuation;
      break;
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
      c |= cp == 9 || cp == 10 || cp == 13 ? 0 : kControl;
      break;
    default:
      break;
  }
  if (is_other_alphabetic(cp) || cp == 0x200C || cp == 0x200D) c |= kWord;
  return c;
}

template <size_t N>
void apply_exceptions(const Exception (&ranges)[N], uint16_t bit, std::vector<uint16_t>& table) {
  for (const Exception& r : ranges)
    for (uint32_t cp = r.first; cp <= r.last; ++cp)
      table[cp] = static_cast<uint16_t>(r.member ? table[cp] | bit : table[cp] & ~bit);
}

// Length of the well-formed sequence at p, or minus the length of the maximal ill-formed part.
int sequence_at(const unsigned char* p, const unsigned char* end) {
  const unsigned char lead = *p;
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return -1;
  const int length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char
      low = 0x80,
      high = 0xBF;  // of the second byte: no overlong forms, surrogates, or values past 0x10FFFF
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (int i = 1; i < length; ++i, low = 0x80, high = 0xBF)
    if (p + i >= end || p[i] < low || p[i] > high) return -i;
  return length;
}

}  // namespace

const uint16_t* class_table() {
  static const std::vector<uint16_t> table = [] {
    std::vector<uint16_t> t(0x110000);
    for (uint32_t cp = 0; cp < t.size(); ++cp)
      t[cp] = classify(cp, utf8proc_category(static_cast<utf8proc_int32_t>(cp)));
    for (const CategoryRange& r : kNewerCategories)
      for (uint32_t cp = r.first; cp <= r.last; ++cp) t[cp] = classify(cp, r.category);
    apply_exceptions(kPunctuationExceptions, kPunctuation, t);
    apply_exceptions(kNumberExceptions, kNumeric, t);
    apply_exceptions(kWordExceptions, kWord, t);
    apply_exceptions(kMarkExceptions, kMark, t);
    apply_exceptions(kNonspacingExceptions, kNonspacing, t);
    apply_exceptions(kControlExceptions, kControl, t);
    return t;
  }();
  return table.data();
}

uint32_t lower(uint32_t cp) {
  if (cp < 0x80) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
  for (const CaseRange& r : kNewerLowercase)
    if (cp >= r.first && cp <= r.last)
      return static_cast<uint32_t>(static_cast<int>(cp) + r.distance);
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(cp)));
}

bool is_not_decomposed(uint32_t cp) {
  for (const CodeRange& r : kNotDecomposed)
    if (cp >= r.first && cp <= r.last) return true;
  return false;
}

std::vector<std::pair<uint32_t, uint32_t>> newer_in_category(std::string_view name) {
  std::vector<std::pair<uint32_t, uint32_t>> ranges;
  for (const CategoryRange& r : kNewerCategories) {
    if (kCategoryNames[r.category].substr(0, name.size()) == name)
      ranges.emplace_back(r.first, r.last);
  }
  return ranges;
}

void append(std::string& out, uint32_t cp) {
  if (cp < 0x80) {
    out += static_cast<char>(cp);
  } else if (cp < 0x800) {
    out += static_cast<char>(0xC0 | cp >> 6);
    out += static_cast<char>(0x80 | (cp & 63));
  } else if (cp < 0x10000) {
    out += static_cast<char>(0xE0 | cp >> 12);
    out += static_cast<char>(0x80 | (cp >> 6 & 63));
    out += static_cast<char>(0x80 | (cp & 63));
  } else {
    out += static_cast<char>(0xF0 | cp >> 18);
    out += static_cast<char>(0x80 | (cp >> 12 & 63));
    out += static_cast<char>(0x80 | (cp >> 6 & 63));
    out += static_cast<char>(0x80 | (cp & 63));
  }
}

std::string encode(uint32_t cp) {
  std::string out;
  append(out, cp);
  return out;
}

size_t count(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

size_t valid_prefix(std::string_view text) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  const auto *p = begin, *end = begin + text.size();
  while (p < end) {
    if (*p < 0x80) {
      ++p;
      continue;
    }
    const int n = sequence_at(p, end);
    if (n < 0) break;
    p += n;
  }
  return static_cast<size_t>(p - begin);
}

std::string to_valid(std::string_view text) {
  std::string out;
  while (true) {
    const size_t good = valid_prefix(text);
    out += text.substr(0, good);
    text.remove_prefix(good);
    if (text.empty()) return out;
    const auto* p = reinterpret_cast<const unsigned char*>(text.data());
    out += "\xEF\xBF\xBD";
    text.remove_prefix(static_cast<size_t>(-sequence_at(p, p + text.size())));
  }
}

size_t incomplete_suffix(std::string_view text) {
  const auto* begin = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = begin + text.size();
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const unsigned char c = *(end - back);
    if ((c & 0xC0) == 0x80) continue;
    const size_t needed = c < 0xC2 || c > 0xF4 ? 1 : sequence_length(c);
    return needed > back && sequence_at(end - back, end) == -static_cast<int>(back) ? back : 0;
  }
  return 0;
}

}  // namespace signround::unicode
