// SentencePiece's precompiled character map: a double-array trie (darts-clone) from byte strings to
// their replacements.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace signround {

class CharsMap {
 public:
  // `blob`: u32 byte size of the trie, its u32 units (all little endian), then the replacements,
  // each ended by NUL.
  explicit CharsMap(std::string_view blob);

  // Replacement of the shortest member that starts `text`.
  std::optional<std::string_view> find(std::string_view text) const;
  // Grapheme by grapheme as the reference does: a short grapheme as a whole if it is known, else
  // each character.
  void apply(std::string& text) const;
  // Whether apply drops the first character of `text`.
  bool removes_first(std::string_view text) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;
};

// Decodes base64; fails with `where` if a character or the length is wrong.
std::string base64_decode(std::string_view text, const char* where);

}  // namespace signround
