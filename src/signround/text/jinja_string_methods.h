// Python's string methods, also behind the filters of the same names.
#pragma once

#include <string_view>

#include "signround/text/jinja_value.h"

namespace signround::jinja {

using StringMethod = Value (*)(Runtime&, const StringObject& self, const Args&);
// nullptr: strings have no such method here. encode is left out: templates see no bytes.
StringMethod find_string_method(std::string_view name);

// The result of a method: marked as safe where its string was.
Value like(Runtime& runtime, const StringObject& self, std::string text);
std::string replace_text(Runtime& runtime, std::string_view text, std::string_view old,
                         std::string_view with, int64_t count);
std::string center_text(Runtime& runtime, const StringObject& self, int64_t width,
                        std::string_view fill);
void split_lines(Runtime& runtime, std::string_view text, bool keep_ends, Pieces& lines);
std::string strip_chars(Runtime& runtime, const StringObject& self, const Value* chars, bool left,
                        bool right);
bool is_lower_text(std::string_view text);
bool is_upper_text(std::string_view text);

}  // namespace signround::jinja
