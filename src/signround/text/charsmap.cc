#include "signround/text/charsmap.h"

#include <utf8proc.h>

#include <cstring>

#include "signround/base/error.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer charsmap";

// The fields of a unit of darts-clone: bit 8 says that a value follows, bits 0-7 and 31 are the
// label, the rest the offset.
bool has_value(uint32_t unit) { return unit >> 8 & 1; }
uint32_t value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t label(uint32_t unit) { return unit & 0x800000FFu; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }

}  // namespace

CharsMap::CharsMap(std::string_view blob) {
  uint32_t bytes = 0;
  if (blob.size() >= 4) std::memcpy(&bytes, blob.data(), 4);
  if (blob.size() < 4 || bytes % 4 != 0 || bytes > blob.size() - 4)
    fail(ErrorKind::kCorruptFile, kWhere, "the trie has ", bytes, " bytes of ", blob.size(),
         ", expected a multiple of 4 inside");
  units_.resize(bytes / 4);
  if (bytes > 0) std::memcpy(units_.data(), blob.data() + 4, bytes);
  replacements_ = blob.substr(4 + bytes);
}

std::optional<std::string_view> CharsMap::find(std::string_view text) const {
  if (units_.empty()) return std::nullopt;
  size_t at = offset(units_[0]);
  for (const char c : text) {
    if (c == 0) return std::nullopt;
    at ^= static_cast<unsigned char>(c);
    if (at >= units_.size() || label(units_[at]) != static_cast<unsigned char>(c))
      return std::nullopt;
    const uint32_t unit = units_[at];
    at ^= offset(unit);
    if (!has_value(unit)) continue;
    if (at >= units_.size() || value(units_[at]) > replacements_.size())
      fail(ErrorKind::kCorruptFile, kWhere, "the trie points behind its ", units_.size(), " units");
    const std::string_view rest = std::string_view(replacements_).substr(value(units_[at]));
    return rest.substr(0, rest.find('\0'));
  }
  return std::nullopt;
}

void CharsMap::apply(std::string& text) const {
  std::string out;
  out.reserve(text.size());
  const std::string_view all = text;
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin;
    int32_t state = 0;
    for (uint32_t last = 0; end < all.size();) {  // one grapheme
      const uint32_t cp = unicode::decode(all.data() + end);
      if (end > begin && utf8proc_grapheme_break_stateful(static_cast<int32_t>(last),
                                                          static_cast<int32_t>(cp), &state))
        break;
      last = cp;
      end += unicode::sequence_length(static_cast<unsigned char>(all[end]));
    }
    const std::string_view grapheme = all.substr(begin, end - begin);
    begin = end;
    if (grapheme.size() < 6) {
      if (const auto replacement = find(grapheme)) {
        out += *replacement;
        continue;
      }
    }
    for (size_t i = 0; i < grapheme.size();) {
      const size_t n = unicode::sequence_length(static_cast<unsigned char>(grapheme[i]));
      out += find(grapheme.substr(i, n)).value_or(grapheme.substr(i, n));
      i += n;
    }
  }
  if (unicode::valid_prefix(out) != out.size()) out = unicode::to_valid(out);
  text.swap(out);
}

bool CharsMap::removes_first(std::string_view text) const {
  const auto replacement = text.empty() ? std::nullopt : find(text);
  return replacement && replacement->empty();
}

std::string base64_decode(std::string_view text, const char* where) {
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t bits = 0;
  int count = 0;
  while (!text.empty() && text.back() == '=') text.remove_suffix(1);
  for (const char c : text) {
    static constexpr std::string_view kAlphabet =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                                             : static_cast<int>(kAlphabet.find(c, 62));
    if (digit < 0)
      fail(ErrorKind::kCorruptFile, where, "character ", static_cast<int>(c), " is not base64");
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (++count == 4) {
      out += static_cast<char>(bits >> 16);
      out += static_cast<char>(bits >> 8);
      out += static_cast<char>(bits);
      bits = 0;
      count = 0;
    }
  }
  if (count == 1)
    fail(ErrorKind::kCorruptFile, where, "base64 text ends after one digit of a group");
  if (count == 2) out += static_cast<char>(bits >> 4);
  if (count == 3) {
    out += static_cast<char>(bits >> 10);
    out += static_cast<char>(bits >> 2);
  }
  return out;
}

}  // namespace signround
