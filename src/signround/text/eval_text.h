// The text that models are compared on when the user names none: web text that the built-in calibration set does not
// hold (text/data/README.md).
#pragma once

#include <string_view>

namespace signround {

std::string_view builtin_eval_text();

}  // namespace signround
