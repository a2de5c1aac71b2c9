// Shared by jinja_parser.cc (statements) and jinja_expression_parser.cc.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <unordered_map>
#include <unordered_set>

#include "signround/text/jinja_lexer.h"
#include "signround/text/jinja_parser.h"

namespace signround::jinja {

// The tokens, a cursor, and what the parser knows about the blocks around it.
class ParserState {
 public:
  ParserState(const std::string& where, std::string_view source)
      : where_(where), tokens_(tokenize(where, source)) {}

 protected:
  // A function body: code that Python would compile as one, so that `break` cannot leave it.
  struct Function {
    MacroCode* code;                         // null for generation blocks
    std::unordered_set<std::string> hidden;  // special names that the body has assigned
    int loops = 0;
  };

  class Nesting {
   public:
    explicit Nesting(ParserState& parser) : parser_(parser) {
      if (++parser_.nesting_ > kMaxSyntaxDepth)
        parser_.error("nested deeper than ", kMaxSyntaxDepth, " levels");
    }
    ~Nesting() { --parser_.nesting_; }

   private:
    ParserState& parser_;
  };

  template <class... Parts>
  [[noreturn]] void error(const Parts&... parts) const {
    syntax_error(where_, current().position, parts...);
  }

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  const Token& take() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool at_op(std::string_view op) const {
    return current().kind == TokenKind::kOperator && current().text == op;
  }
  bool at_name(std::string_view name) const {
    return current().kind == TokenKind::kName && current().text == name;
  }
  bool skip_op(std::string_view op) { return at_op(op) && (take(), true); }
  bool skip_name(std::string_view name) { return at_name(name) && (take(), true); }
  void expect_op(std::string_view op);
  std::string expect_name();
  static std::string describe(const Token& token);

  int symbol(const std::string& name);  // index into Program::names
  // A variable was read: macros around learn that they need `caller`, `kwargs` or `varargs`, loops
  // `loop`.
  void note_load(const std::string& name);
  void note_store(const std::string& name);

  ExprPtr make(Expr::Kind kind, Position position);
  // The depth of an expression follows from its operands; too deep ones are an error here, before
  // anything walks them.
  ExprPtr finish(ExprPtr expr);

  // Expressions (jinja_expression_parser.cc).
  ExprPtr parse_expression(bool with_conditional = true);
  ExprPtr parse_tuple(bool with_conditional = true, std::string_view end_name = {},
                      bool parentheses = false);
  ExprPtr parse_target(std::string_view end_name = {}, bool with_attributes = false);
  ExprPtr parse_name_target();
  // Filters behind `operand`, which may be null; with start_inline the first has no '|' before it.
  ExprPtr parse_filters(ExprPtr operand, bool start_inline);

  const std::string& where_;
  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  Program program_;
  std::unordered_map<std::string, int> symbols_;
  std::vector<Function> functions_ = std::vector<Function>(1);
  std::vector<Stmt*> loops_;
  bool in_target_ = false;
  // Filters and tests that do not exist. In an if they are an error only where they are reached: it
  // takes them away.
  std::vector<std::pair<Position, std::string>> unknown_;

 private:
  ExprPtr parse_conditional();
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter = true);
  ExprPtr parse_primary(bool with_attributes = false);
  ExprPtr parse_name(bool with_attributes);
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_filter_expr(ExprPtr expr);
  ExprPtr parse_subscript(ExprPtr object);
  void parse_subscribed(Expr& item);
  ExprPtr parse_test(ExprPtr operand);
  void parse_call_args(Expr& call);
  std::string parse_dotted_name();
  bool at_tuple_end(std::string_view end_name) const;
  bool mark_target(Expr& target);
};

}  // namespace signround::jinja
