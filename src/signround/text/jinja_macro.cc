#include "signround/text/jinja_macro.h"

namespace signround::jinja {

bool LoopObject::fetch(Value& item) {
  if (rest_at < rest.size()) {
    item = rest[rest_at++];
    return true;
  }
  return pull && pull(item);
}

bool LoopObject::advance(Value& item) {
  if (has_after) {
    item = std::move(after);
    has_after = false;
  } else if (!fetch(item)) {
    return false;
  }
  ++index0;
  before = std::move(current);
  current = item;
  return true;
}

bool LoopObject::peek(Value& item) {
  if (!has_after) has_after = fetch(after);
  if (has_after) item = after;
  return has_after;
}

int64_t LoopObject::length() {
  if (known_length >= 0) return known_length;
  Items items(*runtime);
  for (Value item; pull && pull(item);) items.push(std::move(item));
  rest = items.take();
  known_length = static_cast<int64_t>(rest.size()) + index0 + 1 + (has_after ? 1 : 0);
  return known_length;
}

void LoopObject::finish() {
  pull = nullptr;
  rest.clear();
  after = Value();
  has_after = false;
}

std::string describe(const MacroObject& macro) { return "<Macro '" + macro.code.name + "'>"; }

std::string describe(LoopObject& loop) {
  return "<LoopContext " + std::to_string(loop.index0 + 1) + "/" + std::to_string(loop.length()) +
         ">";
}

}  // namespace signround::jinja
