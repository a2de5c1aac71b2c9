#include "signround/base/log.h"

#include <unistd.h>

#include <cstdio>
#include <mutex>

namespace signround {
namespace {

LogLevel g_level = LogLevel::kInfo;
bool g_status_open = false;
std::mutex g_mutex;

void print(LogLevel level, std::string_view prefix, std::string_view line) {
  if (g_level < level) return;
  std::lock_guard lock(g_mutex);
  if (g_status_open) std::fputs("\r\033[K", stderr), g_status_open = false;
  std::fprintf(stderr, "%.*s%.*s\n", static_cast<int>(prefix.size()), prefix.data(),
               static_cast<int>(line.size()), line.data());
}

}  // namespace

void set_log_level(LogLevel level) { g_level = level; }
LogLevel log_level() { return g_level; }

void log_info(std::string_view line) { print(LogLevel::kInfo, "", line); }
void log_warn(std::string_view line) { print(LogLevel::kWarn, "signround: warning: ", line); }
void log_debug(std::string_view line) { print(LogLevel::kDebug, "", line); }

void log_status(std::string_view line) {
  if (g_level < LogLevel::kInfo) return;
  if (!isatty(STDERR_FILENO)) return print(LogLevel::kInfo, "", line);
  std::lock_guard lock(g_mutex);
  std::fprintf(stderr, "\r\033[K%.*s", static_cast<int>(line.size()), line.data());
  std::fflush(stderr);
  g_status_open = true;
}

}  // namespace signround
