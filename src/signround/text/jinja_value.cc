#include "signround/text/jinja_value.h"

#include <algorithm>

#include "signround/text/jinja_operators.h"
#include "signround/text/jinja_unicode.h"

namespace signround::jinja {

Object::Object(Runtime* run, int64_t size, int levels) : runtime(run), bytes(size), depth(levels) {
  if (runtime == nullptr) return;
  if (depth > kMaxValueDepth)
    runtime->fail("values nested deeper than ", kMaxValueDepth, " levels");
  runtime->reserve(bytes);
}

Object::~Object() {
  if (runtime != nullptr) runtime->release(bytes);
}

void Text::append_repeated(int64_t count, std::string_view piece) {
  if (count <= 0 || piece.empty()) return;
  if (count > runtime_.limits.string_bytes) runtime_.check_string_bytes(count);
  grow(count * static_cast<int64_t>(piece.size()));
  for (int64_t i = 0; i < count; ++i) text_.append(piece);
}

void Text::grow(int64_t more) {
  const int64_t size = static_cast<int64_t>(text_.size()) + more;
  runtime_.check_string_bytes(size);
  if (size <= reserved_) return;
  const int64_t target = std::max(size, std::min(2 * reserved_, runtime_.limits.string_bytes));
  runtime_.reserve(target - reserved_);
  reserved_ = target;
  text_.reserve(static_cast<size_t>(target));
}

std::string to_string(Int value) {
  if (value == 0) return "0";
  const bool negative = value < 0;
  auto rest =
      negative ? -static_cast<unsigned __int128>(value) : static_cast<unsigned __int128>(value);
  char digits[48];
  size_t at = sizeof digits;
  for (; rest != 0; rest /= 10) digits[--at] = static_cast<char>('0' + static_cast<int>(rest % 10));
  if (negative) digits[--at] = '-';
  return std::string(digits + at, sizeof digits - at);
}

Value Value::none() {
  Value value;
  value.kind_ = Kind::kNone;
  return value;
}

Value Value::boolean(bool b) {
  Value value;
  value.kind_ = Kind::kBool;
  value.int_ = b ? 1 : 0;
  return value;
}

Value Value::integer(Int i) {
  Value value;
  value.kind_ = Kind::kInt;
  value.int_ = i;
  return value;
}

Value Value::real(double f) {
  Value value;
  value.kind_ = Kind::kFloat;
  value.float_ = f;
  return value;
}

Value Value::string(Runtime& runtime, std::string text, bool markup) {
  return object(Kind::kString, std::make_shared<StringObject>(&runtime, std::move(text), markup));
}

Value Value::constant(std::string text) {
  return object(Kind::kString, std::make_shared<StringObject>(nullptr, std::move(text), false));
}

Value Value::list(Runtime& runtime, std::vector<Value> items) {
  return object(Kind::kList, std::make_shared<SequenceObject>(&runtime, std::move(items), false));
}

Value Value::tuple(Runtime& runtime, std::vector<Value> items) {
  return object(Kind::kTuple, std::make_shared<SequenceObject>(&runtime, std::move(items), false));
}

Value Value::undefined(Runtime& runtime, std::string reason) {
  return object(Kind::kUndefined,
                std::make_shared<StringObject>(&runtime, std::move(reason), false));
}

const std::string& Value::text() const { return as_string().text; }

const std::vector<Value>& Value::items() const { return as<SequenceObject>().items; }

bool Value::same_as(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kNone:
    case Kind::kBool:
      return int_ == other.int_;
    case Kind::kInt:
      return int_ == other.int_ && int_ >= -5 && int_ <= 256;  // CPython's cached integers
    case Kind::kFloat:
      return false;
    default:
      return object_ == other.object_ && object_ != nullptr;
  }
}

int depth_of(const std::vector<Value>& values) {
  int depth = 0;
  for (const Value& value : values) depth = std::max(depth, value.depth());
  return depth;
}

StringObject::StringObject(Runtime* run, std::string content, bool safe)
    : Object(run, 112 + static_cast<int64_t>(content.size()), 0),
      text(std::move(content)),
      length(count_code_points(text)),
      markup(safe) {
  if (run != nullptr) run->check_string_bytes(static_cast<int64_t>(text.size()));
}

SequenceObject::SequenceObject(Runtime* run, std::vector<Value> values, bool is_group)
    : Object(run, 96 + static_cast<int64_t>(values.size() * sizeof(Value)), depth_of(values) + 1),
      items(std::move(values)),
      group(is_group) {}

