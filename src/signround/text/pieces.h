// What pre-tokenizers pass on: one text, cut into pieces. A step may cut finer, drop pieces, or
// rewrite the text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace signround {

struct Piece {
  size_t begin = 0;
  size_t end = 0;
};

struct PieceList {
  std::string text;  // valid UTF-8, unless the last step hands raw bytes to a byte-level model
  std::vector<Piece> pieces;  // in order, none empty
  bool at_origin = false;     // the first piece starts where the whole input starts

  std::string_view view(const Piece& p) const {
    return std::string_view(text).substr(p.begin, p.end - p.begin);
  }
};

}  // namespace signround
