// What a rendering makes of macros, call blocks and loops.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "signround/text/jinja_ast.h"

namespace signround::jinja {

// The variables of one block. Names that are not here are looked up in the blocks around it.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables;
  bool captured = false;  // a macro refers to it, so it must live as long as the rendering

  Value* find(int name) {
    for (auto& [key, value] : variables)
      if (key == name) return &value;
    return nullptr;
  }
  void set(int name, Value value) {
    if (Value* old = find(name))
      *old = std::move(value);
    else
      variables.emplace_back(name, std::move(value));
  }
};

struct MacroObject : Object {
  MacroObject(Runtime* run, const MacroCode& macro, Scope& around)
      : Object(run, 96, 0), code(macro), scope(around) {}
  const MacroCode& code;
  Scope& scope;
};

// The variable `loop`. Items are pulled one by one, as Python's iterators are: the condition of a
// loop may read what its body has changed.
struct LoopObject : Object {
  using Pull = std::function<bool(Value&)>;
  LoopObject(Runtime* run, const Stmt& loop, Scope& around, int levels, Pull source, int64_t count)
      : Object(run, 512, 0),
        statement(loop),
        scope(around),
        depth0(levels),
        pull(std::move(source)),
        known_length(count) {}
  bool advance(Value& item);
  int64_t length();
  bool peek(Value& item);  // the item behind the current one
  void finish();           // drops the items: a template may keep the loop

  const Stmt& statement;
  Scope& scope;  // around the loop
  const int depth0;
  int64_t index0 = -1;
  Value current, before;
  std::vector<Value> last_changed;
  bool changed_called = false;

 private:
  bool fetch(Value& item);
  Pull pull;
  int64_t known_length;
  std::vector<Value> rest;  // pulled by length()
  size_t rest_at = 0;
  bool has_after = false;
  Value after;
};

// As Python prints them.
std::string describe(const MacroObject& macro);
std::string describe(LoopObject& loop);

}  // namespace signround::jinja
