// Jinja's built-in tests: what may follow `is`.
#include <unordered_map>

#include "signround/text/jinja_ast.h"
#include "signround/text/jinja_string_methods.h"

namespace signround::jinja {
namespace {

template <Kind kind>
bool is_kind(Runtime& runtime, const Args& args) {
  return Params(runtime, "test", args, {"value"}, 1)[0].is(kind);
}

const Value& only(Runtime& runtime, const Args& args) {
  Params(runtime, "test", args, {"value"}, 1);
  return args.positional[0];
}

Int modulo(Runtime& runtime, const Value& value, const Value& by) {
  const Value rest = binary(runtime, BinaryOp::kMod, value, by);
  if (rest.is_integral()) return rest.as_int();
  if (!rest.is_number()) return 2;  // of a string that is formatted: equal to no number
  return rest.as_float() == 0 ? 0 : rest.as_float() == 1 ? 1 : 2;
}

bool odd(Runtime& runtime, const Args& args) {
  return modulo(runtime, only(runtime, args), Value::integer(2)) == 1;
}
bool even(Runtime& runtime, const Args& args) {
  return modulo(runtime, only(runtime, args), Value::integer(2)) == 0;
}

bool divisible_by(Runtime& runtime, const Args& args) {
  const Params params(runtime, "divisibleby", args, {"value", "num"}, 2);
  return modulo(runtime, params[0], params[1]) == 0;
}

bool defined(Runtime& runtime, const Args& args) { return !only(runtime, args).is_undefined(); }

bool filter_exists(Runtime& runtime, const Args& args) {
  const Value& name = only(runtime, args);
  return name.is_string() && find_filter(name.text()) != nullptr;
}

bool test_exists(Runtime& runtime, const Args& args) {
  const Value& name = only(runtime, args);
  return name.is_string() && find_test(name.text()) != nullptr;
}

template <bool wanted>
bool is_bool(Runtime& runtime, const Args& args) {
  const Value& value = only(runtime, args);
  return value.is(Kind::kBool) && value.as_bool() == wanted;
}

bool number(Runtime& runtime, const Args& args) { return only(runtime, args).is_number(); }

template <bool (*holds)(std::string_view)>
bool text_is(Runtime& runtime, const Args& args) {
  const std::string text = to_str(runtime, only(runtime, args));
  runtime.step(static_cast<int64_t>(text.size() >> 2));
  return holds(text);
}

bool sequence(Runtime& runtime, const Args& args) {
  const Value& value = only(runtime, args);
  // What has a length and can be indexed. An undefined value has both.
  return length_of(value) >= 0 && !value.is(Kind::kDictView);
}

bool iterable(Runtime& runtime, const Args& args) {
  const Value& value = only(runtime, args);
  return is_iterable(value) || value.is(Kind::kLoop);
}

bool callable(Runtime& runtime, const Args& args) {
  switch (only(runtime, args).kind()) {
    case Kind::kUndefined:
    case Kind::kMacro:
    case Kind::kLoop:
    case Kind::kJoiner:
    case Kind::kFunction:
      return true;
    default:
      return false;
  }
}

bool escaped(Runtime& runtime, const Args& args) {
  const Value& value = only(runtime, args);
  return value.is_string() && value.as_string().markup;
}

bool same_as(Runtime& runtime, const Args& args) {
  const Params params(runtime, "sameas", args, {"value", "other"}, 2);
  // Equal short constants are one object in CPython; here they may be two.
  if (params[0].is_string() && params[1].is_string() && params[0].object()->runtime == nullptr &&
      params[1].object()->runtime == nullptr)
    return params[0].text() == params[1].text();
  return params[0].same_as(params[1]);
}

bool in(Runtime& runtime, const Args& args) {
  const Params params(runtime, "in", args, {"value", "seq"}, 2);
  return contains(runtime, params[1], params[0]);
}

bool equal(Runtime& runtime, const Args& args) {
  const Params params(runtime, "eq", args, {"a", "b"}, 2);
  return equals(runtime, params[0], params[1]);
}

bool not_equal(Runtime& runtime, const Args& args) { return !equal(runtime, args); }

int order(Runtime& runtime, const Args& args, const char* symbol) {
  const Params params(runtime, symbol, args, {"a", "b"}, 2);
  return compare(runtime, params[0], params[1], symbol);
}

bool greater(Runtime& runtime, const Args& args) { return order(runtime, args, ">") == 1; }
bool less(Runtime& runtime, const Args& args) { return order(runtime, args, "<") == -1; }
bool greater_equal(Runtime& runtime, const Args& args) {
  const int result = order(runtime, args, ">=");
  return result == 0 || result == 1;
}
bool less_equal(Runtime& runtime, const Args& args) {
  const int result = order(runtime, args, "<=");
  return result == 0 || result == -1;
}

}  // namespace

Test find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, Test> kTests = {
      {"odd", odd},
      {"even", even},
      {"divisibleby", divisible_by},
      {"defined", defined},
      {"undefined", is_kind<Kind::kUndefined>},
      {"filter", filter_exists},
      {"test", test_exists},
      {"none", is_kind<Kind::kNone>},
      {"boolean", is_kind<Kind::kBool>},
      {"false", is_bool<false>},
      {"true", is_bool<true>},
      {"integer", is_kind<Kind::kInt>},
      {"float", is_kind<Kind::kFloat>},
      {"lower", text_is<is_lower_text>},
      {"upper", text_is<is_upper_text>},
      {"string", is_kind<Kind::kString>},
      {"mapping", is_kind<Kind::kDict>},
      {"number", number},
      {"sequence", sequence},
      {"iterable", iterable},
      {"callable", callable},
      {"sameas", same_as},
      {"escaped", escaped},
      {"in", in},
      {"==", equal},
      {"eq", equal},
      {"equalto", equal},
      {"!=", not_equal},
      {"ne", not_equal},
      {">", greater},
      {"gt", greater},
      {"greaterthan", greater},
      {"ge", greater_equal},
      {">=", greater_equal},
      {"<", less},
      {"lt", less},
      {"lessthan", less},
      {"<=", less_equal},
      {"le", less_equal},
  };
  const auto found = kTests.find(name);
  return found == kTests.end() ? nullptr : found->second;
}

}  // namespace signround::jinja
