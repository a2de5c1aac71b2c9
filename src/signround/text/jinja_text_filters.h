// Filters that lay text out, and those that know HTML.
#pragma once

#include "signround/text/jinja_value.h"

namespace signround::jinja::filters {

Value pprint(Runtime& runtime, const Args& args);
Value random(Runtime& runtime, const Args& args);
Value striptags(Runtime& runtime, const Args& args);
Value urlize(Runtime& runtime, const Args& args);
Value wordwrap(Runtime& runtime, const Args& args);

}  // namespace signround::jinja::filters
