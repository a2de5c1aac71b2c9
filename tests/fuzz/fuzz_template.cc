// Any bytes are a template that renders within its limits, or an Error. What stands before a zero
// byte is the source, what follows is the content of a message.
#include <string>

#include "signround/base/error.h"
#include "signround/text/jinja_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace signround;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const std::string source = bytes.substr(0, bytes.find('\0'));
  const std::string content = source.size() < bytes.size() ? bytes.substr(source.size() + 1) : "x";
  jinja::Limits limits;  // small, so that many inputs run in a second
  limits.steps = 100'000;
  limits.memory = 16 << 20;
  limits.string_bytes = 1 << 20;
  try {
    const jinja::Template parsed("fuzz", source);
    const nlohmann::ordered_json variables = {
        {"messages",
         {{{"role", "user"}, {"content", content}},
          {{"role", "assistant"}, {"content", {content, 1.5, nullptr}}}}},
        {"tools", {{{"name", "f"}, {"n", -3}}}}};
    parsed.render(variables, std::tm{}, limits);
  } catch (const Error&) {
  }
  return 0;
}
