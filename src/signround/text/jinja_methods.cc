// Attributes of the built-in types: methods, and the properties of loops, ranges and so on. What
// would change a list or a dictionary is there but undefined, as in Jinja's immutable sandbox.
#include <algorithm>
#include <array>
#include <cmath>

#include "signround/text/jinja_macro.h"
#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_string_methods.h"

namespace signround::jinja {
namespace {

template <size_t n>
bool is_one_of(std::string_view name, const std::array<std::string_view, n>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear",  "extend",  "insert",
                                                          "pop",    "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault",
                                                          "update"};
// What every Python object has, and no template may see.
constexpr std::array<std::string_view, 12> kInternal = {
    "__class__",   "__init__", "__dict__", "__doc__",  "__module__",       "__subclasshook__",
    "__getitem__", "__len__",  "__iter__", "__repr__", "__getattribute__", "__reduce__"};

Value unsafe(Runtime& runtime, const Value& object, std::string_view name) {
  return Value::undefined(runtime, "access to attribute '" + std::string(name) + "' of '" +
                                       type_name(object) + "' object is unsafe");
}

using Method = Value (*)(Runtime&, const Value& self, const Args&);

Value method(Runtime& runtime, const Value& self, std::string_view name, Method call) {
  return make_function(
      runtime, std::string(name), self.depth(),
      [self, call](Runtime& run, const Args& args) { return call(run, self, args); });
}

Value sequence_count(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "count", args, {""}, 1);
  Iteration iteration(runtime, self);
  int64_t count = 0;
  for (Value item; iteration.next(item);) count += equals(runtime, item, params[0]) ? 1 : 0;
  return Value::integer(count);
}

Value sequence_index(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "index", args, {"", "", ""}, 1);
  const int64_t length = length_of(self);
  const auto bound = [&](size_t i, int64_t otherwise) {
    const int64_t index = params.integer(i, otherwise);
    return index < 0 ? std::max<int64_t>(0, index + length) : index;
  };
  const int64_t start = bound(1, 0), stop = bound(2, length);
  Iteration iteration(runtime, self);
  int64_t i = 0;
  for (Value item; iteration.next(item) && i < stop; ++i)
    if (i >= start && equals(runtime, item, params[0])) return Value::integer(i);
  runtime.fail("the value is not in the ", type_name(self));
}

Value list_copy(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "copy", args, {});
  return Value::list(runtime, collect(runtime, self));
}

Value dict_get(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "get", args, {"", ""}, 1);
  if (const Value* value = self.dict().find(params[0])) return *value;
  return params.has(1) ? params[1] : Value::none();
}

template <ViewObject::Part part>
Value dict_view(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "dict method", args, {});
  return Value::object(Kind::kDictView,
                       std::make_shared<ViewObject>(&runtime, self.object(), part));
}

Value dict_copy(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "copy", args, {});
  return make_dict(runtime, self.dict().entries);
}

Value dict_fromkeys(Runtime& runtime, const Value&, const Args& args) {
  const Params params(runtime, "fromkeys", args, {"", ""}, 1);
  std::vector<DictObject::Entry> entries;
  for (Value& key : collect(runtime, params[0]))
    entries.emplace_back(std::move(key), params.has(1) ? params[1] : Value::none());
  return make_dict(runtime, std::move(entries));
}

Value int_bit_length(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "bit_length", args, {});
  Int rest = self.as_int() < 0 ? -self.as_int() : self.as_int();
  int bits = 0;
  for (; rest != 0; rest >>= 1) ++bits;
  return Value::integer(bits);
}

Value int_bit_count(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "bit_count", args, {});
  int bits = 0;
  for (Int rest = self.as_int() < 0 ? -self.as_int() : self.as_int(); rest != 0; rest >>= 1)
    bits += static_cast<int>(rest & 1);
  return Value::integer(bits);
}

// Of int and float: what it is itself.
Value conjugate(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "conjugate", args, {});
  return self.is(Kind::kBool) ? Value::integer(self.as_int()) : self;
}

Value as_integer_ratio(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "as_integer_ratio", args, {});
  if (self.is_integral())
    return Value::tuple(runtime, {Value::integer(self.as_int()), Value::integer(1)});
  double top = self.as_float();
  if (!std::isfinite(top)) runtime.fail("cannot convert ", float_repr(top), " to integer ratio");
  Int below = 1, whole = 0;
  for (int bits = 0; top != std::floor(top) && bits < 120; ++bits) top *= 2, below *= 2;
  if (top != std::floor(top) || !float_to_int(top, whole))
    runtime.fail("the integers of this ratio have more than 120 bits");
  return Value::tuple(runtime, {Value::integer(whole), Value::integer(below)});
}

