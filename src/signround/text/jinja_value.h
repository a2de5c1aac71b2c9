// Values of the template language: Python's, as far as templates can see them.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "signround/text/jinja_runtime.h"

namespace signround::jinja {

// Python's integers have no bound; these hold any 64-bit result of +, -, * exactly and are checked
// beyond.
using Int = __int128;
std::string to_string(Int value);

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kDictView,
  kRange,
  kIterator,
  kNamespace,
  kMacro,
  kLoop,
  kCycler,
  kJoiner,
  kFunction,
};

struct StringObject;
struct SequenceObject;
struct DictObject;
struct ViewObject;
struct RangeObject;
struct IteratorObject;
struct FunctionObject;

class Value {
 public:
  Value() = default;  // undefined, without a reason
  static Value none();
  static Value boolean(bool b);
  static Value integer(Int i);
  static Value real(double f);
  static Value string(Runtime& runtime, std::string text, bool markup = false);
  static Value constant(std::string text);  // a string that outlives renderings
  static Value list(Runtime& runtime, std::vector<Value> items);
  static Value tuple(Runtime& runtime, std::vector<Value> items);
  static Value undefined(Runtime& runtime, std::string reason);
  template <class T>
  static Value object(Kind kind, std::shared_ptr<T> object) {
    Value value;
    value.kind_ = kind;
    value.object_ = std::move(object);
    return value;
  }
  // A value that does not keep its object: the runtime does.
  static Value owned(Kind kind, Object& object) {
    return Value::object(kind, std::shared_ptr<Object>(std::shared_ptr<Object>(), &object));
  }

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  bool as_bool() const { return int_ != 0; }
  Int as_int() const { return int_; }         // of kInt and kBool
  double as_float() const { return float_; }  // of kFloat
  double to_float() const { return kind_ == Kind::kFloat ? float_ : static_cast<double>(int_); }
  const std::string& text() const;
  const StringObject& as_string() const { return as<StringObject>(); }
  const std::vector<Value>& items() const;  // of kList and kTuple
  const DictObject& dict() const { return as<DictObject>(); }
  template <class T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  const std::shared_ptr<Object>& object() const { return object_; }
  int depth() const { return object_ ? object_->depth : 0; }
  // Python's `is`.
  bool same_as(const Value& other) const;

 private:
  Kind kind_ = Kind::kUndefined;
  union {
    Int int_ = 0;
    double float_;
  };
  std::shared_ptr<Object> object_;
};

int depth_of(const std::vector<Value>& values);

struct StringObject : Object {
  StringObject(Runtime* run, std::string content, bool safe);
  const std::string text;  // valid UTF-8
  const int64_t length;    // code points
  const bool markup;       // marked as safe HTML: joins with other strings escape those
};

struct SequenceObject : Object {
  SequenceObject(Runtime* run, std::vector<Value> values, bool is_group);
  const std::vector<Value> items;
  const bool group;  // a tuple of groupby, whose two items have the names grouper and list
};

// Keys in the order of their first insertion.
struct DictObject : Object {
  using Entry = std::pair<Value, Value>;
  DictObject(Runtime& run, std::vector<Entry> values);  // later values of equal keys win
  ~DictObject() override;
  const Value* find(const Value& key) const;  // fails for a key that cannot be hashed
  const Value* find(std::string_view key) const;
  // Only for namespaces, and while the dict is made: dictionaries are shared and must not change
  // under their users.
  void set(Value key, Value value);
  std::vector<Entry> entries;

 private:
  int64_t locate(uint64_t hash,
                 const std::function<bool(const Value&)>& equal) const;  // entry, or -1
  void add_to_table(uint64_t hash, size_t entry);
  int64_t reserved_ = 0;  // for the entries
  std::vector<uint64_t> hashes_;
  std::vector<int32_t> table_;  // open addressing, entry + 1; empty for short dicts
};

struct ViewObject : Object {
  enum class Part { kKeys, kValues, kItems };
  ViewObject(Runtime* run, std::shared_ptr<Object> of, Part which)
      : Object(run, 96, of->depth + 1), dict(std::move(of)), part(which) {}
  const std::vector<DictObject::Entry>& entries() const {
    return static_cast<DictObject&>(*dict).entries;
  }
  Value item(Runtime& run, const DictObject::Entry& entry) const;
  const std::shared_ptr<Object> dict;
  const Part part;
};