namespace {

int depth_of_entries(const std::vector<DictObject::Entry>& entries) {
  int depth = 0;
  for (const auto& [key, value] : entries) depth = std::max({depth, key.depth(), value.depth()});
  return depth;
}

constexpr int64_t kEntryBytes = static_cast<int64_t>(sizeof(DictObject::Entry)) + 24;
constexpr size_t kShortDict = 8;

}  // namespace

DictObject::DictObject(Runtime& run, std::vector<Entry> values)
    : Object(&run, 160, depth_of_entries(values) + 1) {
  entries.reserve(values.size());
  for (Entry& entry : values) set(std::move(entry.first), std::move(entry.second));
}

DictObject::~DictObject() { runtime->release(reserved_); }

int64_t DictObject::locate(uint64_t hash, const std::function<bool(const Value&)>& equal) const {
  if (table_.empty()) {
    for (size_t i = 0; i < entries.size(); ++i)
      if (hashes_[i] == hash && equal(entries[i].first)) return static_cast<int64_t>(i);
    return -1;
  }
  const size_t mask = table_.size() - 1;
  for (size_t slot = hash & mask; table_[slot] != 0; slot = (slot + 1) & mask) {
    runtime->step();
    const auto entry = static_cast<size_t>(table_[slot] - 1);
    if (hashes_[entry] == hash && equal(entries[entry].first)) return static_cast<int64_t>(entry);
  }
  return -1;
}

void DictObject::add_to_table(uint64_t hash, size_t entry) {
  const size_t mask = table_.size() - 1;
  size_t slot = hash & mask;
  while (table_[slot] != 0) slot = (slot + 1) & mask;
  table_[slot] = static_cast<int32_t>(entry) + 1;
}

const Value* DictObject::find(const Value& key) const {
  const int64_t entry = locate(hash_of(*runtime, key),
                               [&](const Value& other) { return equals(*runtime, key, other); });
  return entry < 0 ? nullptr : &entries[static_cast<size_t>(entry)].second;
}

const Value* DictObject::find(std::string_view key) const {
  const int64_t entry = locate(hash_of_text(key), [&](const Value& other) {
    return other.is_string() && other.text() == key;
  });
  return entry < 0 ? nullptr : &entries[static_cast<size_t>(entry)].second;
}

void DictObject::set(Value key, Value value) {
  const uint64_t hash = hash_of(*runtime, key);
  const int64_t entry =
      locate(hash, [&](const Value& other) { return equals(*runtime, key, other); });
  if (entry >= 0) {
    entries[static_cast<size_t>(entry)].second = std::move(value);
    return;
  }
  runtime->step();
  runtime->reserve(kEntryBytes);
  reserved_ += kEntryBytes;
  entries.emplace_back(std::move(key), std::move(value));
  hashes_.push_back(hash);
  if (entries.size() > kShortDict && entries.size() * 2 > table_.size()) {
    table_.assign(std::max<size_t>(64, table_.size() * 2), 0);
    for (size_t i = 0; i < entries.size(); ++i) add_to_table(hashes_[i], i);
  } else if (!table_.empty()) {
    add_to_table(hash, entries.size() - 1);
  }
}

Value ViewObject::item(Runtime& run, const DictObject::Entry& entry) const {
  if (part == Part::kKeys) return entry.first;
  if (part == Part::kValues) return entry.second;
  return Value::tuple(run, {entry.first, entry.second});
}

Value make_iterator(Runtime& runtime, const char* name, int depth, IteratorObject::Next next) {
  return Value::object(Kind::kIterator,
                       std::make_shared<IteratorObject>(&runtime, name, depth, std::move(next)));
}

Value make_function(Runtime& runtime, std::string name, int depth, FunctionObject::Call call) {
  return Value::object(Kind::kFunction, std::make_shared<FunctionObject>(&runtime, std::move(name),
                                                                         depth, std::move(call)));
}

Value make_dict(Runtime& runtime, std::vector<DictObject::Entry> entries) {
  return Value::object(Kind::kDict, std::make_shared<DictObject>(runtime, std::move(entries)));
}

NamespaceObject::NamespaceObject(Runtime* run, std::vector<DictObject::Entry> values)
    : Object(run, 96, 0), attributes(*run, std::move(values)) {}

CyclerObject::CyclerObject(Runtime* run, std::vector<Value> values)
    : Object(run, 96 + static_cast<int64_t>(values.size() * sizeof(Value)), 0),
      items(std::move(values)) {}

