#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/cli/child.h"
#include "signround/cli/commands.h"
#include "signround/cli/quantize_flags.h"
#include "signround/io/file.h"
#include "signround/pipeline/options.h"

namespace signround {

using nlohmann::ordered_json;

namespace {

struct Method {
  std::string_view name;
  std::vector<std::string> flags;
  bool own_levels = false;  // not those that the flags of quantize describe
};

const std::vector<Method>& methods() {
  static const std::vector<Method> all = {
      {"rtn", {"--method", "rtn"}},
      {"nf4", {"--method", "nf4"}, true},
      {"opt-rtn", {"--method", "opt-rtn"}},
      {"gptq", {"--method", "gptq"}},
      {"awq", {"--method", "opt-rtn", "--awq"}},
      {"autoround-light", {"--method", "signround", "--recipe", "light"}},
      {"autoround", {"--method", "signround", "--recipe", "autoround"}},
      {"autoround-best", {"--method", "signround", "--recipe", "best"}},
      {"signround", {"--method", "signround", "--recipe", "auto"}},
  };
  return all;
}

const Method* find_method(const std::string& name) {
  for (const Method& method : methods())
    if (method.name == name) return &method;
  return nullptr;
}

std::string method_names() {
  std::string names;
  for (const Method& method : methods())
    names += (names.empty() ? "" : ", ") + std::string(method.name);
  return names;
}

// The same run with the levels of a method that has its own: bits, groups and packed formats of the
// others do not concern it.
QuantizeOptions without_grid(QuantizeOptions options) {
  const QuantizeOptions usual;
  options.scheme = usual.scheme;
  options.bits = usual.bits;
  options.group_size = usual.group_size;
  options.symmetry = usual.symmetry;
  options.scale_dtype = usual.scale_dtype;
  if (options.formats != std::vector<std::string>{"fake"}) options.formats.clear();
  return options;
}

// The flags that say what these options say, without those that are as they are by default.
std::vector<std::string> arguments_of(const QuantizeOptions& options) {
  const ordered_json given = fields_to_json(options), usual = fields_to_json(QuantizeOptions{});
  std::vector<std::string> arguments;
  for (const auto& [name, value] : given.items()) {
    if (value == usual[name]) continue;
    if (value.is_boolean()) {
      arguments.push_back((value.get<bool>() ? "--" : "--no-") + name);
      continue;
    }
    std::string text;
    if (value.is_array())
      for (const auto& part : value) text += (text.empty() ? "" : ",") + part.get<std::string>();
    else
      text = value.is_string() ? value.get<std::string>() : value.dump();
    arguments.push_back("--" + name + "=" + text);
  }
  return arguments;
}

ordered_json child_json(const std::vector<std::string>& arguments) {
  const ChildResult child = run_self(arguments);
  if (child.code != 0) return {{"failed", child.code}};
  ordered_json json = ordered_json::parse(child.out, nullptr, false);
  require(json.is_object(), "compare", "internal: '", arguments[0], "' printed no JSON object");
  return json;
}

std::string row(const std::string& name, const ordered_json& run, const ordered_json& eval) {
  if (run.contains("failed"))
    return fmt::format("{:<16} quantize ended with exit code {}\n", name, run["failed"].dump());
  std::string text =
      fmt::format("{:<16} {:>6.3f} {:>10.1f} {:>10.1f} {:>10.0f}", name,
                  run.value("bits_per_weight", 0.0), run["result_bytes"].get<double>() / 1e6,
                  run["seconds"].get<double>(), run["peak_rss_bytes"].get<double>() / 1e6);
  if (eval.contains("failed"))
    return text + fmt::format("  eval ended with exit code {}\n", eval["failed"].dump());
  const auto& result = eval["results"][0];
  return text + fmt::format(
                    " {:>11.3f} {:>11.5f} {:>9.2f}%\n", result["perplexity"]["value"].get<double>(),
                    result["kl"]["mean"].get<double>(), 100 * result["same_top"].get<double>());
}

}  // namespace

int cmd_compare(int argc, const char* const* argv) {
  QuantizeOptions options;
  options.output = "signround-compare";
  std::string model, text;
  std::vector<std::string> names = {"rtn", "opt-rtn", "gptq", "autoround", "signround"};
  int64_t eval_seqlen = 2048, eval_limit = 0;
  bool json = false;
  Flags flags(
      "compare MODEL [--methods LIST] [flags]",
      "Quantizes MODEL by several methods with the same settings, evaluates each result "
      "against MODEL, and prints one table. Results stay in OUT/METHOD; a comparison that "
      "was stopped goes on with the same command. Flags of quantize hold for all methods. Where "
      "a method fails, its row says so, the others still run, and the exit code is the first "
      "one that failed.");
  flags.add(
      "methods", names,
      {.help = "what to compare: rtn, nf4 (4 bits, whatever the others have), opt-rtn, gptq, awq, "
               "autoround-light, autoround, autoround-best, signround",
       .value = "LIST"});
  flags.add("text", text,
            {.help = "text to evaluate on; the built-in text if left out", .value = "FILE"});
  flags.add("eval-seqlen", eval_seqlen,
            {.help = "tokens of a chunk of it", .min = 2, .max = 1 << 20, .value = "N"});
  flags.add("eval-limit", eval_limit, {.help = "chunks to read; 0: all", .min = 0, .value = "N"});
  flags.add("json", json, {.help = "print a JSON object"});
  std::vector<std::string> notes;
  add_quantize_flags(flags, model, options, notes);
  if (!flags.parse(argc, argv)) return 0;
  for (const auto& name : names)
    if (!find_method(name)) flags.problem("--methods: '" + name + "' is none of " + method_names());
  for (const char* decided : {"method", "recipe", "awq", "algorithm"})
    if (flags.was_set(decided))
      flags.problem("--" + std::string(decided) + " is decided by --methods here");
  if (options.formats.size() > 1) flags.problem("--format: one format is compared, not several");
  check_quantize_flags(flags, options);
  flags.check();
  for (const auto& note : notes) log_warn(note);

  const std::filesystem::path folder = options.output;
  ordered_json all = {{"model", model}, {"methods", ordered_json::array()}};
  std::string table =
      fmt::format("{:<16} {:>6} {:>10} {:>10} {:>10} {:>11} {:>11} {:>10}\n", "method", "bits",
                  "size MB", "seconds", "memory MB", "perplexity", "KL", "same top");
  double reference = 0;
  int failed = 0;  // the first exit code of a run that failed
  for (const auto& name : names) {
    const std::string out = (folder / name).string();
    options.output = out;
    std::vector<std::string> quantize = {"quantize", model};
    const Method& method = *find_method(name);
    for (auto& argument : arguments_of(method.own_levels ? without_grid(options) : options))
      quantize.push_back(std::move(argument));
    for (const auto& flag : method.flags) quantize.push_back(flag);
    std::string command = "signround";
    for (const auto& argument : quantize) command += " " + argument;
    log_info(command);
    quantize.push_back("--quiet");
    const ChildResult child = run_self(quantize);
    ordered_json run = {{"failed", child.code}}, eval = {{"failed", 0}};
    if (child.code == 0) {
      run = ordered_json::parse(
          read_text_file("compare", (std::filesystem::path(out) / "signround.json").string(),
                         int64_t{1} << 30),
          nullptr, false);
      std::vector<std::string> evaluate = {"eval",
                                           out,
                                           "--reference",
                                           model,
                                           "--json",
                                           "--seqlen=" + std::to_string(eval_seqlen),
                                           "--limit=" + std::to_string(eval_limit),
                                           "--device=" + options.device};
      if (!text.empty()) evaluate.push_back("--text=" + text);
      eval = child_json(evaluate);
      if (eval.contains("results"))
        reference = eval["results"][0]["reference_perplexity"]["value"].get<double>();
    }
    if (failed == 0 && run.contains("failed")) failed = run["failed"].get<int>();
    if (failed == 0 && eval.contains("failed")) failed = eval["failed"].get<int>();
    table += row(name, run, eval);
    ordered_json entry = {{"method", name}, {"command", command}};
    if (run.contains("failed"))
      entry["failed"] = run["failed"];
    else
      entry.update({{"bits_per_weight", run.value("bits_per_weight", 0.0)},
                    {"result_bytes", run["result_bytes"]},
                    {"seconds", run["seconds"]},
                    {"peak_rss_bytes", run["peak_rss_bytes"]}});
    if (eval.contains("results")) entry["eval"] = eval["results"][0];
    all["methods"].push_back(entry);
  }
  if (json)
    std::printf("%s\n", all.dump(2, ' ', false, ordered_json::error_handler_t::replace).c_str());
  else
    std::printf("%soriginal: perplexity %.3f\n", table.c_str(), reference);
  return failed;
}

}  // namespace signround
