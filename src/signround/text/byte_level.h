// GPT-2's printable stand-ins for bytes: printable Latin-1 characters stand for themselves, the
// other 68 bytes for U+0100 and up, in order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace signround {

uint32_t byte_to_char(unsigned char byte);
int char_to_byte(uint32_t cp);  // -1: stands for no byte
// Every byte of `bytes` as its stand-in, appended to `out`.
void append_byte_chars(std::string& out, std::string_view bytes);
// The bytes that `text` stands for, appended to `out`; false (and `out` unchanged) if a character
// stands for none.
bool append_char_bytes(std::string& out, std::string_view text);

}  // namespace signround
