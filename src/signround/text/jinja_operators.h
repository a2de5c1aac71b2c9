// Python's operators on values. All failures name the types, as Python's TypeError does.
#pragma once

#include "signround/text/jinja_value.h"

namespace signround::jinja {

// Fails with the reason why the value is undefined.
[[noreturn]] void fail_undefined(Runtime& runtime, const Value& value);

bool equals(Runtime& runtime, const Value& a, const Value& b);
bool is_hashable(const Value& value);
// Fails for values that cannot be dictionary keys. Equal values have equal hashes.
uint64_t hash_of(Runtime& runtime, const Value& value);
uint64_t hash_of_text(std::string_view text);
// -1, 0, 1, or 2 where a NaN makes both orders false; `symbol` is the operator, for the message
// where there is no order.
int compare(Runtime& runtime, const Value& a, const Value& b, const char* symbol);
bool contains(Runtime& runtime, const Value& container, const Value& item);

enum class BinaryOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
Value binary(Runtime& runtime, BinaryOp op, const Value& a, const Value& b);
Value negate(Runtime& runtime, const Value& a);
Value plus(Runtime& runtime, const Value& a);

// `object.name`: attributes first, then items. Undefined where there is neither.
Value get_attribute(Runtime& runtime, const Value& object, const std::string& name);
// `object[key]`: items first, then, for strings, attributes.
Value get_item(Runtime& runtime, const Value& object, const Value& key);
// Methods and properties only (jinja_methods.cc); false where the type has none of this name.
bool find_attribute(Runtime& runtime, const Value& object, std::string_view name, Value& result);
// `object[start:stop:step]`; a bound that was left out is None.
Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
            const Value& step);

// An index as Python's list[index] takes it; -1 where it is out of range.
int64_t resolve_index(Int index, int64_t length);
Value substring(Runtime& runtime, const StringObject& text, int64_t begin, int64_t end);

// str.format and the % operator on strings.
// What is put into a format that is marked as safe HTML is escaped.
std::string format_percent(Runtime& runtime, const StringObject& format, const Value& args);
std::string format_braces(Runtime& runtime, const StringObject& format, const Args& args);
std::string escape_html(Runtime& runtime, std::string_view text);
// Markup's rule for strings that are joined to it: those that are not marked as safe are escaped.
std::string escape_for_markup(Runtime& runtime, const Value& value);

// Python's int(text, base) and float(text); false where they raise ValueError.
bool parse_int(std::string_view text, int base, Int& result);
bool parse_float(std::string_view text, double& result);
// int() of a float: false for infinities, NaN, and beyond 127 bits.
bool float_to_int(double value, Int& result);

}  // namespace signround::jinja
