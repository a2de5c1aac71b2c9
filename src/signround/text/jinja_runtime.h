// What one rendering may use: steps, memory, depth. A template is code from strangers: it must end,
// and end small.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/random.h"

namespace signround::jinja {

// Place in the template, from 1; columns are code points.
struct Position {
  int32_t line = 1;
  int32_t column = 1;
};

struct Limits {
  int64_t steps =
      20'000'000;  // expressions, statements, items; 64 bytes of copied text count as one
  int64_t memory = 256 << 20;       // bytes of values that live at the same time
  int64_t string_bytes = 64 << 20;  // of one string, and of the output
  int depth = 1000;                 // of nested evaluation: expressions, blocks, macro calls
};
inline constexpr uint64_t kRandomSeed = 42;         // of every rendering
inline constexpr size_t kMaxSourceBytes = 1 << 20;  // of a template; known ones have up to 30 KB
inline constexpr int kMaxValueDepth = 200;       // of lists in lists, iterators over iterators, ...
inline constexpr int kMaxSyntaxDepth = 200;      // of brackets and blocks in the source
inline constexpr int kMaxExpressionDepth = 500;  // of operators: a + b + c has 3 levels

class Runtime;

// Base of everything that a value refers to. Objects made during a rendering are counted against
// its memory.
struct Object {
  Object(Runtime* run, int64_t size, int levels);
  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  Runtime* const runtime;  // null: a constant of the template
  const int64_t bytes;
  const int depth;  // 1 + the deepest object inside
};

class Runtime {
 public:
  // `where` names the template in messages.
  explicit Runtime(std::string where, const Limits& bounds = {})
      : limits(bounds), where_(std::move(where)) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  // Error{kInvalidArgument} "[where] line L, column C: ...".
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    signround::fail(ErrorKind::kInvalidArgument, where_.c_str(), "line ", position.line,
                    ", column ", position.column, ": ", parts...);
  }

  void step(int64_t count = 1) {
    steps_ += count;
    if (steps_ > limits.steps) [[unlikely]]
      fail("the template does not end: more than ", limits.steps, " steps");
  }
  void reserve(int64_t bytes) {
    step(bytes >> 6);
    memory_ += bytes;
    if (memory_ > limits.memory) [[unlikely]] {
      memory_ -= bytes;
      fail("the template needs more than ", limits.memory >> 20, " MiB");
    }
  }
  void release(int64_t bytes) { memory_ -= bytes; }
  void check_string_bytes(int64_t bytes) const {
    if (bytes > limits.string_bytes) [[unlikely]]
      fail("a string would be longer than ", limits.string_bytes >> 20, " MiB");
  }

  // An object that lives until the rendering ends: those that can refer to each other in circles.
  template <class T, class... Args>
  T& own(Args&&... args) {
    auto object = std::make_unique<T>(this, std::forward<Args>(args)...);
    T& result = *object;
    owned_.push_back(std::move(object));
    return result;
  }

  // Python's generator of random numbers as `random.seed(42)` leaves it, from the first use on.
  PythonRandom& random() {
    if (!random_) random_.emplace(kRandomSeed);
    return *random_;
  }

  const Limits limits;
  Position position;           // of what is being evaluated
  std::optional<std::tm> now;  // empty: the system's local time

 private:
  std::string where_;
  int64_t steps_ = 0;
  int64_t memory_ = 0;
  std::optional<PythonRandom> random_;
  std::vector<std::unique_ptr<Object>> owned_;  // last: what it frees is counted above
};

// A string under construction, counted while it grows.
class Text {
 public:
  explicit Text(Runtime& runtime) : runtime_(runtime) {}
  ~Text() { runtime_.release(reserved_); }
  Text(const Text&) = delete;
  Text& operator=(const Text&) = delete;

  void append(std::string_view piece) {
    grow(static_cast<int64_t>(piece.size()));
    text_.append(piece);
  }
  void append(int64_t count, char c) {
    grow(count);
    text_.append(static_cast<size_t>(count), c);
  }
  void append_repeated(int64_t count, std::string_view piece);
  int64_t size() const { return static_cast<int64_t>(text_.size()); }
  const std::string& view() const { return text_; }
  std::string take() { return std::move(text_); }

 private:
  void grow(int64_t more);

  Runtime& runtime_;
  std::string text_;
  int64_t reserved_ = 0;
};

}  // namespace signround::jinja
