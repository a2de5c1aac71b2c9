// Filters that take or give sequences.
#pragma once

#include "signround/text/jinja_value.h"

namespace signround::jinja::filters {

Value batch(Runtime& runtime, const Args& args);
Value dictsort(Runtime& runtime, const Args& args);
Value first(Runtime& runtime, const Args& args);
Value groupby(Runtime& runtime, const Args& args);
Value items(Runtime& runtime, const Args& args);
Value join(Runtime& runtime, const Args& args);
Value last(Runtime& runtime, const Args& args);
Value list(Runtime& runtime, const Args& args);
Value map(Runtime& runtime, const Args& args);
Value max(Runtime& runtime, const Args& args);
Value min(Runtime& runtime, const Args& args);
Value reject(Runtime& runtime, const Args& args);
Value rejectattr(Runtime& runtime, const Args& args);
Value reverse(Runtime& runtime, const Args& args);
Value select(Runtime& runtime, const Args& args);
Value selectattr(Runtime& runtime, const Args& args);
Value slice(Runtime& runtime, const Args& args);
Value sort(Runtime& runtime, const Args& args);
Value sum(Runtime& runtime, const Args& args);
Value unique(Runtime& runtime, const Args& args);

}  // namespace signround::jinja::filters
