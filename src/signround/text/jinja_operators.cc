#include "signround/text/jinja_operators.h"

#include <algorithm>
#include <cmath>

#include "signround/text/jinja_unicode.h"

namespace signround::jinja {
namespace {

uint64_t mix(uint64_t x) {  // splitmix64's finalizer
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t hash_of_int(Int value) {
  return mix(static_cast<uint64_t>(value) ^
             mix(static_cast<uint64_t>(value >> 64) + 0x9E3779B97F4A7C15u));
}

// Exact comparison of an integer with a float that is not NaN.
int compare_int_float(Int a, double b) {
  if (b >= 0x1p127) return -1;
  if (b < -0x1p127) return 1;
  const auto whole = static_cast<Int>(b);
  if (a != whole) return a < whole ? -1 : 1;
  const double fraction = b - static_cast<double>(whole);
  return fraction > 0 ? -1 : fraction < 0 ? 1 : 0;
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral())
    return a.as_int() < b.as_int() ? -1 : a.as_int() > b.as_int() ? 1 : 0;
  if ((!a.is_integral() && std::isnan(a.as_float())) ||
      (!b.is_integral() && std::isnan(b.as_float())))
    return 2;
  if (a.is_integral()) return compare_int_float(a.as_int(), b.as_float());
  if (b.is_integral()) return -compare_int_float(b.as_int(), a.as_float());
  return a.as_float() < b.as_float() ? -1 : a.as_float() > b.as_float() ? 1 : 0;
}

// Python's containers take an item for equal to itself, even a NaN.
bool same_or_equal(Runtime& runtime, const Value& a, const Value& b) {
  return a.same_as(b) || equals(runtime, a, b);
}

bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!same_or_equal(runtime, a[i], b[i])) return false;
  return true;
}

bool equal_dicts(Runtime& runtime, const DictObject& a, const DictObject& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(key);
    if (other == nullptr || !same_or_equal(runtime, value, *other)) return false;
  }
  return true;
}

bool equal_views(Runtime& runtime, const Value& a, const Value& b) {
  const auto &left = a.as<ViewObject>(), &right = b.as<ViewObject>();
  if (left.part == ViewObject::Part::kValues || right.part == ViewObject::Part::kValues)
    return &left == &right;
  if (left.entries().size() != right.entries().size()) return false;
  for (const auto& entry : left.entries())
    if (!contains(runtime, b, left.item(runtime, entry))) return false;
  return true;
}

bool equal_ranges(const RangeObject& a, const RangeObject& b) {
  return a.length == b.length &&
         (a.length == 0 || (a.start == b.start && (a.length == 1 || a.step == b.step)));
}

bool view_contains(Runtime& runtime, const Value& container, const Value& item) {
  const auto& view = container.as<ViewObject>();
  const auto& dict = static_cast<DictObject&>(*view.dict);
  if (view.part == ViewObject::Part::kKeys) return dict.find(item) != nullptr;
  if (view.part == ViewObject::Part::kItems) {
    if (!item.is(Kind::kTuple) || item.items().size() != 2) return false;
    const Value* value = dict.find(item.items()[0]);
    return value != nullptr && same_or_equal(runtime, *value, item.items()[1]);
  }
  for (const auto& entry : dict.entries)
    if (same_or_equal(runtime, entry.second, item)) return true;
  return false;
}

bool range_contains(const RangeObject& range, const Value& item) {
  if (item.is(Kind::kFloat) &&
      (std::isnan(item.as_float()) || std::floor(item.as_float()) != item.as_float()))
    return false;
  Int value = 0;
  if (item.is_integral())
    value = item.as_int();
  else if (!item.is(Kind::kFloat) || !float_to_int(item.as_float(), value))
    return false;
  if (range.length == 0) return false;
  const Int offset = value - range.start;
  return offset % range.step == 0 && offset / range.step >= 0 && offset / range.step < range.length;
}

}  // namespace

void fail_undefined(Runtime& runtime, const Value& value) {
  if (value.object() == nullptr || value.text().empty()) runtime.fail("the value is undefined");
  runtime.fail(value.text());
}

bool equals(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      runtime.step(static_cast<int64_t>(a.text().size() >> 6));
      return a.text() == b.text();
    case Kind::kList:
    case Kind::kTuple:
      return equal_items(runtime, a.items(), b.items());
    case Kind::kDict:
      return equal_dicts(runtime, a.dict(), b.dict());
    case Kind::kDictView:
      return equal_views(runtime, a, b);
    case Kind::kRange:
      return equal_ranges(a.as<RangeObject>(), b.as<RangeObject>());
    default:
      return a.object() == b.object();
  }
}

