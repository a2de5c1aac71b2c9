#pragma once

#include "signround/text/jinja_value.h"

namespace signround::jinja {

// The global function lipsum(n=5, html=true, min=20, max=100): n paragraphs of min to max - 1
// words.
Value lipsum(Runtime& runtime, const Args& args);

}  // namespace signround::jinja
