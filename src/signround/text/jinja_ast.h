// The parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "signround/text/jinja_operators.h"

namespace signround::jinja {

using Filter = Value (*)(Runtime&, const Args&);
using Test = bool (*)(Runtime&, const Args&);
// The piped value is the first argument. nullptr: there is none of this name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);

enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind : uint8_t {
    kConst,         // value
    kName,          // name: as a value or as a target
    kAttributeRef,  // name.text as a target: a namespace's attribute
    kTuple,         // args
    kList,          // args
    kDict,          // args: key, value, key, value, ...
    kAttribute,     // args[0].text
    kItem,          // args[0][args[1]]
    kSlice,         // args[0][args[1]:args[2]:args[3]], absent bounds are null
    kCall,          // args[0](args[1], ..., *star, named, **double_star)
    kFilter,  // args[0] | text(args[1], ...); args[0] is null in filter blocks and filtered set
              // blocks
    kTest,    // args[0] is text(args[1], ...)
    kBinary,  // args[0] op args[1]
    kNegate,
    kPlus,
    kNot,  // args[0]
    kAnd,
    kOr,           // args[0], args[1]
    kCompare,      // args[0] compares[0] args[1] compares[1] args[2] ...
    kConcat,       // args joined as strings
    kConditional,  // args[0] if args[1] else args[2]; args[2] may be null
  };
  Kind kind = Kind::kConst;
  BinaryOp op = BinaryOp::kAdd;
  Position position;
  int depth = 1;  // 1 + that of the deepest operand
  int name = -1;  // index into Program::names
  Value value;
  std::string text;
  std::vector<ExprPtr> args;
  std::vector<CompareOp> compares;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, double_star;
  Filter filter = nullptr;
  Test test = nullptr;
};

struct Stmt;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

// Parameters and body of a macro or of a call block.
struct MacroCode {
  std::string name;
  std::vector<int> params;
  std::vector<std::string> param_names;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false, uses_kwargs = false,
       uses_varargs = false;  // in the body, without being parameters
};

struct Stmt {
  enum class Kind : uint8_t {
    kText,         // text
    kOutput,       // exprs
    kSet,          // target = exprs[0]
    kSetBlock,     // target = body, through exprs[0] if there is one
    kIf,           // exprs[i] -> branches[i]; a last branch without condition is the else
    kFor,          // for target in exprs[0] if exprs[1]: body, else branches[0]
    kMacro,        // code, stored as name
    kCallBlock,    // exprs[0] is the call, code the caller
    kFilterBlock,  // body through exprs[0]
    kWith,         // targets = exprs, body
    kBlock,        // body in the scope of the template's top level, or, if scoped, in this one
    kGeneration,   // body, whose place in the output is recorded
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kText;
  Position position;
  int name = -1;
  bool recursive = false;
  bool uses_loop = false;
  bool scoped = false;
  std::string text;
  ExprPtr target;
  std::vector<ExprPtr> targets;
  std::vector<ExprPtr> exprs;
  Body body;
  std::vector<Body> branches;
  MacroCode code;
};

struct Program {
  std::string where;  // for messages
  Body body;
  std::vector<std::string> names;  // of all variables
  int loop = -1, caller = -1, kwargs = -1, varargs = -1;
};

}  // namespace signround::jinja