// Whether two iterables have no item in common.
Value view_is_disjoint(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "isdisjoint", args, {""}, 1);
  Iteration iteration(runtime, params[0]);
  for (Value item; iteration.next(item);)
    if (contains(runtime, self, item)) return Value::boolean(false);
  return Value::boolean(true);
}

Value float_is_integer(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "is_integer", args, {});
  Int whole = 0;
  return Value::boolean(float_to_int(self.as_float(), whole)
                            ? static_cast<double>(whole) == self.as_float()
                            : self.as_float() - self.as_float() == 0);
}

bool dict_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  using Part = ViewObject::Part;
  constexpr std::pair<std::string_view, Method> kMethods[] = {{"get", dict_get},
                                                              {"items", dict_view<Part::kItems>},
                                                              {"keys", dict_view<Part::kKeys>},
                                                              {"values", dict_view<Part::kValues>},
                                                              {"copy", dict_copy},
                                                              {"fromkeys", dict_fromkeys}};
  for (const auto& [method_name, call] : kMethods)
    if (method_name == name) return result = method(runtime, self, name, call), true;
  if (!is_one_of(name, kDictChanges)) return false;
  result = unsafe(runtime, self, name);
  return true;
}

bool sequence_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  const bool is_list = self.is(Kind::kList);
  if (self.is(Kind::kTuple) && self.as<SequenceObject>().group &&
      (name == "grouper" || name == "list"))
    return result = self.items()[name == "list" ? 1 : 0], true;
  if (name == "count" || name == "index")
    return result = method(runtime, self, name, name == "count" ? sequence_count : sequence_index),
           true;
  if (is_list && name == "copy") return result = method(runtime, self, name, list_copy), true;
  if (!is_list || !is_one_of(name, kListChanges)) return false;
  result = unsafe(runtime, self, name);
  return true;
}

bool number_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  if (name == "real") return result = conjugate(runtime, self, {}), true;
  if (name == "imag") return result = self.is_integral() ? Value::integer(0) : Value::real(0), true;
  if (name == "conjugate") return result = method(runtime, self, name, conjugate), true;
  if (name == "as_integer_ratio")
    return result = method(runtime, self, name, as_integer_ratio), true;
  if (self.is_integral() && name == "numerator") return result = conjugate(runtime, self, {}), true;
  if (self.is_integral() && name == "denominator") return result = Value::integer(1), true;
  if (self.is_integral() && name == "bit_count")
    return result = method(runtime, self, name, int_bit_count), true;
  if (self.is_integral() && name == "bit_length")
    return result = method(runtime, self, name, int_bit_length), true;
  if (!self.is_integral() && name == "is_integer")
    return result = method(runtime, self, name, float_is_integer), true;
  return false;
}

bool range_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  const auto& range = self.as<RangeObject>();
  if (name == "start") return result = Value::integer(range.start), true;
  if (name == "stop") return result = Value::integer(range.stop), true;
  if (name == "step") return result = Value::integer(range.step), true;
  if (name == "count") return result = method(runtime, self, name, sequence_count), true;
  if (name == "index") return result = method(runtime, self, name, sequence_index), true;
  return false;
}

Value loop_cycle(Runtime& runtime, const Value& self, const Args& args) {
  if (args.positional.empty() || !args.named.empty()) runtime.fail("no items for cycling given");
  const auto index = static_cast<size_t>(std::max<int64_t>(0, self.as<LoopObject>().index0));
  return args.positional[index % args.positional.size()];
}

Value loop_changed(Runtime& runtime, const Value& self, const Args& args) {
  auto& loop = self.as<LoopObject>();
  const Value now = Value::tuple(runtime, args.positional);
  const bool same =
      loop.changed_called && equals(runtime, Value::tuple(runtime, loop.last_changed), now);
  loop.changed_called = true;
  loop.last_changed = args.positional;
  return Value::boolean(!same);
}

