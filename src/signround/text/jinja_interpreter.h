// Runs a parsed template.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "signround/text/jinja_ast.h"
#include "signround/text/jinja_macro.h"

namespace signround::jinja {

// The functions that every template has: range, dict, namespace, cycler, joiner, raise_exception,
// strftime_now. Undefined where there is none of this name.
Value find_global(Runtime& runtime, std::string_view name);

class Interpreter {
 public:
  struct Span {
    int64_t begin, end;  // bytes of the output
  };

  // `variables` are by Program::names; an undefined one is not there.
  Interpreter(const Program& program, Runtime& runtime, std::vector<Value> variables);
  std::string run();
  const std::vector<Span>& generated() const {
    return generated_;
  }  // what {% generation %} blocks wrote

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  class Depth;       // one more level of evaluation
  class BlockScope;  // a scope for the duration of a block
  class Capture;     // output to a string of its own

  Flow exec(const Body& body, Scope& scope);
  Flow exec(const Stmt& stmt, Scope& scope);
  void exec_output(const Stmt& stmt, Scope& scope);
  Flow exec_set_block(const Stmt& stmt, Scope& scope);
  Flow exec_if(const Stmt& stmt, Scope& scope);
  Flow exec_for(const Stmt& stmt, Scope& scope);
  Flow run_loop(const Stmt& stmt, Scope& scope, const Value& source, int depth0);
  LoopObject::Pull loop_source(const Stmt& stmt, Scope& scope, const Value& source);
  Flow exec_filter_block(const Stmt& stmt, Scope& scope);
  Flow exec_with(const Stmt& stmt, Scope& scope);
  void exec_call_block(const Stmt& stmt, Scope& scope);
  void exec_generation(const Stmt& stmt, Scope& scope);
  Value make_macro(const MacroCode& code, Scope& scope);
  void assign(const Expr& target, Value value, Scope& scope);
  void assign_parts(const Expr& target, const Value& value, Scope& scope);

  Value eval(const Expr& expr, Scope& scope);
  Value lookup(int name, const Scope& scope);
  Value eval_items(const Expr& expr, Scope& scope);
  Value eval_dict(const Expr& expr, Scope& scope);
  Value eval_item(const Expr& expr, Scope& scope);
  Value eval_slice(const Expr& expr, Scope& scope);
  Value eval_call(const Expr& expr, Scope& scope, const Value* caller);
  Value eval_filter(const Expr& expr, Scope& scope, const Value* piped);
  Value eval_test(const Expr& expr, Scope& scope);
  Value eval_binary(const Expr& expr, Scope& scope);
  Value eval_compare(const Expr& expr, Scope& scope);
  Value eval_concat(const Expr& expr, Scope& scope);
  void eval_args(const Expr& expr, Scope& scope, Args& args);

  Value call(const Value& callee, Args args);
  Value call_macro(MacroObject& macro, Args args);
  void bind_macro_args(MacroObject& macro, Args& args, Scope& scope);
  Value call_loop(LoopObject& loop, const Args& args);

  const Program& program_;
  Runtime& runtime_;
  const std::vector<Value> variables_;
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<Scope*> free_scopes_;
  Scope* root_ = nullptr;
  Text* out_ = nullptr;
  int depth_ = 0;
  std::vector<Span> generated_;
};

}  // namespace signround::jinja
