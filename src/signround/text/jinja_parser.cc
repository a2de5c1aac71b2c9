#include "signround/text/jinja_parser.h"

#include "signround/text/jinja_parser_state.h"

namespace signround::jinja {
namespace {

class Parser : ParserState {
 public:
  using ParserState::ParserState;

  Program run() {
    program_.where = where_;
    program_.loop = symbol("loop");
    program_.caller = symbol("caller");
    program_.kwargs = symbol("kwargs");
    program_.varargs = symbol("varargs");
    program_.body = parse_body({});
    if (!unknown_.empty()) syntax_error(where_, unknown_[0].first, unknown_[0].second);
    return std::move(program_);
  }

 private:
  using EndTags = std::initializer_list<std::string_view>;

  bool at_any(EndTags tags) const {
    for (const std::string_view tag : tags)
      if (at_name(tag)) return true;
    return false;
  }

  // Up to one of the tags (the cursor stands on its name), or, without any, to the end.
  Body parse_body(EndTags end_tags) {
    const Nesting nesting(*this);
    Body body;
    while (true) {
      const Token& token = current();
      switch (token.kind) {
        case TokenKind::kEnd:
          if (end_tags.size() != 0)
            error("the template ends, '{% ", *std::prev(end_tags.end()), " %}' expected");
          return body;
        case TokenKind::kData:
          body.push_back(make_stmt(Stmt::Kind::kText, token.position));
          body.back()->text = take().text;
          break;
        case TokenKind::kVariableBegin:
          body.push_back(make_stmt(Stmt::Kind::kOutput, take().position));
          body.back()->exprs.push_back(parse_tuple());
          if (current().kind != TokenKind::kVariableEnd)
            error("unexpected ", describe(current()), ", '}}' expected");
          take();
          break;
        default: {
          take();  // '{%'
          if (at_any(end_tags)) return body;
          if (StmtPtr stmt = parse_statement()) body.push_back(std::move(stmt));
          expect_block_end();
        }
      }
    }
  }

  static StmtPtr make_stmt(Stmt::Kind kind, Position position) {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->position = position;
    return stmt;
  }

  void expect_block_end() {
    if (current().kind != TokenKind::kBlockEnd)
      error("unexpected ", describe(current()), ", '%}' expected");
    take();
  }

  // The body of a tag whose own part has just been parsed.
  Body parse_block(EndTags end_tags) {
    skip_op(":");
    expect_block_end();
    return parse_body(end_tags);
  }

  Body parse_whole_block(std::string_view end_tag) {
    Body body = parse_block({end_tag});
    take();
    return body;
  }

  StmtPtr parse_statement() {
    const Token& token = current();
    if (token.kind != TokenKind::kName)
      error("unexpected ", describe(token), ", the name of a tag expected");
    const std::string& tag = token.text;
    if (tag == "set") return parse_set();
    if (tag == "if") return parse_if();
    if (tag == "for") return parse_for();
    if (tag == "macro") return parse_macro();
    if (tag == "call") return parse_call_block();
    if (tag == "filter") return parse_filter_block();
    if (tag == "with") return parse_with();
    if (tag == "print") return parse_print();
    if (tag == "block") return parse_named_block();
    if (tag == "generation") return parse_generation();
    if (tag == "break" || tag == "continue") return parse_loop_control();
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends" ||
        tag == "autoescape")
      fail(ErrorKind::kUnsupported, where_.c_str(), "line ", token.position.line, ", column ",
           token.position.column, ": the tag '", tag,
           "' is not supported in chat templates, which are one file of plain text");
    error("unknown tag '", tag, "'");
  }

