// Expressions, in the order of their precedence: each function parses one level and calls the next.
#include <algorithm>

#include "signround/text/jinja_parser_state.h"

namespace signround::jinja {

ExprPtr ParserState::parse_expression(bool with_conditional) {
  const Nesting nesting(*this);
  return with_conditional ? parse_conditional() : parse_or();
}

ExprPtr ParserState::parse_conditional() {
  const size_t unknown = unknown_.size();
  ExprPtr value = parse_or();
  bool conditional = false;
  while (at_name("if")) {
    conditional = true;
    ExprPtr expr = make(Expr::Kind::kConditional, take().position);
    expr->args.push_back(std::move(value));
    expr->args.push_back(parse_or());
    expr->args.push_back(skip_name("else") ? parse_expression() : nullptr);
    value = finish(std::move(expr));
  }
  if (conditional) unknown_.resize(std::min(unknown, unknown_.size()));
  return value;
}

ExprPtr ParserState::parse_or() {
  ExprPtr left = parse_and();
  while (at_name("or")) {
    ExprPtr expr = make(Expr::Kind::kOr, take().position);
    expr->args.push_back(std::move(left));
    expr->args.push_back(parse_and());
    left = finish(std::move(expr));
  }
  return left;
}

ExprPtr ParserState::parse_and() {
  ExprPtr left = parse_not();
  while (at_name("and")) {
    ExprPtr expr = make(Expr::Kind::kAnd, take().position);
    expr->args.push_back(std::move(left));
    expr->args.push_back(parse_not());
    left = finish(std::move(expr));
  }
  return left;
}

ExprPtr ParserState::parse_not() {
  if (!at_name("not")) return parse_compare();
  const Nesting nesting(*this);
  ExprPtr expr = make(Expr::Kind::kNot, take().position);
  expr->args.push_back(parse_not());
  return finish(std::move(expr));
}

ExprPtr ParserState::parse_compare() {
  constexpr std::pair<std::string_view, CompareOp> kOps[] = {
      {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<=", CompareOp::kLe},
      {">=", CompareOp::kGe}, {"<", CompareOp::kLt},  {">", CompareOp::kGt}};
  ExprPtr first = parse_sum();
  ExprPtr expr;
  while (true) {
    const Position position = current().position;
    const auto* op = std::find_if(std::begin(kOps), std::end(kOps),
                                  [this](const auto& row) { return at_op(row.first); });
    CompareOp compare = CompareOp::kIn;
    if (op != std::end(kOps)) {
      take();
      compare = op->second;
    } else if (at_name("not") && ahead().kind == TokenKind::kName && ahead().text == "in") {
      take();
      take();
      compare = CompareOp::kNotIn;
    } else if (!skip_name("in")) {
      break;
    }
    if (!expr) {
      expr = make(Expr::Kind::kCompare, position);
      expr->args.push_back(std::move(first));
    }
    expr->compares.push_back(compare);
    expr->args.push_back(parse_sum());
  }
  return expr ? finish(std::move(expr)) : std::move(first);
}

ExprPtr ParserState::parse_sum() {
  ExprPtr left = parse_concat();
  while (at_op("+") || at_op("-")) {
    const Token& op = take();
    ExprPtr expr = make(Expr::Kind::kBinary, op.position);
    expr->op = op.text == "+" ? BinaryOp::kAdd : BinaryOp::kSub;
    expr->args.push_back(std::move(left));
    expr->args.push_back(parse_concat());
    left = finish(std::move(expr));
  }
  return left;
}

ExprPtr ParserState::parse_concat() {
  ExprPtr first = parse_product();
  if (!at_op("~")) return first;
  ExprPtr expr = make(Expr::Kind::kConcat, current().position);
  expr->args.push_back(std::move(first));
  while (skip_op("~")) expr->args.push_back(parse_product());
  return finish(std::move(expr));
}

ExprPtr ParserState::parse_product() {
  constexpr std::pair<std::string_view, BinaryOp> kOps[] = {{"*", BinaryOp::kMul},
                                                            {"/", BinaryOp::kDiv},
                                                            {"//", BinaryOp::kFloorDiv},
                                                            {"%", BinaryOp::kMod}};
  ExprPtr left = parse_power();
  while (true) {
    const auto* op = std::find_if(std::begin(kOps), std::end(kOps),
                                  [this](const auto& row) { return at_op(row.first); });
    if (op == std::end(kOps)) return left;
    ExprPtr expr = make(Expr::Kind::kBinary, take().position);
    expr->op = op->second;
    expr->args.push_back(std::move(left));
    expr->args.push_back(parse_power());
    left = finish(std::move(expr));
  }
}

// Jinja's ** goes from left to right, unlike Python's.
ExprPtr ParserState::parse_power() {
  ExprPtr left = parse_unary();
  while (at_op("**")) {
    ExprPtr expr = make(Expr::Kind::kBinary, take().position);
    expr->op = BinaryOp::kPow;
    expr->args.push_back(std::move(left));
    expr->args.push_back(parse_unary());
    left = finish(std::move(expr));
  }
  return left;
}

ExprPtr ParserState::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  ExprPtr expr;
  if (at_op("-") || at_op("+")) {
    const Token& op = take();
    expr = make(op.text == "-" ? Expr::Kind::kNegate : Expr::Kind::kPlus, op.position);
    expr->args.push_back(parse_unary(false));
    expr = finish(std::move(expr));
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filter ? parse_filter_expr(std::move(expr)) : std::move(expr);
}

ExprPtr ParserState::parse_primary(bool with_attributes) {
  const Token& token = current();
  switch (token.kind) {
    case TokenKind::kName:
      return parse_name(with_attributes);
    case TokenKind::kString: {
      ExprPtr expr = make(Expr::Kind::kConst, token.position);
      std::string text;
      while (current().kind == TokenKind::kString) text += take().text;
      expr->value = Value::constant(std::move(text));
      return expr;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      ExprPtr expr = make(Expr::Kind::kConst, token.position);
      expr->value = token.kind == TokenKind::kInteger ? Value::integer(token.integer)
                                                      : Value::real(token.real);
      take();
      return expr;
    }
    default:
      break;
  }
  if (skip_op("(")) {
    ExprPtr expr = parse_tuple(true, {}, true);
    expect_op(")");
    return expr;
  }
  if (at_op("[")) return parse_list();
  if (at_op("{")) return parse_dict();
  error("unexpected ", describe(token), ", an expression expected");
}

ExprPtr ParserState::parse_name(bool with_attributes) {
  const Token& token = take();
  const std::string& name = token.text;
  ExprPtr expr = make(Expr::Kind::kConst, token.position);
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    expr->value = Value::boolean(name == "true" || name == "True");
  } else if (name == "none" || name == "None") {
    expr->value = Value::none();
  } else {
    expr->kind = Expr::Kind::kName;
    expr->name = symbol(name);
    if (!in_target_) note_load(name);
    if (with_attributes && skip_op(".")) {
      expr->kind = Expr::Kind::kAttributeRef;
      expr->text = expect_name();
    }
  }
  return expr;
}

bool ParserState::at_tuple_end(std::string_view end_name) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         at_op(")") || (!end_name.empty() && at_name(end_name));
}

