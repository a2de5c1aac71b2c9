#include "signround/text/jinja_template.h"

#include "signround/text/jinja_interpreter.h"
#include "signround/text/jinja_json.h"
#include "signround/text/jinja_parser.h"

namespace signround::jinja {

Template::Template(std::string where, std::string_view source) : program_(parse(where, source)) {}

Rendering Template::render(const nlohmann::ordered_json& variables,
                           const std::optional<std::tm>& now, const Limits& limits) const {
  Runtime runtime(program_.where, limits);
  runtime.now = now;
  std::vector<Value> values;
  for (const std::string& name : program_.names) {
    const auto given = variables.find(name);
    values.push_back(given != variables.end() ? from_json(runtime, *given)
                                              : find_global(runtime, name));
  }
  Interpreter interpreter(program_, runtime, std::move(values));
  Rendering result;
  result.text = interpreter.run();
  for (const auto& span : interpreter.generated())
    result.generated.push_back({span.begin, span.end});
  return result;
}

}  // namespace signround::jinja
