// UTF-8 and the character classes that tokenizers ask for, one table look-up per character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace signround::unicode {

// Categories are those of Unicode 16, as in the reference's regular expressions. The reference's
// own code knows other versions of Unicode; the classes marked (own) follow it character by
// character.
enum Class : uint16_t {
  kLetter = 1,        // general category L*
  kNumber = 2,        // N*
  kSpace = 4,         // property White_Space
  kMark = 8,          // M* (own)
  kNonspacing = 16,   // Mn (own)
  kPunctuation = 32,  // P* beyond ASCII (own)
  kControl = 64,      // Cc, Cf, Co but not tab and line ends (own)
  kWord = 128,        // Alphabetic, M*, Nd, Pc, join controls (own)
  kNumeric = 256,     // N* (own)
};

// Classes of all code points, indexed by code point (0x110000 entries, built at the first call).
const uint16_t* class_table();
inline uint16_t classes(uint32_t cp) { return class_table()[cp]; }

// Bytes of the UTF-8 sequence that starts with `lead`. REQUIRES: valid UTF-8.
inline size_t sequence_length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Code point at p. REQUIRES: valid UTF-8.
inline uint32_t decode(const char* p) {
  const auto* u = reinterpret_cast<const unsigned char*>(p);
  if (u[0] < 0x80) return u[0];
  if (u[0] < 0xE0) return (u[0] & 31u) << 6 | (u[1] & 63u);
  if (u[0] < 0xF0) return (u[0] & 15u) << 12 | (u[1] & 63u) << 6 | (u[2] & 63u);
  return (u[0] & 7u) << 18 | (u[1] & 63u) << 12 | (u[2] & 63u) << 6 | (u[3] & 63u);
}

// Start of the character that ends before p. REQUIRES: valid UTF-8, and p is not the start of the
// text.
inline const char* previous(const char* p) {
  do --p;
  while ((static_cast<unsigned char>(*p) & 0xC0) == 0x80);
  return p;
}

// Simple lower case of a character.
uint32_t lower(uint32_t cp);
// Whether the reference's normal forms leave this character as it is although Unicode decomposes
// it.
bool is_not_decomposed(uint32_t cp);
// Ranges of the general category `name` (one letter or two) that Unicode 14 does not have.
std::vector<std::pair<uint32_t, uint32_t>> newer_in_category(std::string_view name);

void append(std::string& out, uint32_t cp);
std::string encode(uint32_t cp);
size_t count(std::string_view text);  // code points

// Length of the longest prefix that is valid UTF-8.
size_t valid_prefix(std::string_view text);
// Every maximal ill-formed part becomes U+FFFD, as Unicode recommends (chapter 3.9) and Rust and
// Python do.
std::string to_valid(std::string_view text);
// Length of an incomplete but so far correct UTF-8 sequence at the end of `text`; 0 if there is
// none.
size_t incomplete_suffix(std::string_view text);

inline bool is_ascii_punctuation(uint32_t cp) {
  return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) ||
         (cp >= 123 && cp <= 126);
}

}  // namespace signround::unicode
