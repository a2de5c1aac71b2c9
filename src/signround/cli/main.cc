// signround: finds the command, runs it, turns an Error into one line on stderr and an exit code.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "signround/base/error.h"
#include "signround/base/version.h"
#include "signround/cli/commands.h"

namespace {

constexpr signround::Command kCommands[] = {
    {"quantize", "round a model's weights, write and verify the checkpoint",
     signround::cmd_quantize},
    {"plan", "what quantize with the same flags would need: time, memory, disk", signround::cmd_plan},
    {"eval", "perplexity, and divergence from the original", signround::cmd_eval},
    {"compare", "several methods on one model: size, time, memory, perplexity, divergence",
     signround::cmd_compare},
    {"generate", "continue a text", signround::cmd_generate},
    {"inspect", "tensors, schemes, bits per weight, sizes", signround::cmd_inspect},
    {"tokenize", "text to token ids, as the model's reference tokenizer does it", signround::cmd_tokenize},
    {"template", "a conversation as the model's chat template renders it", signround::cmd_template},
};

int usage(FILE* out) {
  std::fprintf(out,
               "signround %s: rounds the weights of a language model to 2-8 bits\n\nusage: "
               "signround COMMAND ...\n\n",
               signround::kVersion);
  for (const auto& command : kCommands)
    std::fprintf(out, "  %-12s %s\n", command.name.data(), command.summary.data());
  std::fputs(
      "\nsignround COMMAND --help lists the flags of a command. Exit codes: docs/exit_codes.md.\n",
      out);
  return out == stdout ? 0 : 2;
}

// Threads that wait for each other spin for milliseconds by default, which halves the speed on a
// machine that does anything else. libgomp reads its environment when it is loaded, so the program
// starts itself again.
void wait_briefly(char** argv) {
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return;
  setenv("GOMP_SPINCOUNT", "2000", 1);
  execv(self.c_str(), argv);  // where that fails, all goes on as it was
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is an error of the write, as a full disk is
  if (argc < 2) return usage(stderr);
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") return usage(stdout);
  if (name == "--version") return std::printf("signround %s\n", signround::kVersion), 0;
  try {
    for (const auto& command : kCommands)
      if (command.name == name) return wait_briefly(argv), command.run(argc - 2, argv + 2);
    std::fprintf(stderr, "signround: error: unknown command '%s'\n", argv[1]);
    return usage(stderr);
  } catch (const signround::Error& error) {
    std::fprintf(stderr, "signround: error: %s\n", error.what());
    return exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "signround: error: out of memory\n");
    return exit_code(signround::ErrorKind::kMemory);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "signround: internal error: %s\n", error.what());
    return 1;
  }
}
