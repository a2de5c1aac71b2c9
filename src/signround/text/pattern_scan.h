// Hand-written scanners for the split patterns of the best-known tokenizers: the same pieces as the
// regular expression, several times faster. Each pattern matches every character of a text, so the
// matches are the pieces.
#pragma once

#include <string_view>
#include <vector>

#include "signround/text/pieces.h"

namespace signround {

enum class KnownPattern { kNone, kGpt2, kLlama3, kQwen2 };

// Which known pattern this is, by its exact text.
KnownPattern known_pattern(std::string_view regex);

// The text of a known pattern. GPT-2's is the one that the ByteLevel pre-tokenizer implies.
std::string_view pattern_text(KnownPattern pattern);

// Appends the matches in text[begin, end). REQUIRES: valid UTF-8, pattern != kNone.
void scan_pattern(KnownPattern pattern, std::string_view text, size_t begin, size_t end,
                  std::vector<Piece>& out);

}  // namespace signround
