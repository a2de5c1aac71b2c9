// Statements; expressions are in jinja_evaluate.cc.
#include "signround/text/jinja_interpreter.h"

#include "signround/text/jinja_interpreter_guards.h"

namespace signround::jinja {

Interpreter::Interpreter(const Program& program, Runtime& runtime, std::vector<Value> variables)
    : program_(program), runtime_(runtime), variables_(std::move(variables)) {}

std::string Interpreter::run() {
  Text output(runtime_);
  out_ = &output;
  BlockScope scope(*this, nullptr);
  root_ = &*scope;
  exec(program_.body, *scope);
  return output.take();
}

Interpreter::Flow Interpreter::exec(const Body& body, Scope& scope) {
  for (const StmtPtr& stmt : body) {
    const Flow flow = exec(*stmt, scope);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec(const Stmt& stmt, Scope& scope) {
  const Depth depth(*this);
  runtime_.position = stmt.position;
  runtime_.step();
  switch (stmt.kind) {
    case Stmt::Kind::kText:
      out_->append(stmt.text);
      return Flow::kNormal;
    case Stmt::Kind::kOutput:
      exec_output(stmt, scope);
      return Flow::kNormal;
    case Stmt::Kind::kSet:
      assign(*stmt.target, eval(*stmt.exprs[0], scope), scope);
      return Flow::kNormal;
    case Stmt::Kind::kSetBlock:
      return exec_set_block(stmt, scope);
    case Stmt::Kind::kIf:
      return exec_if(stmt, scope);
    case Stmt::Kind::kFor:
      return exec_for(stmt, scope);
    case Stmt::Kind::kMacro:
      scope.set(stmt.name, make_macro(stmt.code, scope));
      return Flow::kNormal;
    case Stmt::Kind::kCallBlock:
      exec_call_block(stmt, scope);
      return Flow::kNormal;
    case Stmt::Kind::kFilterBlock:
      return exec_filter_block(stmt, scope);
    case Stmt::Kind::kWith:
      return exec_with(stmt, scope);
    case Stmt::Kind::kBlock: {
      BlockScope inner(*this, stmt.scoped ? &scope : root_);
      exec(stmt.body, *inner);
      return Flow::kNormal;
    }
    case Stmt::Kind::kGeneration:
      exec_generation(stmt, scope);
      return Flow::kNormal;
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

void Interpreter::exec_output(const Stmt& stmt, Scope& scope) {
  for (const ExprPtr& expr : stmt.exprs) {
    const Value value = eval(*expr, scope);
    runtime_.position = stmt.position;
    append_str(*out_, runtime_, value);
  }
}

Interpreter::Flow Interpreter::exec_set_block(const Stmt& stmt, Scope& scope) {
  BlockScope inner(*this, &scope);
  Capture capture(*this);
  const Flow flow = exec(stmt.body, *inner);
  if (flow != Flow::kNormal) return flow;
  Value value = capture.take();
  if (!stmt.exprs.empty()) value = eval_filter(*stmt.exprs[0], *inner, &value);
  assign(*stmt.target, std::move(value), scope);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_if(const Stmt& stmt, Scope& scope) {
  for (size_t i = 0; i < stmt.branches.size(); ++i)
    if (i >= stmt.exprs.size() || truthy(eval(*stmt.exprs[i], scope)))
      return exec(stmt.branches[i], scope);
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_for(const Stmt& stmt, Scope& scope) {
  const Value source = eval(*stmt.exprs[0], scope);
  runtime_.position = stmt.position;
  if (!stmt.recursive) return run_loop(stmt, scope, source, 0);
  Capture capture(*this);  // as a recursive loop's inner runs, its outermost one is a string before
                           // it is output
  run_loop(stmt, scope, source, 0);
  const Value text = capture.take();
  out_->append(text.text());
  return Flow::kNormal;
}

LoopObject::Pull Interpreter::loop_source(const Stmt& stmt, Scope& scope, const Value& source) {
  auto iteration = std::make_shared<Iteration>(runtime_, source);
  if (!stmt.exprs[1]) return [iteration](Value& item) { return iteration->next(item); };
  return [this, iteration, &stmt, &scope](Value& item) {
    while (iteration->next(item)) {
      BlockScope inner(*this, &scope);
      assign(*stmt.target, item, *inner);
      if (truthy(eval(*stmt.exprs[1], *inner))) return true;
    }
    return false;
  };
}

Interpreter::Flow Interpreter::run_loop(const Stmt& stmt, Scope& scope, const Value& source,
                                        int depth0) {
  const Depth depth(*this);
  const int64_t known_length = stmt.exprs[1] ? -1 : length_of(source);
  LoopObject::Pull pull = loop_source(stmt, scope, source);
  std::unique_ptr<LoopObject> hidden;
  LoopObject* loop = nullptr;
  if (stmt.uses_loop) {
    loop = &runtime_.own<LoopObject>(stmt, scope, depth0, std::move(pull), known_length);
  } else {
    hidden =
        std::make_unique<LoopObject>(&runtime_, stmt, scope, depth0, std::move(pull), known_length);
    loop = hidden.get();
  }
  bool completed = false;  // Jinja's else also runs where every round was left by break or continue
  for (Value item; loop->advance(item);) {
    BlockScope inner(*this, &scope);
    if (stmt.uses_loop) inner->set(program_.loop, Value::owned(Kind::kLoop, *loop));
    assign(*stmt.target, std::move(item), *inner);
    const Flow flow = exec(stmt.body, *inner);
    if (flow == Flow::kBreak) break;
    if (flow == Flow::kNormal) completed = true;
    runtime_.position = stmt.position;
  }
  loop->finish();
  if (completed || stmt.branches.empty()) return Flow::kNormal;
  BlockScope inner(*this, &scope);
  return exec(stmt.branches[0], *inner);
}

Interpreter::Flow Interpreter::exec_filter_block(const Stmt& stmt, Scope& scope) {
  BlockScope inner(*this, &scope);
  Value value;
  {
    Capture capture(*this);
    const Flow flow = exec(stmt.body, *inner);
    if (flow != Flow::kNormal) return flow;
    value = capture.take();
  }
  append_str(*out_, runtime_, eval_filter(*stmt.exprs[0], *inner, &value));
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_with(const Stmt& stmt, Scope& scope) {
  BlockScope inner(*this, &scope);
  for (size_t i = 0; i < stmt.targets.size(); ++i)
    assign(*stmt.targets[i], eval(*stmt.exprs[i], scope), *inner);
  return exec(stmt.body, *inner);
}

void Interpreter::exec_call_block(const Stmt& stmt, Scope& scope) {
  const Value caller = make_macro(stmt.code, scope);
  const Value result = eval_call(*stmt.exprs[0], scope, &caller);
  append_str(*out_, runtime_, result);
}

// transformers renders such a block as the body of a call block, and notes where its text stands.
void Interpreter::exec_generation(const Stmt& stmt, Scope& scope) {
  Value text;
  {
    BlockScope inner(*this, &scope);
    Capture capture(*this);
    exec(stmt.body, *inner);
    text = capture.take();
  }
  const int64_t begin = out_->size();
  out_->append(text.text());
  generated_.push_back({begin, out_->size()});
}

Value Interpreter::make_macro(const MacroCode& code, Scope& scope) {
  for (Scope* s = &scope; s != nullptr && !s->captured; s = s->parent) s->captured = true;
  return Value::owned(Kind::kMacro, runtime_.own<MacroObject>(code, scope));
}

void Interpreter::assign(const Expr& target, Value value, Scope& scope) {
  switch (target.kind) {
    case Expr::Kind::kName:
      scope.set(target.name, std::move(value));
      return;
    case Expr::Kind::kAttributeRef: {
      const Value object = lookup(target.name, scope);
      runtime_.position = target.position;
      if (!object.is(Kind::kNamespace))
        runtime_.fail("attributes can only be assigned on namespaces");
      if (target.text[0] == '_')
        runtime_.fail("a namespace's attribute must not start with an underscore");
      object.as<NamespaceObject>().attributes.set(Value::string(runtime_, target.text),
                                                  std::move(value));
      return;
    }
    default:
      assign_parts(target, value, scope);
  }
}

void Interpreter::assign_parts(const Expr& target, const Value& value, Scope& scope) {
  runtime_.position = target.position;
  const std::vector<Value> parts = collect(runtime_, value);
  if (parts.size() != target.args.size())
    runtime_.fail(parts.size(), " values cannot be assigned to ", target.args.size(), " variables");
  for (size_t i = 0; i < parts.size(); ++i) assign(*target.args[i], parts[i], scope);
}

}  // namespace signround::jinja
