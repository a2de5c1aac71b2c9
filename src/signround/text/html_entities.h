// HTML's character references, as Python's html.unescape reads them.
#pragma once

#include <string>
#include <string_view>

namespace signround {

// `text` with &name; &#10; and &#xA; replaced, also where the semicolon is missing and HTML 5 says
// that they count. Text and result are UTF-8; the result is at most twice as long.
std::string unescape_html(std::string_view text);

}  // namespace signround
