#include "signround/pipeline/report.h"

#include <dnnl.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "signround/base/version.h"

namespace signround {

using nlohmann::ordered_json;

namespace {

// Of what decides the bytes of a result beside its settings.
ordered_json versions() {
  const dnnl_version_t* dnnl = dnnl_version();
  return {{"signround", kVersion},
          {"onednn", fmt::format("{}.{}.{}", dnnl->major, dnnl->minor, dnnl->patch)},
          {"compiler", __VERSION__}};
}

}  // namespace

// Not getrusage's: that counts what the process held before it became this program.
int64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    if (int64_t kib = 0; key == "VmHWM:" && status >> kib) return kib * 1024;
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

ordered_json BlockReport::to_json() const {
  ordered_json json = {{"index", index},         {"loss_first", loss_first},
                       {"loss_best", loss_best}, {"best_iteration", best_iteration},
                       {"error_db", error_db},   {"seconds", seconds}};
  if (restarts > 0) json["restarts"] = restarts;
  if (stopped_early) json["stopped_early"] = true;
  if (rewritten_groups > 0) json["rewritten_groups"] = rewritten_groups;
  if (vectors.count > 0)
    json["norms_and_biases"] = {{"tuned", vectors.count},
                                {"mean_change", vectors.mean},
                                {"largest_change", vectors.largest},
                                {"largest", vectors.name}};
  return json;
}

BlockReport BlockReport::from_json(const ordered_json& json) {
  const auto number = [&](const char* key) {
    return json.contains(key) && json[key].is_number() ? json[key].get<double>() : std::nan("");
  };
  const ordered_json vectors = json.value("norms_and_biases", ordered_json::object());
  return {.index = json.value("index", int64_t{0}),
          .loss_first = number("loss_first"),
          .loss_best = number("loss_best"),
          .error_db = number("error_db"),
          .best_iteration = json.value("best_iteration", 0),
          .restarts = json.contains("restarts") && json["restarts"].is_number_integer()
                          ? json["restarts"].get<int>()
                          : 0,
          .stopped_early = json.contains("stopped_early") && json["stopped_early"] == true,
          .seconds = number("seconds"),
          .rewritten_groups =
              json.contains("rewritten_groups") && json["rewritten_groups"].is_number_integer()
                  ? json["rewritten_groups"].get<int64_t>()
                  : 0,
          .vectors = {.count = vectors.value("tuned", int64_t{0}),
                      .mean = vectors.value("mean_change", 0.0),
                      .largest = vectors.value("largest_change", 0.0),
                      .name = vectors.value("largest", "")}};
}

ordered_json RunReport::to_json() const {
  ordered_json json = {{"program", "signround"},
                       {"version", kVersion},
                       {"versions", versions()},
                       {"seconds", seconds},
                       {"peak_rss_bytes", peak_rss_bytes},
                       {"planned_memory_bytes", planned_memory},
                       {"peak_gpu_bytes", peak_gpu_bytes},
                       {"planned_gpu_memory_bytes", planned_gpu_memory},
                       {"source_bytes", source_bytes},
                       {"result_bytes", result_bytes},
                       {"bits_per_weight", bits_per_weight},
                       {"options", options},
                       {"settings", settings}};
  json["blocks"] = ordered_json::array();
  for (const auto& b : blocks) json["blocks"].push_back(b.to_json());
  json["degradations"] = degradations;
  json["consumers"] = verdicts;
  json["calibration"] = calibration;
  for (const auto& [what, count] : ledger) json["tensors"][what] = count;
  json["checksums"] = checksums;
  json["timings"] = timings;
  if (probed_gflops > 0) json["probed_gflops"] = probed_gflops;
  if (!end_to_end.is_null()) json["end_to_end"] = end_to_end;
  return json;
}

std::string RunReport::to_markdown() const {
  std::string text = fmt::format("# Quantized with signround {}\n\n", kVersion);
  text += fmt::format(
      "Size {:.1f} MB, from {:.1f} MB; {:.2f} bits per rounded weight, scales and zero points "
      "included. {:.1f} s, peak memory {:.0f} MB (planned {:.0f} MB).\n\n",
      static_cast<double>(result_bytes) / 1e6, static_cast<double>(source_bytes) / 1e6,
      bits_per_weight, seconds, static_cast<double>(peak_rss_bytes) / 1e6,
      static_cast<double>(planned_memory) / 1e6);
  if (peak_gpu_bytes > 0)
    text += fmt::format("Peak GPU memory {:.0f} MB (planned {:.0f} MB).\n\n",
                        static_cast<double>(peak_gpu_bytes) / 1e6,
                        static_cast<double>(planned_gpu_memory) / 1e6);
  text += "```\n" + plan + "\n```\n\n## Degraded\n\n";
  if (degradations.empty()) text += "Nothing was skipped, dropped, clamped or replaced.\n";
  for (const auto& d : degradations) text += "- " + d + "\n";
  if (!verdicts.empty()) text += "\n## Who can load it\n\n";
  for (const auto& v : verdicts) text += "- " + v + "\n";
  if (!calibration.empty()) text += "\n## Calibration\n\n";
  for (const auto& c : calibration) text += "- " + c + "\n";
  text += "\n## Tensors\n\n";
  for (const auto& [what, count] : ledger) text += fmt::format("- {}: {}\n", what, count);
  text +=
      "\n## Blocks\n\n| block | loss at the start | loss kept | at step | error, dB | seconds "
      "|\n|---|---|---|---|---|---|\n";
  for (const auto& b : blocks)
    text += fmt::format("| {} | {:.4g} | {:.4g} | {} | {:.2f} | {:.1f} |\n", b.index, b.loss_first,
                        b.loss_best, b.best_iteration, b.error_db, b.seconds);
  if (std::any_of(blocks.begin(), blocks.end(),
                  [](const BlockReport& b) { return b.vectors.count > 0; })) {
    text +=
        "\n## Norms and biases\n\n| block | tuned | mean change | largest change | of |\n"
        "|---|---|---|---|---|\n";
    for (const auto& b : blocks)
      text += fmt::format("| {} | {} | {:.2f}% | {:.2f}% | {} |\n", b.index, b.vectors.count,
                          100 * b.vectors.mean, 100 * b.vectors.largest, b.vectors.name);
  }
  text += "\n## Options\n\n```\n" +
          options.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n```\n";
  return text;
}

}  // namespace signround