bool loop_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  auto& loop = self.as<LoopObject>();
  if (name == "index") return result = Value::integer(loop.index0 + 1), true;
  if (name == "index0") return result = Value::integer(loop.index0), true;
  if (name == "first") return result = Value::boolean(loop.index0 == 0), true;
  if (name == "depth") return result = Value::integer(loop.depth0 + 1), true;
  if (name == "depth0") return result = Value::integer(loop.depth0), true;
  if (name == "length") return result = Value::integer(loop.length()), true;
  if (name == "revindex") return result = Value::integer(loop.length() - loop.index0), true;
  if (name == "revindex0") return result = Value::integer(loop.length() - loop.index0 - 1), true;
  if (name == "last") {
    Value next;
    return result = Value::boolean(!loop.peek(next)), true;
  }
  if (name == "previtem") {
    result =
        loop.index0 == 0 ? Value::undefined(runtime, "there is no previous item") : loop.before;
    return true;
  }
  if (name == "nextitem") {
    if (!loop.peek(result)) result = Value::undefined(runtime, "there is no next item");
    return true;
  }
  if (name == "cycle") return result = method(runtime, self, name, loop_cycle), true;
  if (name == "changed") return result = method(runtime, self, name, loop_changed), true;
  return false;
}

Value cycler_next(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "next", args, {});
  auto& cycler = self.as<CyclerObject>();
  const size_t at = cycler.position;
  cycler.position = (at + 1) % cycler.items.size();
  return cycler.items[at];
}

Value cycler_reset(Runtime& runtime, const Value& self, const Args& args) {
  const Params params(runtime, "reset", args, {});
  self.as<CyclerObject>().position = 0;
  return Value::none();
}

bool cycler_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  const auto& cycler = self.as<CyclerObject>();
  if (name == "current") return result = cycler.items[cycler.position], true;
  if (name == "pos") return result = Value::integer(static_cast<Int>(cycler.position)), true;
  if (name == "items") return result = Value::tuple(runtime, cycler.items), true;
  if (name == "next") return result = method(runtime, self, name, cycler_next), true;
  if (name == "reset") return result = method(runtime, self, name, cycler_reset), true;
  return false;
}

bool macro_attribute(Runtime& runtime, const Value& self, std::string_view name, Value& result) {
  const MacroCode& code = self.as<MacroObject>().code;
  if (name == "name") return result = Value::string(runtime, code.name), true;
  if (name == "caller") return result = Value::boolean(code.uses_caller), true;
  if (name == "catch_kwargs") return result = Value::boolean(code.uses_kwargs), true;
  if (name == "catch_varargs") return result = Value::boolean(code.uses_varargs), true;
  if (name != "arguments") return false;
  Items names(runtime);
  for (const std::string& param : code.param_names) names.push(Value::string(runtime, param));
  result = Value::tuple(runtime, names.take());
  return true;
}

bool typed_attribute(Runtime& runtime, const Value& object, std::string_view name, Value& result) {
  switch (object.kind()) {
    case Kind::kString:
      if (const StringMethod call = find_string_method(name)) {
        result = make_function(runtime, std::string(name), 0,
                               [object, call](Runtime& run, const Args& args) {
                                 return call(run, object.as_string(), args);
                               });
        return true;
      }
      return false;
    case Kind::kDict:
      return dict_attribute(runtime, object, name, result);
    case Kind::kList:
    case Kind::kTuple:
      return sequence_attribute(runtime, object, name, result);
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return number_attribute(runtime, object, name, result);
    case Kind::kDictView:
      if (name != "isdisjoint" || object.as<ViewObject>().part == ViewObject::Part::kValues)
        return false;
      result = method(runtime, object, name, view_is_disjoint);
      return true;
    case Kind::kRange:
      return range_attribute(runtime, object, name, result);
    case Kind::kLoop:
      return loop_attribute(runtime, object, name, result);
    case Kind::kCycler:
      return cycler_attribute(runtime, object, name, result);
    case Kind::kMacro:
      return macro_attribute(runtime, object, name, result);
    case Kind::kJoiner:
      if (name == "sep") return result = object.as<JoinerObject>().separator, true;
      if (name == "used") return result = Value::boolean(object.as<JoinerObject>().used), true;
      return false;
    case Kind::kNamespace:
      if (const Value* value = object.as<NamespaceObject>().attributes.find(name))
        return result = *value, true;
      return false;
    // The global dict, which is an object that makes dictionaries.
    case Kind::kFunction:
      if (name != "fromkeys" || object.as<FunctionObject>().name != "dict") return false;
      result = method(runtime, object, name, dict_fromkeys);
      return true;
    default:
      return false;
  }
}

}  // namespace

bool find_attribute(Runtime& runtime, const Value& object, std::string_view name, Value& result) {
  if (typed_attribute(runtime, object, name, result)) return true;
  if (!object.is(Kind::kNamespace) && is_one_of(name, kInternal)) {
    result = unsafe(runtime, object, name);
    return true;
  }
  return false;
}

}  // namespace signround::jinja
