#include "signround/text/html_entities.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "signround/text/jinja_unicode.h"

namespace signround {
namespace {

constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
#include "signround/text/html_entities.inc"
};
constexpr size_t kLongestName = 32;  // code points, without the semicolon

// What Windows-1252 has at 0x80 to 0x9F, which is what such numbers mean in HTML.
constexpr char32_t kWindows1252[32] = {
    0x20AC, 0x81,   0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160,
    0x2039, 0x0152, 0x8D,   0x017D, 0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0x9D,   0x017E, 0x0178};

const std::string_view* find_entity(std::string_view name) {
  const auto* found =
      std::lower_bound(std::begin(kEntities), std::end(kEntities), name,
                       [](const auto& entity, std::string_view key) { return entity.first < key; });
  return found != std::end(kEntities) && found->first == name ? &found->second : nullptr;
}

void append_number(std::string& out, uint32_t number) {
  if (number == 0 || (number >= 0xD800 && number <= 0xDFFF) || number > 0x10FFFF)
    return jinja::append_code_point(out, 0xFFFD);
  if (number >= 0x80 && number <= 0x9F)
    return jinja::append_code_point(out, kWindows1252[number - 0x80]);
  const bool control = number <= 8 || number == 0xB || (number >= 0xE && number <= 0x1F) ||
                       number == 0x7F || (number >= 0xFDD0 && number <= 0xFDEF) ||
                       (number & 0xFFFE) == 0xFFFE;
  if (!control) jinja::append_code_point(out, number);
}

int digit_of(char c, uint32_t base) {
  const int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : 99;
  return digit < static_cast<int>(base) ? digit : -1;
}

// A number behind "&#"; false where there is none. `at` moves behind it.
bool append_numeric(std::string& out, std::string_view text, size_t& at) {
  size_t end = at;
  const uint32_t base = end < text.size() && (text[end] == 'x' || text[end] == 'X') ? 16 : 10;
  end += base == 16 ? 1 : 0;
  const size_t first = end;
  uint32_t number = 0;
  for (int digit; end < text.size() && (digit = digit_of(text[end], base)) >= 0; ++end)
    number = std::min<uint32_t>(number * base + static_cast<uint32_t>(digit), 0x110000);
  if (end == first) return false;
  append_number(out, number);
  at = end + (end < text.size() && text[end] == ';' ? 1 : 0);
  return true;
}

// A name behind "&": the whole of it, else its longest start that is one.
void append_named(std::string& out, std::string_view text, size_t& at) {
  size_t end = at;
  for (size_t length = 0; end < text.size() && length < kLongestName &&
                          std::string_view("\t\n\f <&#;").find(text[end]) == std::string_view::npos;
       ++length)
    jinja::next_code_point(text, end);
  if (end > at && end < text.size() && text[end] == ';') ++end;
  const std::string_view name = text.substr(at, end - at);
  at = end;
  for (size_t length = name.size(); length >= 2; --length) {
    const std::string_view* found = find_entity(name.substr(0, length));
    if (found == nullptr) continue;
    out += *found;
    out += name.substr(length);
    return;
  }
  out += '&';
  out += name;
}

}  // namespace

std::string unescape_html(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const size_t ampersand = std::min(text.find('&', at), text.size());
    out += text.substr(at, ampersand - at);
    at = ampersand + 1;
    if (ampersand == text.size()) break;
    if (at == text.size() || text[at] != '#') {
      append_named(out, text, at);
    } else if (!append_numeric(out, text, ++at)) {
      out += "&#";
    }
  }
  return out;
}

}  // namespace signround
