#include "signround/text/jinja_parser_state.h"

namespace signround::jinja {

void ParserState::expect_op(std::string_view op) {
  if (!skip_op(op)) error("unexpected ", describe(current()), ", '", op, "' expected");
}

std::string ParserState::expect_name() {
  if (current().kind != TokenKind::kName)
    error("unexpected ", describe(current()), ", a name expected");
  return take().text;
}

std::string ParserState::describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kEnd:
      return "end of the template";
    default:
      return "'" + token.text + "'";
  }
}

int ParserState::symbol(const std::string& name) {
  const auto [entry, added] = symbols_.emplace(name, static_cast<int>(program_.names.size()));
  if (added) program_.names.push_back(name);
  return entry->second;
}

void ParserState::note_load(const std::string& name) {
  if (name == "loop")
    for (Stmt* loop : loops_) loop->uses_loop = true;
  if (name != "caller" && name != "kwargs" && name != "varargs") return;
  for (Function& function : functions_) {
    if (function.code == nullptr || function.hidden.count(name) != 0) continue;
    if (name == "caller") function.code->uses_caller = true;
    if (name == "kwargs") function.code->uses_kwargs = true;
    if (name == "varargs") function.code->uses_varargs = true;
  }
}

void ParserState::note_store(const std::string& name) {
  if (name == "loop" && !loops_.empty())
    error("the variable 'loop' cannot be assigned in a for loop");
  for (Function& function : functions_) function.hidden.insert(name);
}

ExprPtr ParserState::make(Expr::Kind kind, Position position) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->position = position;
  return expr;
}

ExprPtr ParserState::finish(ExprPtr expr) {
  int depth = 0;
  const auto look = [&depth](const ExprPtr& part) {
    if (part) depth = std::max(depth, part->depth);
  };
  for (const ExprPtr& arg : expr->args) look(arg);
  for (const auto& [name, value] : expr->named) look(value);
  look(expr->star);
  look(expr->double_star);
  expr->depth = depth + 1;
  if (expr->depth > kMaxExpressionDepth)
    error("an expression is nested deeper than ", kMaxExpressionDepth, " levels");
  return expr;
}

}  // namespace signround::jinja
