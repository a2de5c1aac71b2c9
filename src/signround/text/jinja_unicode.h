// Strings as Python sees them: sequences of code points, here stored as UTF-8. Positions and
// lengths are code points.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace signround::jinja {

// Offset of the first byte that is not part of valid UTF-8; npos: all is valid.
size_t find_invalid_utf8(std::string_view text);

// The code point that starts at byte `at`, which moves behind it. A byte that starts none gives
// U+FFFD.
char32_t next_code_point(std::string_view text, size_t& at);
// The code point that ends before byte `at`, which moves to its start.
char32_t previous_code_point(std::string_view text, size_t& at);
void append_code_point(std::string& out, char32_t c);

int64_t count_code_points(std::string_view text);
// Byte offset of code point `index`; text.size() where the text is shorter.
size_t byte_offset(std::string_view text, int64_t index);

// Byte offset of the first (last) occurrence at or after `from` (that ends at or before `end`);
// npos: there is none. Linear in the text, whatever the pattern.
size_t find_text(std::string_view text, std::string_view pattern, size_t from = 0);
size_t rfind_text(std::string_view text, std::string_view pattern,
                  size_t end = std::string_view::npos);

// Python's predicates on one code point.
bool is_space(char32_t c);
bool is_line_break(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
inline bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }
bool is_lower(char32_t c);
bool is_upper(char32_t c);
bool is_title(char32_t c);
inline bool is_cased(char32_t c) { return is_lower(c) || is_upper(c) || is_title(c); }
bool is_printable(char32_t c);
bool is_identifier_start(char32_t c);
bool is_identifier_part(char32_t c);

// Full case mappings: one code point may become three.
std::string to_lower(std::string_view text);
std::string to_upper(std::string_view text);
std::string to_casefold(std::string_view text);
std::string to_swapcase(std::string_view text);
std::string to_capitalized(
    std::string_view text);  // first code point in title case, the rest in lower case
std::string to_titlecased(
    std::string_view text);  // every word, where a word is a run of cased code points

// Without white space (or the code points in `chars`, where not null) at its ends.
std::string_view strip(std::string_view text, bool left, bool right,
                       const std::string_view* chars = nullptr);

}  // namespace signround::jinja
