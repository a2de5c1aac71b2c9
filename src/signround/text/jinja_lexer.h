// Template source to tokens, with Jinja's rules for white space: trim_blocks and lstrip_blocks are
// on, as in transformers.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "signround/text/jinja_value.h"

namespace signround::jinja {

enum class TokenKind : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  Position position;
  std::string text;  // data, name, operator, or the string's value
  Int integer = 0;
  double real = 0;
};

// Error{kCorruptFile} "[where] line L, column C: ..." for what is no template.
std::vector<Token> tokenize(const std::string& where, std::string_view source);

template <class... Parts>
[[noreturn]] void syntax_error(const std::string& where, Position at, const Parts&... parts) {
  fail(ErrorKind::kCorruptFile, where.c_str(), "line ", at.line, ", column ", at.column, ": ",
       parts...);
}

}  // namespace signround::jinja
