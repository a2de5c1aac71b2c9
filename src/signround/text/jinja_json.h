// JSON in and out of templates.
#pragma once

#include <nlohmann/json.hpp>

#include "signround/text/jinja_value.h"

namespace signround::jinja {

// The filter tojson, as transformers defines it: no HTML escapes, characters beyond ASCII as they
// are.
Value to_json(Runtime& runtime, const Args& args);

// Keeps the order of keys.
Value from_json(Runtime& runtime, const nlohmann::ordered_json& json);

}  // namespace signround::jinja
