// Runs this program again with other arguments, for commands that are made of commands.
#pragma once

#include <string>
#include <vector>

namespace signround {

struct ChildResult {
  int code = 0;     // exit code; 128 + the signal that ended it
  std::string out;  // what it printed to stdout
};

// Waits for its end; stderr stays this program's. Error{kIo} if it cannot be started.
ChildResult run_self(const std::vector<std::string>& arguments);

}  // namespace signround
