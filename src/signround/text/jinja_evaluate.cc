// Expressions and calls.
#include <algorithm>

#include "signround/text/jinja_interpreter.h"
#include "signround/text/jinja_interpreter_guards.h"

namespace signround::jinja {

Value Interpreter::eval(const Expr& expr, Scope& scope) {
  const Depth depth(*this);
  runtime_.step();
  switch (expr.kind) {
    case Expr::Kind::kConst:
      return expr.value;
    case Expr::Kind::kName:
      return lookup(expr.name, scope);
    case Expr::Kind::kTuple:
    case Expr::Kind::kList:
      return eval_items(expr, scope);
    case Expr::Kind::kDict:
      return eval_dict(expr, scope);
    case Expr::Kind::kAttribute: {
      const Value object = eval(*expr.args[0], scope);
      runtime_.position = expr.position;
      return get_attribute(runtime_, object, expr.text);
    }
    case Expr::Kind::kItem:
      return eval_item(expr, scope);
    case Expr::Kind::kSlice:
      return eval_slice(expr, scope);
    case Expr::Kind::kCall:
      return eval_call(expr, scope, nullptr);
    case Expr::Kind::kFilter:
      return eval_filter(expr, scope, nullptr);
    case Expr::Kind::kTest:
      return eval_test(expr, scope);
    case Expr::Kind::kBinary:
    case Expr::Kind::kNegate:
    case Expr::Kind::kPlus:
      return eval_binary(expr, scope);
    case Expr::Kind::kNot:
      return Value::boolean(!truthy(eval(*expr.args[0], scope)));
    case Expr::Kind::kAnd: {
      Value left = eval(*expr.args[0], scope);
      return truthy(left) ? eval(*expr.args[1], scope) : left;
    }
    case Expr::Kind::kOr: {
      Value left = eval(*expr.args[0], scope);
      return truthy(left) ? left : eval(*expr.args[1], scope);
    }
    case Expr::Kind::kCompare:
      return eval_compare(expr, scope);
    case Expr::Kind::kConcat:
      return eval_concat(expr, scope);
    case Expr::Kind::kConditional:
      if (truthy(eval(*expr.args[1], scope))) return eval(*expr.args[0], scope);
      if (expr.args[2]) return eval(*expr.args[2], scope);
      return Value::undefined(runtime_, "the inline if evaluated to false and has no else");
    case Expr::Kind::kAttributeRef:
      break;  // only a target
  }
  return Value();
}

Value Interpreter::lookup(int name, const Scope& scope) {
  for (const Scope* s = &scope; s != nullptr; s = s->parent)
    for (const auto& [key, value] : s->variables)
      if (key == name) return value;
  const Value& variable = variables_[static_cast<size_t>(name)];
  if (!variable.is_undefined()) return variable;
  return Value::undefined(runtime_,
                          "'" + program_.names[static_cast<size_t>(name)] + "' is undefined");
}

Value Interpreter::eval_items(const Expr& expr, Scope& scope) {
  Items items(runtime_);
  for (const ExprPtr& arg : expr.args) items.push(eval(*arg, scope));
  runtime_.position = expr.position;
  return expr.kind == Expr::Kind::kList ? Value::list(runtime_, items.take())
                                        : Value::tuple(runtime_, items.take());
}

Value Interpreter::eval_dict(const Expr& expr, Scope& scope) {
  std::vector<DictObject::Entry> entries;
  for (size_t i = 0; i < expr.args.size(); i += 2) {
    Value key = eval(*expr.args[i], scope);
    entries.emplace_back(std::move(key), eval(*expr.args[i + 1], scope));
  }
  runtime_.position = expr.position;
  return make_dict(runtime_, std::move(entries));
}

Value Interpreter::eval_item(const Expr& expr, Scope& scope) {
  const Value object = eval(*expr.args[0], scope);
  const Value key = eval(*expr.args[1], scope);
  runtime_.position = expr.position;
  return get_item(runtime_, object, key);
}

Value Interpreter::eval_slice(const Expr& expr, Scope& scope) {
  const Value object = eval(*expr.args[0], scope);
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i)
    bounds[i] = expr.args[i + 1] ? eval(*expr.args[i + 1], scope) : Value::none();
  runtime_.position = expr.position;
  return slice(runtime_, object, bounds[0], bounds[1], bounds[2]);
}