ExprPtr ParserState::parse_tuple(bool with_conditional, std::string_view end_name,
                                 bool parentheses) {
  const Position position = current().position;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    if (at_tuple_end(end_name)) break;
    items.push_back(parse_expression(with_conditional));
    if (!at_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !parentheses)
    error("unexpected ", describe(current()), ", an expression expected");
  ExprPtr expr = make(Expr::Kind::kTuple, position);
  expr->args = std::move(items);
  return finish(std::move(expr));
}

ExprPtr ParserState::parse_target(std::string_view end_name, bool with_attributes) {
  const Position position = current().position;
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) expect_op(",");
    if (at_tuple_end(end_name)) break;
    in_target_ = true;
    items.push_back(parse_primary(with_attributes));
    in_target_ = false;
    if (!at_op(",")) break;
    is_tuple = true;
  }
  if (items.empty()) error("unexpected ", describe(current()), ", a variable to assign expected");
  ExprPtr target;
  if (is_tuple) {
    target = make(Expr::Kind::kTuple, position);
    target->args = std::move(items);
    target = finish(std::move(target));
  } else {
    target = std::move(items[0]);
  }
  if (!mark_target(*target)) syntax_error(where_, position, "this cannot be assigned to");
  return target;
}

bool ParserState::mark_target(Expr& target) {
  switch (target.kind) {
    case Expr::Kind::kName:
      note_store(program_.names[static_cast<size_t>(target.name)]);
      return true;
    case Expr::Kind::kAttributeRef:
      return true;
    case Expr::Kind::kTuple:
      return std::all_of(target.args.begin(), target.args.end(),
                         [this](const ExprPtr& part) { return mark_target(*part); });
    default:
      return false;
  }
}

