// What the interpreter does at the begin and at the end of a level, a block, and a captured text.
#pragma once

#include <algorithm>

#include "signround/text/jinja_interpreter.h"

namespace signround::jinja {

class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    if (interpreter_.depth_ >= interpreter_.runtime_.limits.depth)
      interpreter_.runtime_.fail("calls and blocks nested deeper than ",
                                 interpreter_.runtime_.limits.depth, " levels");
    ++interpreter_.depth_;
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  Interpreter& interpreter_;
};

class Interpreter::BlockScope {
 public:
  BlockScope(Interpreter& interpreter, Scope* parent) : interpreter_(interpreter) {
    auto& free = interpreter_.free_scopes_;
    if (free.empty()) {
      interpreter_.runtime_.reserve(256);  // until the end: scopes are used again
      interpreter_.scopes_.push_back(std::make_unique<Scope>());
      free.push_back(interpreter_.scopes_.back().get());
    }
    scope_ = free.back();
    free.pop_back();
    scope_->parent = parent;
  }
  ~BlockScope() {
    if (scope_->captured) return;
    scope_->variables.clear();
    interpreter_.free_scopes_.push_back(scope_);
  }
  BlockScope(const BlockScope&) = delete;
  BlockScope& operator=(const BlockScope&) = delete;
  Scope& operator*() { return *scope_; }
  Scope* operator->() { return scope_; }

 private:
  Interpreter& interpreter_;
  Scope* scope_;
};

class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& interpreter)
      : interpreter_(interpreter), outer_(interpreter.out_), text_(interpreter.runtime_) {
    interpreter_.out_ = &text_;
  }
  ~Capture() { interpreter_.out_ = outer_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  // What was written; what follows goes to the outer text again.
  Value take() {
    interpreter_.out_ = outer_;
    return Value::string(interpreter_.runtime_, text_.take());
  }

 private:
  Interpreter& interpreter_;
  Text* const outer_;
  Text text_;
};

}  // namespace signround::jinja
