// Progress and warnings go to stderr; results go to stdout and are printed by cli/ only.
#pragma once

#include <string>
#include <string_view>

namespace signround {

enum class LogLevel { kQuiet, kWarn, kInfo, kDebug };
void set_log_level(LogLevel level);
LogLevel log_level();

void log_info(std::string_view line);
void log_warn(std::string_view line);
void log_debug(std::string_view line);
// One line that the next status replaces on a terminal; on a pipe it is an ordinary line of level
// info.
void log_status(std::string_view line);

}  // namespace signround
