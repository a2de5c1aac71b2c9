// Unicode normal forms, linear in the length of the text (utf8proc_map sorts combining marks by
// exchange, which is not).
#pragma once

#include <string>

namespace signround {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// REQUIRES: valid UTF-8.
void to_normal_form(NormalForm form, std::string& text);

}  // namespace signround