ExprPtr ParserState::parse_name_target() {
  const Position position = current().position;
  const std::string name = expect_name();
  if (name == "true" || name == "True" || name == "false" || name == "False" || name == "none" ||
      name == "None")
    syntax_error(where_, position, "'", name, "' cannot be assigned to");
  ExprPtr target = make(Expr::Kind::kName, position);
  target->name = symbol(name);
  return target;
}

ExprPtr ParserState::parse_list() {
  ExprPtr expr = make(Expr::Kind::kList, take().position);
  while (!at_op("]")) {
    if (!expr->args.empty()) expect_op(",");
    if (at_op("]")) break;
    expr->args.push_back(parse_expression());
  }
  expect_op("]");
  return finish(std::move(expr));
}

ExprPtr ParserState::parse_dict() {
  ExprPtr expr = make(Expr::Kind::kDict, take().position);
  while (!at_op("}")) {
    if (!expr->args.empty()) expect_op(",");
    if (at_op("}")) break;
    expr->args.push_back(parse_expression());
    expect_op(":");
    expr->args.push_back(parse_expression());
  }
  expect_op("}");
  return finish(std::move(expr));
}

ExprPtr ParserState::parse_postfix(ExprPtr expr) {
  while (true) {
    if (at_op(".") || at_op("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (at_op("(")) {
      ExprPtr call = make(Expr::Kind::kCall, current().position);
      call->args.push_back(std::move(expr));
      parse_call_args(*call);
      expr = finish(std::move(call));
    } else {
      return expr;
    }
  }
}

ExprPtr ParserState::parse_filter_expr(ExprPtr expr) {
  while (true) {
    if (at_op("|")) {
      expr = parse_filters(std::move(expr), false);
    } else if (at_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (at_op("(")) {
      ExprPtr call = make(Expr::Kind::kCall, current().position);
      call->args.push_back(std::move(expr));
      parse_call_args(*call);
      expr = finish(std::move(call));
    } else {
      return expr;
    }
  }
}

ExprPtr ParserState::parse_subscript(ExprPtr object) {
  const Token& open = take();
  ExprPtr expr = make(Expr::Kind::kItem, open.position);
  expr->args.push_back(std::move(object));
  if (open.text == ".") {
    const Token& token = current();
    if (token.kind == TokenKind::kName) {
      expr->kind = Expr::Kind::kAttribute;
      expr->text = take().text;
    } else if (token.kind == TokenKind::kInteger) {
      ExprPtr index = make(Expr::Kind::kConst, token.position);
      index->value = Value::integer(take().integer);
      expr->args.push_back(std::move(index));
    } else {
      error("unexpected ", describe(token), ", a name or a number expected");
    }
    return finish(std::move(expr));
  }
  parse_subscribed(*expr);
  if (at_op(",")) {
    if (expr->kind == Expr::Kind::kSlice)
      error("a slice of more than one dimension is not supported");
    ExprPtr tuple = make(Expr::Kind::kTuple, open.position);
    tuple->args.push_back(std::move(expr->args[1]));
    while (skip_op(",")) {
      if (at_op("]")) break;
      tuple->args.push_back(parse_expression());
    }
    expr->args[1] = finish(std::move(tuple));
  }
  expect_op("]");
  return finish(std::move(expr));
}

// What stands in brackets: an expression, or up to three bounds of a slice.
void ParserState::parse_subscribed(Expr& item) {
  ExprPtr bounds[3];
  if (!at_op(":")) {
    bounds[0] = parse_expression();
    if (!at_op(":")) {
      item.args.push_back(std::move(bounds[0]));
      return;
    }
  }
  item.kind = Expr::Kind::kSlice;
  for (int i = 1; i < 3 && skip_op(":"); ++i)
    if (!at_op(":") && !at_op("]") && !at_op(",")) bounds[i] = parse_expression();
  for (ExprPtr& bound : bounds) item.args.push_back(std::move(bound));
}

void ParserState::parse_call_args(Expr& call) {
  const Position position = current().position;
  const auto require_that = [&](bool ok) {
    if (!ok) syntax_error(where_, position, "the arguments of this call are in a wrong order");
  };
  expect_op("(");
  bool first = true;
  while (!at_op(")")) {
    if (!first) {
      expect_op(",");
      if (at_op(")")) break;
    }
    first = false;
    if (skip_op("*")) {
      require_that(!call.star && !call.double_star);
      call.star = parse_expression();
    } else if (skip_op("**")) {
      require_that(!call.double_star);
      call.double_star = parse_expression();
    } else if (current().kind == TokenKind::kName && ahead().kind == TokenKind::kOperator &&
               ahead().text == "=") {
      require_that(!call.double_star);
      std::string name = take().text;
      take();
      for (const auto& [other, value] : call.named)
        if (other == name) error("the keyword argument '", name, "' is repeated");
      call.named.emplace_back(std::move(name), parse_expression());
    } else {
      require_that(!call.star && !call.double_star && call.named.empty());
      call.args.push_back(parse_expression());
    }
  }
  expect_op(")");
}

std::string ParserState::parse_dotted_name() {
  std::string name = expect_name();
  while (skip_op(".")) name += "." + expect_name();
  return name;
}

ExprPtr ParserState::parse_filters(ExprPtr operand, bool start_inline) {
  while (at_op("|") || start_inline) {
    if (!start_inline) take();
    start_inline = false;
    ExprPtr expr = make(Expr::Kind::kFilter, current().position);
    expr->text = parse_dotted_name();
    expr->filter = find_filter(expr->text);
    if (expr->filter == nullptr)
      unknown_.emplace_back(expr->position, "there is no filter '" + expr->text + "'");
    expr->args.push_back(std::move(operand));
    if (at_op("(")) parse_call_args(*expr);
    operand = finish(std::move(expr));
  }
  return operand;
}

ExprPtr ParserState::parse_test(ExprPtr operand) {
  ExprPtr expr = make(Expr::Kind::kTest, take().position);
  const bool negated = skip_name("not");
  expr->text = parse_dotted_name();
  expr->test = find_test(expr->text);
  if (expr->test == nullptr)
    unknown_.emplace_back(expr->position, "there is no test '" + expr->text + "'");
  expr->args.push_back(std::move(operand));
  const TokenKind kind = current().kind;
  if (at_op("(")) {
    parse_call_args(*expr);
  } else if ((kind == TokenKind::kName && !at_name("else") && !at_name("or") && !at_name("and")) ||
             kind == TokenKind::kString || kind == TokenKind::kInteger ||
             kind == TokenKind::kFloat || at_op("[") || at_op("{")) {
    if (at_name("is")) error("tests cannot be chained with 'is'");
    expr->args.push_back(parse_postfix(parse_primary()));
  }
  expr = finish(std::move(expr));
  if (!negated) return expr;
  ExprPtr inverse = make(Expr::Kind::kNot, expr->position);
  inverse->args.push_back(std::move(expr));
  return finish(std::move(inverse));
}

}  // namespace signround::jinja
