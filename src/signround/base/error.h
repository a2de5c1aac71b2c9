// The one exception type of the program. Lowest layer: knows no tensor and no file format.
#pragma once

#include <initializer_list>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace signround {

// What went wrong, in the terms that decide the exit code (see exit_code and docs/exit_codes.md).
enum class ErrorKind {
  kInternal,         // a bug of ours
  kInvalidArgument,  // the user's flags, options or request
  kCorruptFile,      // a file that breaks its own format
  kUnsupported,      // a sound request that this program cannot serve
  kIo,               // the operating system said no: disk full, permission, network
  kBusy,         // somebody else's: a lock, a folder that holds something else, a journal of other
                 // settings
  kMemory,       // the plan needs more memory than there is
  kDevice,       // an accelerator failed or was not built
  kStrict,       // --strict: something was degraded that would otherwise be counted and reported
  kInterrupted,  // Ctrl-C or SIGTERM; the run can be continued
};

// Exit code of the program for an error of this kind. Documented in docs/exit_codes.md; stable.
int exit_code(ErrorKind kind);

// what() reads "[where] found, expected": values, tensor name, path and offset belong into it.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& what) : std::runtime_error(what), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// A piece of an error's text: anything with operator<<. Refers to it, so it must outlive the call.
// Knows no type, so that the hundreds of combinations of pieces cost no code of their own.
class ErrorPart {
 public:
  ErrorPart(const char* text)
      : value_(text),
        write_([](std::ostream& out, const void* v) { out << static_cast<const char*>(v); }) {}
  template <class T>
  ErrorPart(const T& value)
      : value_(&value),
        write_([](std::ostream& out, const void* v) { out << *static_cast<const T*>(v); }) {}
  friend std::ostream& operator<<(std::ostream& out, const ErrorPart& part) {
    part.write_(out, part.value_);
    return out;
  }

 private:
  const void* value_;
  void (*write_)(std::ostream&, const void*);
};

[[noreturn]] void fail_with(ErrorKind kind, const char* where,
                            std::initializer_list<ErrorPart> parts);

// Throws Error{kind, "[where] parts..."}; parts are streamed one after the other.
template <class... Parts>
[[noreturn, gnu::always_inline]] inline void fail(ErrorKind kind, const char* where,
                                                  const Parts&... parts) {
  fail_with(kind, where, {ErrorPart(parts)...});
}

// `text` as an error quotes what a file holds: at most `limit` bytes of it, cut between characters
// and then followed by "..."; control characters and bytes that are not UTF-8 as \xNN, so that the
// message itself is always UTF-8 on one line.
std::string excerpt(std::string_view text, size_t limit = 80);

// A precondition that a caller's input can break: fails with kInvalidArgument unless ok.
template <class... Parts>
[[gnu::always_inline]] inline void require(bool ok, const char* where, const Parts&... parts) {
  if (!ok) [[unlikely]]
    fail_with(ErrorKind::kInvalidArgument, where, {ErrorPart(parts)...});
}

}  // namespace signround
