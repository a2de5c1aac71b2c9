#include "signround/text/eval_text.h"

asm(".pushsection .rodata\n"
    "signround_eval_text:\n"
    ".incbin \"" SIGNROUND_EVAL_TEXT
    "\"\n"
    "signround_eval_text_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" {
extern const char signround_eval_text[] __attribute__((visibility("hidden")));
extern const char signround_eval_text_end[] __attribute__((visibility("hidden")));
}

namespace signround {

std::string_view builtin_eval_text() {
  return {signround_eval_text, static_cast<size_t>(signround_eval_text_end - signround_eval_text)};
}

}  // namespace signround
