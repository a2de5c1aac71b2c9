// Ctrl-C and SIGTERM end a run at the next safe moment: the error says how to go on.
#pragma once

namespace signround {

// From construction to destruction, the two signals set a flag instead of killing the process; a
// second one kills it.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

// Throws Error{kInterrupted} if one of the signals came.
void check_interrupted();

}  // namespace signround