JoinerObject::JoinerObject(Runtime* run, Value text)
    : Object(run, 96, 0), separator(std::move(text)) {}

Params::Params(Runtime& runtime, std::string_view function, const Args& args,
               std::initializer_list<std::string_view> names, size_t required)
    : runtime_(runtime), function_(function), values_(names.size(), nullptr) {
  if (args.positional.size() > names.size())
    runtime.fail(function, "() takes at most ", names.size(), " arguments, got ",
                 args.positional.size());
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto* found = name.empty() ? names.end() : std::find(names.begin(), names.end(), name);
    if (found == names.end())
      runtime.fail(function, "() got an unexpected keyword argument '", name, "'");
    const auto i = static_cast<size_t>(found - names.begin());
    if (values_[i] != nullptr)
      runtime.fail(function, "() got multiple values for argument '", name, "'");
    values_[i] = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (values_[i] == nullptr)
      runtime.fail(function, "() misses argument ", i + 1, " of ", required);
}

bool Params::flag(size_t i, bool otherwise) const {
  return has(i) ? truthy(*values_[i]) : otherwise;
}

int64_t Params::integer(size_t i, int64_t otherwise) const {
  if (!has(i)) return otherwise;
  const Value& value = *values_[i];
  if (!value.is_integral())
    runtime_.fail(function_, "(): '", type_name(value),
                  "' object cannot be interpreted as an integer");
  // Positions and counts beyond any string or list act like the largest one.
  const Int bound = static_cast<Int>(1) << 62;
  return static_cast<int64_t>(std::clamp(value.as_int(), -bound, bound));
}

const std::string& Params::string(size_t i) const {
  const Value& value = *values_[i];
  if (!value.is_string())
    runtime_.fail(function_, "() argument must be str, not ", type_name(value));
  return value.text();
}

Iteration::Iteration(Runtime& runtime, Value source)
    : runtime_(runtime), source_(std::move(source)) {
  if (!is_iterable(source_)) runtime.fail("'", type_name(source_), "' object is not iterable");
}

bool Iteration::next(Value& item) {
  runtime_.step();
  switch (source_.kind()) {
    case Kind::kString: {
      const std::string& text = source_.text();
      if (at_ >= text.size()) return false;
      const size_t begin = at_;
      next_code_point(text, at_);
      item = Value::string(runtime_, text.substr(begin, at_ - begin));
      return true;
    }
    case Kind::kList:
    case Kind::kTuple:
      if (at_ >= source_.items().size()) return false;
      item = source_.items()[at_++];
      return true;
    case Kind::kDict:
      if (at_ >= source_.dict().entries.size()) return false;
      item = source_.dict().entries[at_++].first;
      return true;
    case Kind::kDictView: {
      const auto& view = source_.as<ViewObject>();
      if (at_ >= view.entries().size()) return false;
      item = view.item(runtime_, view.entries()[at_++]);
      return true;
    }
    case Kind::kRange: {
      const auto& range = source_.as<RangeObject>();
      if (static_cast<int64_t>(at_) >= range.length) return false;
      item = Value::integer(range.start + range.step * static_cast<Int>(at_++));
      return true;
    }
    case Kind::kIterator:
      return source_.as<IteratorObject>().next(runtime_, item);
    default:
      return false;
  }
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kDictView:
    case Kind::kRange:
    case Kind::kIterator:
      return true;
    default:
      return false;
  }
}

std::vector<Value> collect(Runtime& runtime, const Value& value) {
  Iteration iteration(runtime, value);
  Items items(runtime);
  for (Value item; iteration.next(item);) items.push(std::move(item));
  return items.take();
}

int64_t length_of(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return value.as_string().length;
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kDictView:
      return static_cast<int64_t>(value.as<ViewObject>().entries().size());
    case Kind::kRange:
      return value.as<RangeObject>().length;
    default:
      return -1;
  }
}

const char* type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return value.as_string().markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kDictView: {
      constexpr const char* kNames[] = {"dict_keys", "dict_values", "dict_items"};
      return kNames[static_cast<int>(value.as<ViewObject>().part)];
    }
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return "generator";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kMacro:
      return "Macro";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
    case Kind::kFunction:
      return "function";
  }
  return "object";
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_float() != 0;
    default: {
      const int64_t length = length_of(value);
      return length != 0;
    }
  }
}

}  // namespace signround::jinja
