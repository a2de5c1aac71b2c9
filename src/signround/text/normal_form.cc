#include "signround/text/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "signround/base/error.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

void decompose(uint32_t cp, bool compatible, CodePoints& out) {
  if (unicode::is_not_decomposed(cp)) return out.push_back(static_cast<utf8proc_int32_t>(cp));
  utf8proc_int32_t buffer[32];  // the longest decomposition (U+FDFA) has 18
  int last_boundary = 0;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(cp), buffer, 32, options,
                                         &last_boundary);
  if (n < 0 || n > 32)
    fail(ErrorKind::kInternal, "normal form", "utf8proc cannot decompose code point ", cp);
  out.insert(out.end(), buffer, buffer + n);
}

auto combining_class(utf8proc_int32_t cp) { return utf8proc_get_property(cp)->combining_class; }

// Every run of combining marks, sorted by class; marks of one class keep their order.
void sort_marks(CodePoints& text) {
  for (size_t i = 0; i < text.size();) {
    if (combining_class(text[i]) == 0) {
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && combining_class(text[end]) != 0) ++end;
    std::stable_sort(text.begin() + static_cast<int64_t>(i),
                     text.begin() + static_cast<int64_t>(end),
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    i = end;
  }
}

// Characters that NFC leaves as they are wherever they stand: class 0, stable alone, never the
// second of a composition.
const std::vector<bool>& nfc_safe() {
  static const std::vector<bool> safe = [] {
    std::vector<bool> t(0x110000, true);
    CodePoints parts;
    for (uint32_t cp = 0; cp < t.size(); ++cp) {
      const auto* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(cp));
      if (property->combining_class != 0) t[cp] = false;
      if (property->decomp_seqindex == UINT16_MAX) continue;
      parts.clear();
      decompose(cp, false, parts);
      for (size_t i = 1; i < parts.size(); ++i) t[static_cast<size_t>(parts[i])] = false;
      const auto n = utf8proc_normalize_utf32(
          parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
      if (n != 1 || parts[0] != static_cast<utf8proc_int32_t>(cp)) t[cp] = false;
    }
    for (uint32_t cp = 0x1161; cp <= 0x11C2; ++cp)
      t[cp] = false;  // Hangul vowels and final consonants
    return t;
  }();
  return safe;
}

bool is_nfc(const std::string& text) {
  const std::vector<bool>& safe = nfc_safe();
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0xC0) {
      ++i;
      continue;
    }
    if (!safe[unicode::decode(text.data() + i)]) return false;
    i += unicode::sequence_length(c);
  }
  return true;
}

}  // namespace

void to_normal_form(NormalForm form, std::string& text) {
  const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  if (std::all_of(text.begin(), text.end(),
                  [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return;
  if (form == NormalForm::kNfc && is_nfc(text)) return;
  CodePoints points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size();
       i += unicode::sequence_length(static_cast<unsigned char>(text[i])))
    decompose(unicode::decode(text.data() + i), compatible, points);
  sort_marks(points);
  size_t n = points.size();
  if (compose)
    n = static_cast<size_t>(utf8proc_normalize_utf32(
        points.data(), static_cast<utf8proc_ssize_t>(n),
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE)));
  text.clear();
  for (size_t i = 0; i < n; ++i) unicode::append(text, static_cast<uint32_t>(points[i]));
}

}  // namespace signround