bool is_hashable(const Value& value) {
  switch (value.kind()) {
    case Kind::kList:
    case Kind::kDict:
      return false;
    case Kind::kDictView:
      return value.as<ViewObject>().part == ViewObject::Part::kValues;
    case Kind::kTuple:
      return std::all_of(value.items().begin(), value.items().end(), is_hashable);
    default:
      return true;
  }
}

uint64_t hash_of_text(std::string_view text) { return mix(std::hash<std::string_view>()(text)); }

uint64_t hash_of(Runtime& runtime, const Value& value) {
  runtime.step();
  switch (value.kind()) {
    case Kind::kUndefined:
      return 1;
    case Kind::kNone:
      return 2;
    case Kind::kBool:
    case Kind::kInt:
      return hash_of_int(value.as_int());
    case Kind::kFloat: {
      Int whole = 0;
      if (float_to_int(value.as_float(), whole) && static_cast<double>(whole) == value.as_float())
        return hash_of_int(whole);
      return mix(std::hash<double>()(value.as_float()));
    }
    case Kind::kString:
      runtime.step(static_cast<int64_t>(value.text().size() >> 6));
      return hash_of_text(value.text());
    case Kind::kTuple: {
      uint64_t hash = 3;
      for (const Value& item : value.items()) hash = mix(hash + hash_of(runtime, item));
      return hash;
    }
    case Kind::kRange:
      return mix(static_cast<uint64_t>(value.as<RangeObject>().length));
    default:
      if (!is_hashable(value)) runtime.fail("unhashable type: '", type_name(value), "'");
      return mix(reinterpret_cast<uintptr_t>(value.object().get()));
  }
}

int compare(Runtime& runtime, const Value& a, const Value& b, const char* symbol) {
  runtime.step();
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is_string() && b.is_string()) {
    runtime.step(static_cast<int64_t>(std::min(a.text().size(), b.text().size()) >> 6));
    const int order = a.text().compare(b.text());  // bytes of UTF-8 are in the order of code points
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto &left = a.items(), &right = b.items();
    for (size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      if (!same_or_equal(runtime, left[i], right[i]))
        return compare(runtime, left[i], right[i], symbol);
    return left.size() < right.size() ? -1 : left.size() > right.size() ? 1 : 0;
  }
  if (a.is_undefined()) fail_undefined(runtime, a);
  if (b.is_undefined()) fail_undefined(runtime, b);
  runtime.fail("'", symbol, "' not supported between instances of '", type_name(a), "' and '",
               type_name(b), "'");
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is_string())
        runtime.fail("'in <string>' requires string as left operand, not ", type_name(item));
      runtime.step(static_cast<int64_t>(container.text().size() >> 4));
      return find_text(container.text(), item.text()) != std::string::npos;
    case Kind::kDict:
      return container.dict().find(item) != nullptr;
    case Kind::kDictView:
      return view_contains(runtime, container, item);
    case Kind::kRange:
      return range_contains(container.as<RangeObject>(), item);
    default:
      break;
  }
  if (!is_iterable(container))
    runtime.fail("argument of type '", type_name(container), "' is not iterable");
  Iteration iteration(runtime, container);
  for (Value other; iteration.next(other);)
    if (same_or_equal(runtime, other, item)) return true;
  return false;
}

int64_t resolve_index(Int index, int64_t length) {
  if (index < 0) index += length;
  return index < 0 || index >= length ? -1 : static_cast<int64_t>(index);
}

Value substring(Runtime& runtime, const StringObject& text, int64_t begin, int64_t end) {
  const auto size = static_cast<int64_t>(text.text.size());
  if (text.length == size)
    return Value::string(
        runtime, text.text.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
        text.markup);
  runtime.step(size >> 6);
  const size_t first = byte_offset(text.text, begin);
  const size_t bytes = byte_offset(std::string_view(text.text).substr(first), end - begin);
  return Value::string(runtime, text.text.substr(first, bytes), text.markup);
}

namespace {

// What Python's `{object!r} has no attribute` shows.
std::string object_type(const Value& object) {
  return object.is(Kind::kNone) ? "None" : std::string(type_name(object)) + " object";
}

Value no_attribute(Runtime& runtime, const Value& object, const std::string& name) {
  return Value::undefined(runtime, "'" + object_type(object) + "' has no attribute '" + name + "'");
}

}  // namespace