  StmtPtr parse_set() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kSet, take().position);
    stmt->target = parse_target({}, true);
    if (skip_op("=")) {
      stmt->exprs.push_back(parse_tuple());
      return stmt;
    }
    stmt->kind = Stmt::Kind::kSetBlock;
    if (ExprPtr filter = parse_filters(nullptr, false)) stmt->exprs.push_back(std::move(filter));
    stmt->body = parse_whole_block("endset");
    return stmt;
  }

  StmtPtr parse_if() {
    const size_t unknown = unknown_.size();
    StmtPtr stmt = make_stmt(Stmt::Kind::kIf, take().position);
    while (true) {
      stmt->exprs.push_back(parse_tuple(false));
      stmt->branches.push_back(parse_block({"elif", "else", "endif"}));
      const std::string tag = take().text;
      if (tag == "elif") continue;
      if (tag == "else") stmt->branches.push_back(parse_whole_block("endif"));
      break;
    }
    unknown_.resize(unknown);
    return stmt;
  }

  StmtPtr parse_for() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kFor, take().position);
    const size_t target_at = at_;
    stmt->target = parse_target("in");
    if (!skip_name("in")) error("unexpected ", describe(current()), ", 'in' expected");
    stmt->exprs.push_back(parse_tuple(false, "recursive"));
    stmt->exprs.push_back(skip_name("if") ? parse_expression() : nullptr);
    stmt->recursive = stmt->uses_loop = skip_name("recursive");
    loops_.push_back(stmt.get());
    ++functions_.back().loops;
    check_loop_target(target_at, *stmt->target);
    stmt->body = parse_block({"endfor", "else"});
    --functions_.back().loops;
    loops_.pop_back();
    if (take().text == "else") stmt->branches.push_back(parse_whole_block("endfor"));
    return stmt;
  }

  void check_loop_target(size_t target_at, const Expr& target) {
    if (target.kind == Expr::Kind::kName && target.name == program_.loop)
      syntax_error(where_, tokens_[target_at].position,
                   "the variable 'loop' cannot be assigned in a for loop");
    for (const ExprPtr& part : target.args) check_loop_target(target_at, *part);
  }

  void parse_signature(MacroCode& code) {
    expect_op("(");
    while (!at_op(")")) {
      if (!code.params.empty()) expect_op(",");
      ExprPtr param = parse_name_target();
      const std::string& name = program_.names[static_cast<size_t>(param->name)];
      if (std::find(code.param_names.begin(), code.param_names.end(), name) !=
          code.param_names.end())
        error("the parameter '", name, "' is repeated");
      code.params.push_back(param->name);
      code.param_names.push_back(name);
      if (skip_op("="))
        code.defaults.push_back(parse_expression());
      else if (!code.defaults.empty())
        error("the parameter '", name, "' must have a default, because one before it has");
    }
    expect_op(")");
  }

  void parse_function_body(MacroCode* code, Body& body, std::string_view end_tag) {
    functions_.push_back({code, {}, 0});
    body = parse_whole_block(end_tag);
    functions_.pop_back();
    if (code == nullptr) return;
    for (const std::string& name : code->param_names) {
      if (name == "kwargs") code->uses_kwargs = false;
      if (name == "varargs") code->uses_varargs = false;
      if (name != "caller" || !code->uses_caller) continue;
      const auto index = static_cast<size_t>(&name - code->param_names.data());
      if (index + code->defaults.size() < code->param_names.size())
        error("the parameter 'caller' must be left out or have a default");
      code->uses_caller = false;
    }
  }

  StmtPtr parse_macro() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kMacro, take().position);
    ExprPtr name = parse_name_target();
    stmt->name = name->name;
    stmt->code.name = program_.names[static_cast<size_t>(name->name)];
    note_store(stmt->code.name);
    parse_signature(stmt->code);
    parse_function_body(&stmt->code, stmt->code.body, "endmacro");
    return stmt;
  }

  StmtPtr parse_call_block() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kCallBlock, take().position);
    stmt->code.name = "caller";
    if (at_op("(")) parse_signature(stmt->code);
    stmt->exprs.push_back(parse_expression());
    if (stmt->exprs[0]->kind != Expr::Kind::kCall)
      syntax_error(where_, stmt->position, "a call expected");
    parse_function_body(&stmt->code, stmt->code.body, "endcall");
    return stmt;
  }

  StmtPtr parse_filter_block() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kFilterBlock, take().position);
    stmt->exprs.push_back(parse_filters(nullptr, true));
    stmt->body = parse_whole_block("endfilter");
    return stmt;
  }

  StmtPtr parse_with() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kWith, take().position);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!stmt->targets.empty()) expect_op(",");
      stmt->targets.push_back(parse_target());
      expect_op("=");
      stmt->exprs.push_back(parse_expression());
    }
    stmt->body = parse_whole_block("endwith");
    return stmt;
  }

  StmtPtr parse_print() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kOutput, take().position);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!stmt->exprs.empty()) expect_op(",");
      stmt->exprs.push_back(parse_expression());
    }
    return stmt;
  }

  StmtPtr parse_named_block() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kBlock, take().position);
    const std::string name = expect_name();
    if (!blocks_.insert(name).second) error("the block '", name, "' is defined twice");
    stmt->scoped = skip_name("scoped");
    if (skip_name("required"))
      error("a required block is not supported, because nothing can fill it");
    parse_function_body(nullptr, stmt->body, "endblock");
    skip_name(name);
    return stmt;
  }

  StmtPtr parse_generation() {
    StmtPtr stmt = make_stmt(Stmt::Kind::kGeneration, take().position);
    parse_function_body(nullptr, stmt->body, "endgeneration");
    return stmt;
  }

  StmtPtr parse_loop_control() {
    const Token& token = take();
    if (functions_.back().loops == 0) error("'", token.text, "' stands outside of a loop");
    return make_stmt(token.text == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue,
                     token.position);
  }

  std::unordered_set<std::string> blocks_;
};

}  // namespace

Program parse(const std::string& where, std::string_view source) {
  return Parser(where, source).run();
}

}  // namespace signround::jinja
