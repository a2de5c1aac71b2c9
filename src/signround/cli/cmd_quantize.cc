#include <fmt/format.h>

#include <cstdio>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/cli/commands.h"
#include "signround/cli/quantize_flags.h"
#include "signround/device/device.h"
#include "signround/pipeline/quantize.h"

namespace signround {
namespace {

int plan_or_quantize(bool only_plan, int argc, const char* const* argv) {
  QuantizeOptions options;
  std::string model;
  bool json = false, quiet = false, verbose = false;
  Flags flags(
      only_plan ? "plan MODEL -o OUT [flags]" : "quantize MODEL -o OUT [flags]",
      only_plan
          ? "Prints what 'signround quantize' with the same flags would do in an empty OUT, and "
            "how "
            "much time, memory and disk it would need. Writes nothing."
          : "Rounds the weights of MODEL to few bits, writes the checkpoint, reads it back and "
            "reports what was lost. A run that was stopped goes "
            "on with the same command. Flags may be spelled with - or _. For example: "
            "signround quantize org/name -o name-4bit --bits 4 --group-size 128");
  std::vector<std::string> notes;
  add_quantize_flags(flags, model, options, notes);
  if (!only_plan)
    flags.add("json", json, {.help = "print signround.json's content to stdout at the end"});
  flags.add("quiet", quiet, {.help = "only warnings and errors"});
  flags.add("verbose", verbose, {.help = "more progress"});
  if (!flags.parse(argc, argv)) return 0;
  check_quantize_flags(flags, options);
  flags.check();
  parse_device(options.device);
  for (const auto& note : notes) log_warn(note);
  set_log_level(quiet ? LogLevel::kWarn : verbose ? LogLevel::kDebug : LogLevel::kInfo);

  if (only_plan) {
    std::printf("%s\n", plan_quantization(model, options).describe().c_str());
    return 0;
  }
  const QuantizeResult result = quantize(model, options);
  if (result.already_done) {
    log_info(options.output + " holds the finished result of this very run; nothing to do");
    if (json)
      std::printf("%s\n", result.earlier_report
                              .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                              .c_str());
    return 0;
  }
  const RunReport& report = result.report;
  if (json) {
    std::printf(
        "%s\n",
        report.to_json().dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return 0;
  }
  std::printf(
      "%s: %.1f MB from %.1f MB, %.1f s, peak memory %.0f MB (planned %.0f MB), %zu degradations\n",
      options.output.c_str(), static_cast<double>(report.result_bytes) / 1e6,
      static_cast<double>(report.source_bytes) / 1e6, report.seconds,
      static_cast<double>(report.peak_rss_bytes) / 1e6,
      static_cast<double>(report.planned_memory) / 1e6, report.degradations.size());
  if (report.peak_gpu_bytes > 0)
    std::printf("%s: peak GPU memory %.0f MB (planned %.0f MB)\n", options.output.c_str(),
                static_cast<double>(report.peak_gpu_bytes) / 1e6,
                static_cast<double>(report.planned_gpu_memory) / 1e6);
  return 0;
}

}  // namespace

int cmd_quantize(int argc, const char* const* argv) { return plan_or_quantize(false, argc, argv); }
int cmd_plan(int argc, const char* const* argv) { return plan_or_quantize(true, argc, argv); }

}  // namespace signround
