// The subcommands. Each cmd_x.cc parses its flags, checks them, makes one library call and prints:
// nothing computes here.
#pragma once

#include <string_view>

namespace signround {

// argc and argv hold what stands behind the command's name. The result is the exit code; errors are
// thrown.
struct Command {
  std::string_view name, summary;
  int (*run)(int argc, const char* const* argv);
};

int cmd_tokenize(int argc, const char* const* argv);
int cmd_template(int argc, const char* const* argv);
int cmd_compare(int argc, const char* const* argv);
int cmd_quantize(int argc, const char* const* argv);
int cmd_plan(int argc, const char* const* argv);
int cmd_eval(int argc, const char* const* argv);
int cmd_generate(int argc, const char* const* argv);
int cmd_inspect(int argc, const char* const* argv);

}  // namespace signround
