// The Unicode property Script as the UnicodeScripts pre-tokenizer sees it.
#pragma once

#include <cstdint>

namespace signround {

inline constexpr int kScriptAny = 0;  // a space, or a character of no known script

// A number that is the same for characters of one script; Hiragana, Katakana and U+30FC count as
// Han.
int unicode_script_of_pre_tokenizer(uint32_t cp);

}  // namespace signround
