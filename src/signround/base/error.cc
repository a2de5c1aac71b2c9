#include "signround/base/error.h"

#include <algorithm>
#include <sstream>

namespace signround {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInternal:
      return 1;
    case ErrorKind::kInvalidArgument:
      return 2;
    case ErrorKind::kCorruptFile:
      return 3;
    case ErrorKind::kUnsupported:
      return 4;
    case ErrorKind::kIo:
      return 5;
    case ErrorKind::kBusy:
      return 6;
    case ErrorKind::kMemory:
      return 7;
    case ErrorKind::kDevice:
      return 8;
    case ErrorKind::kStrict:
      return 9;
    case ErrorKind::kInterrupted:
      return 130;
  }
  return 1;
}

namespace {

// Bytes of the character that `text` begins with; 0 if that is no UTF-8 (overlong forms, surrogates
// and what lies behind U+10FFFF are none).
size_t character_length(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const size_t length = first < 0xc2   ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length == 0 || length > text.size()) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((at(i) & 0xc0) != 0x80) return 0;
  const unsigned second = at(1);
  const bool wrong = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
                     (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
  return wrong ? 0 : length;
}

}  // namespace

std::string excerpt(std::string_view text, size_t limit) {
  constexpr const char* kHex = "0123456789abcdef";
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = character_length(text.substr(i, 4));
    if (i + std::max<size_t>(length, 1) > limit) return out + "...";
    const auto byte = static_cast<unsigned char>(text[i]);
    if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
      ++i;
    } else {
      out += text.substr(i, length);
      i += length;
    }
  }
  return out;
}

void fail_with(ErrorKind kind, const char* where, std::initializer_list<ErrorPart> parts) {
  std::ostringstream text;
  text << '[' << where << "] ";
  for (const ErrorPart& part : parts) text << part;
  throw Error(kind, text.str());
}

}  // namespace signround
