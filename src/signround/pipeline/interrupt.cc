#include "signround/pipeline/interrupt.h"

#include <csignal>

#include "signround/base/error.h"

namespace signround {
namespace {

volatile std::sig_atomic_t g_signal = 0;

void on_signal(int signal) {
  g_signal = signal;
  std::signal(signal, SIG_DFL);  // the second one kills
}

}  // namespace

InterruptGuard::InterruptGuard() {
  g_signal = 0;
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

void check_interrupted() {
  if (g_signal)
    fail(ErrorKind::kInterrupted, "stopped", "by signal ", int(g_signal),
         "; finished blocks are kept, the same command continues");
}

}  // namespace signround