Value get_attribute(Runtime& runtime, const Value& object, const std::string& name) {
  if (object.is_undefined()) fail_undefined(runtime, object);
  Value result;
  if (find_attribute(runtime, object, name, result)) return result;
  if (object.is(Kind::kDict))
    if (const Value* item = object.dict().find(name)) return *item;
  return no_attribute(runtime, object, name);
}

Value get_item(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_undefined()) fail_undefined(runtime, object);
  if (object.is(Kind::kDict)) {
    if (is_hashable(key))
      if (const Value* item = object.dict().find(key)) return *item;
  } else if (key.is_integral() &&
             (object.is_string() || object.is_sequence() || object.is(Kind::kRange))) {
    const int64_t index = resolve_index(key.as_int(), length_of(object));
    if (index >= 0 && object.is_sequence()) return object.items()[static_cast<size_t>(index)];
    if (index >= 0 && object.is_string())
      return substring(runtime, object.as_string(), index, index + 1);
    if (index >= 0)
      return Value::integer(object.as<RangeObject>().start +
                            object.as<RangeObject>().step * static_cast<Int>(index));
  }
  if (key.is_string()) {
    Value result;
    if (find_attribute(runtime, object, key.text(), result)) return result;
    return no_attribute(runtime, object, key.text());
  }
  return Value::undefined(runtime, object_type(object) + " has no element " + to_str(runtime, key));
}

namespace {

// A bound of a slice; what lies beyond any length acts like the largest integer.
int64_t bound_of(Runtime& runtime, const Value& bound, int64_t otherwise) {
  if (bound.is(Kind::kNone)) return otherwise;
  if (!bound.is_integral())
    runtime.fail("slice indices must be integers or None, not ", type_name(bound));
  constexpr Int kLargest = static_cast<Int>(1) << 62;
  return static_cast<int64_t>(std::clamp(bound.as_int(), -kLargest, kLargest));
}

// The positions first, first + stride, ... of a slice.
struct SlicePlan {
  int64_t first, last, stride, count;
};

SlicePlan plan_slice(Runtime& runtime, int64_t length, const Value& start, const Value& stop,
                     const Value& step) {
  const int64_t stride = bound_of(runtime, step, 1);
  if (stride == 0) runtime.fail("slice step cannot be zero");
  const bool forward = stride > 0;
  const auto place = [&](const Value& bound, int64_t otherwise) {
    int64_t index = bound_of(runtime, bound, otherwise);
    if (bound.is(Kind::kNone)) return index;
    if (index < 0) index += length;
    return forward ? std::clamp<int64_t>(index, 0, length)
                   : std::clamp<int64_t>(index, -1, length - 1);
  };
  const int64_t first = place(start, forward ? 0 : length - 1),
                last = place(stop, forward ? length : -1);
  const int64_t distance = forward ? last - first : first - last;
  const int64_t size = forward ? stride : -stride;
  return {first, last, stride, distance <= 0 ? 0 : (distance - 1) / size + 1};
}

Value slice_string(Runtime& runtime, const StringObject& text, const SlicePlan& plan) {
  if (plan.stride == 1)
    return substring(runtime, text, plan.first, std::max(plan.first, plan.last));
  runtime.reserve(8 * text.length);
  std::u32string points;
  for (size_t at = 0; at < text.text.size();) points += next_code_point(text.text, at);
  runtime.release(8 * text.length);
  std::string out;
  for (int64_t i = 0; i < plan.count; ++i)
    append_code_point(out, points[static_cast<size_t>(plan.first + i * plan.stride)]);
  return Value::string(runtime, std::move(out), text.markup);
}

}  // namespace

Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
            const Value& step) {
  if (object.is_undefined()) fail_undefined(runtime, object);
  if (!object.is_string() && !object.is_sequence() && !object.is(Kind::kRange))
    runtime.fail("'", type_name(object), "' object cannot be sliced");
  const SlicePlan plan = plan_slice(runtime, length_of(object), start, stop, step);
  if (object.is_string()) return slice_string(runtime, object.as_string(), plan);
  if (object.is(Kind::kRange)) {
    const auto& range = object.as<RangeObject>();
    return Value::object(
        Kind::kRange, std::make_shared<RangeObject>(&runtime, range.start + plan.first * range.step,
                                                    range.start + plan.last * range.step,
                                                    range.step * plan.stride, plan.count));
  }
  Items items(runtime);
  for (int64_t i = 0; i < plan.count; ++i)
    items.push(object.items()[static_cast<size_t>(plan.first + i * plan.stride)]);
  return object.is(Kind::kList) ? Value::list(runtime, items.take())
                                : Value::tuple(runtime, items.take());
}

}  // namespace signround::jinja