struct RangeObject : Object {
  RangeObject(Runtime* run, Int first, Int end, Int stride, int64_t count)
      : Object(run, 96, 1), start(first), stop(end), step(stride), length(count) {}
  const Int start, stop, step;
  const int64_t length;
};

// A generator: what filters like map and select return. It can be walked once, and does its work
// while it is.
struct IteratorObject : Object {
  using Next = std::function<bool(Runtime&, Value&)>;
  // `levels` is the depth of the deepest value that `step` holds.
  IteratorObject(Runtime* run, const char* type, int levels, Next step)
      : Object(run, 160, levels + 1), name(type), next(std::move(step)) {}
  const char* const name;  // as Python prints it
  const Next next;
};
Value make_iterator(Runtime& runtime, const char* name, int depth, IteratorObject::Next next);

// The only value that templates can change.
struct NamespaceObject : Object {
  NamespaceObject(Runtime* run, std::vector<DictObject::Entry> values);
  DictObject attributes;
};

struct CyclerObject : Object {
  CyclerObject(Runtime* run, std::vector<Value> values);
  const std::vector<Value> items;
  size_t position = 0;
};

struct JoinerObject : Object {
  JoinerObject(Runtime* run, Value text);
  const Value separator;
  bool used = false;
};

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// A built-in function, or a method with the object that it belongs to.
struct FunctionObject : Object {
  using Call = std::function<Value(Runtime&, const Args&)>;
  FunctionObject(Runtime* run, std::string title, int levels, Call code)
      : Object(run, 160, levels + 1), name(std::move(title)), call(std::move(code)) {}
  const std::string name;
  const Call call;
};
Value make_function(Runtime& runtime, std::string name, int depth, FunctionObject::Call call);

Value make_dict(Runtime& runtime, std::vector<DictObject::Entry> entries);

// The arguments of a call bound to the names of a signature, by Python's rules. A name that is ""
// can only be given by position. Fails, naming `function`, for too many, unknown, double, or
// missing arguments (the first `required`).
class Params {
 public:
  Params(Runtime& runtime, std::string_view function, const Args& args,
         std::initializer_list<std::string_view> names, size_t required = 0);
  bool has(size_t i) const { return values_[i] != nullptr; }
  const Value& operator[](size_t i) const { return *values_[i]; }
  // Given and not None.
  bool given(size_t i) const { return has(i) && !values_[i]->is(Kind::kNone); }
  bool flag(size_t i, bool otherwise) const;
  int64_t integer(size_t i, int64_t otherwise) const;
  const std::string& string(size_t i) const;  // fails unless it is one

 private:
  Runtime& runtime_;
  std::string function_;
  std::vector<const Value*> values_;
};

// Walks over the items of a value, as Python's iter() does.
class Iteration {
 public:
  Iteration(Runtime& runtime, Value source);  // fails where the value is not iterable
  bool next(Value& item);

 private:
  Runtime& runtime_;
  Value source_;
  size_t at_ = 0;
};
bool is_iterable(const Value& value);
// A list under construction, counted while it grows.
template <class T>
class Growing {
 public:
  explicit Growing(Runtime& runtime) : runtime_(runtime) {}
  ~Growing() { runtime_.release(reserved_); }
  Growing(const Growing&) = delete;
  Growing& operator=(const Growing&) = delete;
  void push(T value) {
    runtime_.step();
    if (values_.size() % kChunk == 0) {
      runtime_.reserve(kChunk * static_cast<int64_t>(sizeof(T)));
      reserved_ += kChunk * static_cast<int64_t>(sizeof(T));
    }
    values_.push_back(std::move(value));
  }
  std::vector<T>& values() { return values_; }
  std::vector<T> take() { return std::move(values_); }

 private:
  static constexpr int64_t kChunk = 64;
  Runtime& runtime_;
  std::vector<T> values_;
  int64_t reserved_ = 0;
};
using Items = Growing<Value>;
using Pieces = Growing<std::string_view>;
// All items; counted against the limits.
std::vector<Value> collect(Runtime& runtime, const Value& value);

// Number of items, or -1 where Python's len() raises.
int64_t length_of(const Value& value);
const char* type_name(const Value& value);
bool truthy(const Value& value);

// Python's repr() and str().
std::string float_repr(double value);
std::string string_repr(std::string_view text);
void append_repr(Text& out, Runtime& runtime, const Value& value, int depth = 0);
void append_str(Text& out, Runtime& runtime, const Value& value);
std::string to_str(Runtime& runtime, const Value& value);

}  // namespace signround::jinja
