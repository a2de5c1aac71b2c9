#include "signround/text/byte_level.h"

#include <array>

#include "signround/text/unicode.h"

namespace signround {

namespace {

struct Tables {
  std::array<uint16_t, 256> to_char{};
  std::array<int16_t, 324> to_byte{};
  std::array<std::string, 256> utf8;
  Tables() {
    to_byte.fill(-1);
    uint16_t next = 256;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
      to_char[b] = printable ? static_cast<uint16_t>(b) : next++;
      to_byte[to_char[b]] = static_cast<int16_t>(b);
      utf8[b] = unicode::encode(to_char[b]);
    }
  }
};

const Tables& tables() {
  static const Tables t;
  return t;
}

}  // namespace

uint32_t byte_to_char(unsigned char byte) { return tables().to_char[byte]; }

int char_to_byte(uint32_t cp) { return cp < 324 ? tables().to_byte[cp] : -1; }

void append_byte_chars(std::string& out, std::string_view bytes) {
  for (const char b : bytes) out += tables().utf8[static_cast<unsigned char>(b)];
}

bool append_char_bytes(std::string& out, std::string_view text) {
  const size_t start = out.size();
  for (size_t i = 0; i < text.size();
       i += unicode::sequence_length(static_cast<unsigned char>(text[i]))) {
    const int byte = char_to_byte(unicode::decode(text.data() + i));
    if (byte < 0) {
      out.resize(start);
      return false;
    }
    out += static_cast<char>(byte);
  }
  return true;
}

}  // namespace signround