Value Interpreter::eval_binary(const Expr& expr, Scope& scope) {
  const Value left = eval(*expr.args[0], scope);
  if (expr.kind != Expr::Kind::kBinary) {
    runtime_.position = expr.position;
    return expr.kind == Expr::Kind::kNegate ? negate(runtime_, left) : plus(runtime_, left);
  }
  const Value right = eval(*expr.args[1], scope);
  runtime_.position = expr.position;
  return binary(runtime_, expr.op, left, right);
}

Value Interpreter::eval_compare(const Expr& expr, Scope& scope) {
  constexpr const char* kSymbols[] = {"==", "!=", "<", "<=", ">", ">=", "in", "not in"};
  Value left = eval(*expr.args[0], scope);
  for (size_t i = 0; i < expr.compares.size(); ++i) {
    Value right = eval(*expr.args[i + 1], scope);
    runtime_.position = expr.position;
    const CompareOp op = expr.compares[i];
    bool holds = false;
    if (op == CompareOp::kEq || op == CompareOp::kNe) {
      holds = equals(runtime_, left, right) == (op == CompareOp::kEq);
    } else if (op == CompareOp::kIn || op == CompareOp::kNotIn) {
      holds = contains(runtime_, right, left) == (op == CompareOp::kIn);
    } else {
      const int order = compare(runtime_, left, right, kSymbols[static_cast<int>(op)]);
      holds = op == CompareOp::kLt   ? order == -1
              : op == CompareOp::kLe ? order == -1 || order == 0
              : op == CompareOp::kGt ? order == 1
                                     : order == 0 || order == 1;
    }
    if (!holds) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::eval_concat(const Expr& expr, Scope& scope) {
  std::vector<Value> parts;
  for (const ExprPtr& arg : expr.args) parts.push_back(eval(*arg, scope));
  runtime_.position = expr.position;
  Text text(runtime_);
  for (const Value& part : parts) append_str(text, runtime_, part);
  return Value::string(runtime_, text.take());
}

void Interpreter::eval_args(const Expr& expr, Scope& scope, Args& args) {
  for (size_t i = 1; i < expr.args.size(); ++i)
    args.positional.push_back(eval(*expr.args[i], scope));
  if (expr.star) {
    const Value more = eval(*expr.star, scope);
    runtime_.position = expr.position;
    for (Value& value : collect(runtime_, more)) args.positional.push_back(std::move(value));
  }
  for (const auto& [name, value] : expr.named) args.named.emplace_back(name, eval(*value, scope));
  if (!expr.double_star) return;
  const Value more = eval(*expr.double_star, scope);
  runtime_.position = expr.position;
  if (!more.is(Kind::kDict))
    runtime_.fail("the argument after ** must be a mapping, not ", type_name(more));
  for (const auto& [key, value] : more.dict().entries) {
    if (!key.is_string()) runtime_.fail("keywords must be strings, not ", type_name(key));
    const auto same = [&key_text = key.text()](const auto& other) {
      return other.first == key_text;
    };
    if (std::any_of(expr.named.begin(), expr.named.end(), same))
      runtime_.fail("got multiple values for keyword argument '", key.text(), "'");
    args.named.emplace_back(key.text(), value);
  }
}

Value Interpreter::eval_call(const Expr& expr, Scope& scope, const Value* caller) {
  const Value callee = eval(*expr.args[0], scope);
  Args args;
  eval_args(expr, scope, args);
  if (caller != nullptr) args.named.emplace_back("caller", *caller);
  runtime_.position = expr.position;
  return call(callee, std::move(args));
}

Value Interpreter::eval_filter(const Expr& expr, Scope& scope, const Value* piped) {
  Args args;
  // The filters of a block are a chain whose innermost has no operand: it takes what the block
  // wrote.
  if (!expr.args[0])
    args.positional.push_back(*piped);
  else if (piped != nullptr && expr.args[0]->kind == Expr::Kind::kFilter)
    args.positional.push_back(eval_filter(*expr.args[0], scope, piped));
  else
    args.positional.push_back(eval(*expr.args[0], scope));
  eval_args(expr, scope, args);
  runtime_.position = expr.position;
  if (expr.filter == nullptr) runtime_.fail("there is no filter '", expr.text, "'");
  return expr.filter(runtime_, args);
}

Value Interpreter::eval_test(const Expr& expr, Scope& scope) {
  Args args;
  args.positional.push_back(eval(*expr.args[0], scope));
  eval_args(expr, scope, args);
  runtime_.position = expr.position;
  if (expr.test == nullptr) runtime_.fail("there is no test '", expr.text, "'");
  return Value::boolean(expr.test(runtime_, args));
}

Value Interpreter::call(const Value& callee, Args args) {
  const Depth depth(*this);
  switch (callee.kind()) {
    case Kind::kUndefined:
      fail_undefined(runtime_, callee);
    case Kind::kFunction:
      return callee.as<FunctionObject>().call(runtime_, args);
    case Kind::kMacro:
      return call_macro(callee.as<MacroObject>(), std::move(args));
    case Kind::kLoop:
      return call_loop(callee.as<LoopObject>(), args);
    case Kind::kJoiner: {
      const Params params(runtime_, "joiner", args, {});
      auto& joiner = callee.as<JoinerObject>();
      if (joiner.used) return joiner.separator;
      joiner.used = true;
      return Value::string(runtime_, "");
    }
    default:
      runtime_.fail("'", type_name(callee), "' object is not callable");
  }
}

Value Interpreter::call_macro(MacroObject& macro, Args args) {
  BlockScope scope(*this, &macro.scope);
  bind_macro_args(macro, args, *scope);
  Capture capture(*this);
  exec(macro.code.body, *scope);
  return capture.take();
}

void Interpreter::bind_macro_args(MacroObject& macro, Args& args, Scope& scope) {
  const MacroCode& code = macro.code;
  const size_t count = code.params.size();
  const auto take_named = [&args](std::string_view name, Value& value) {
    for (auto named = args.named.begin(); named != args.named.end(); ++named) {
      if (named->first != name) continue;
      value = std::move(named->second);
      args.named.erase(named);
      return true;
    }
    return false;
  };
  for (size_t i = 0; i < count; ++i) {
    Value value;
    const bool positional = i < args.positional.size();
    if (positional) {
      value = args.positional[i];
    } else if (!take_named(code.param_names[i], value)) {
      const size_t first_default = count - code.defaults.size();
      value = i >= first_default ? eval(*code.defaults[i - first_default], scope)
                                 : Value::undefined(runtime_, "parameter '" + code.param_names[i] +
                                                                  "' was not provided");
    }
    scope.set(code.params[i], std::move(value));
  }
  if (code.uses_caller) {
    Value caller;
    if (!take_named("caller", caller)) caller = Value::undefined(runtime_, "No caller defined");
    scope.set(program_.caller, std::move(caller));
  }
  if (code.uses_kwargs) {
    std::vector<DictObject::Entry> entries;
    for (auto& [name, value] : args.named)
      entries.emplace_back(Value::string(runtime_, name), std::move(value));
    scope.set(program_.kwargs, make_dict(runtime_, std::move(entries)));
  } else if (!args.named.empty()) {
    runtime_.fail("macro '", code.name, "' takes no keyword argument '", args.named[0].first, "'");
  }
  if (code.uses_varargs) {
    const auto first = std::min(args.positional.size(), count);
    scope.set(program_.varargs,
              Value::tuple(runtime_, {args.positional.begin() + static_cast<int64_t>(first),
                                      args.positional.end()}));
  } else if (args.positional.size() > count) {
    runtime_.fail("macro '", code.name, "' takes not more than ", count, " arguments");
  }
}

Value Interpreter::call_loop(LoopObject& loop, const Args& args) {
  const Params params(runtime_, "loop", args, {"iterable"}, 1);
  if (!loop.statement.recursive) runtime_.fail("the loop must be marked as recursive to be called");
  Capture capture(*this);
  run_loop(loop.statement, loop.scope, params[0], loop.depth0 + 1);
  return capture.take();
}

}  // namespace signround::jinja
