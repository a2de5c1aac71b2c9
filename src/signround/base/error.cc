#include "signround/base/error.h"

#include <sstream>

namespace signround {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInternal:
      return 1;
    case ErrorKind::kInvalidArgument:
      return 2;
    case ErrorKind::kCorruptFile:
      return 3;
    case ErrorKind::kUnsupported:
      return 4;
    case ErrorKind::kIo:
      return 5;
    case ErrorKind::kBusy:
      return 6;
    case ErrorKind::kMemory:
      return 7;
    case ErrorKind::kDevice:
      return 8;
    case ErrorKind::kStrict:
      return 9;
    case ErrorKind::kInterrupted:
      return 130;
  }
  return 1;
}

void fail_with(ErrorKind kind, const char* where, std::initializer_list<ErrorPart> parts) {
  std::ostringstream text;
  text << '[' << where << "] ";
  for (const ErrorPart& part : parts) text << part;
  throw Error(kind, text.str());
}

}  // namespace signround
