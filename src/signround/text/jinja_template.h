// The Jinja template language as chat templates use it: Jinja 3.1 in transformers' settings (an
// immutable sandbox, trim_blocks, lstrip_blocks, loop controls). A template can neither read files
// nor run for ever; what it asks for beyond the limits of jinja_runtime.h is an error.
#pragma once

#include <ctime>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "signround/text/jinja_ast.h"

namespace signround::jinja {

struct Rendering {
  struct Span {
    int64_t begin, end;
  };
  std::string text;
  std::vector<Span> generated;  // bytes of text that {% generation %} blocks wrote
};

class Template {
 public:
  // Error{kCorruptFile} or {kUnsupported} for what is no template; `where` names it in all
  // messages.
  Template(std::string where, std::string_view source);

  // `variables` is an object: the template's variables. `now` is the clock of strftime_now, empty
  // the system's. Thread-safe. Error{kInvalidArgument} where the template fails or raises.
  Rendering render(const nlohmann::ordered_json& variables, const std::optional<std::tm>& now = {},
                   const Limits& limits = {}) const;

 private:
  Program program_;
};

}  // namespace signround::jinja
