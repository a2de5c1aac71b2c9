// Tokens to the tree that the interpreter walks. The grammar is Jinja 3.1's, with the tags of the
// loopcontrols extension and transformers' {% generation %}; what would read other files (include,
// import, extends) is an error.
#pragma once

#include "signround/text/jinja_ast.h"

namespace signround::jinja {

// Error{kCorruptFile} or {kUnsupported} "[where] line L, column C: ...".
Program parse(const std::string& where, std::string_view source);

}  // namespace signround::jinja
