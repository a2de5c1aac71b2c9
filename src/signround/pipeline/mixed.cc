#include "signround/pipeline/mixed.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/base/version.h"
#include "signround/io/atomic_file.h"
#include "signround/pipeline/interrupt.h"
#include "signround/pipeline/layer_config.h"
#include "signround/pipeline/plan.h"
#include "signround/pipeline/sensitivity.h"
#include "signround/pipeline/source_identity.h"
#include "signround/quant/allocate.h"

namespace signround {
namespace {

using Json = nlohmann::ordered_json;

std::filesystem::path sensitivity_path(const QuantizeOptions& options) {
  if (!options.sensitivity.empty()) return options.sensitivity;
  std::string out = options.output;
  while (out.size() > 1 && out.back() == '/') out.pop_back();
  return out + ".sensitivity.json";
}

// What a measurement depends on.
Json identity_of(const QuantizeOptions& options, const SensitivityInputs& inputs,
                 const CalibrationSet& calibration, const std::vector<QuantScheme>& schemes,
                 std::string_view format) {
  std::string layers;
  for (const auto& block : inputs.layers)
    for (const auto& layer : block)
      if (layer.scheme.bits != 16) layers += layer.name + '\n';
  Json names = Json::array();
  for (const auto& scheme : schemes) names.push_back(describe(scheme));
  return {{"program", kVersion},
          {"source", source_identity(inputs.source)},
          {"samples", hex(calibration.hash())},
          {"layers", hex(xxh3(layers))},
          {"format", format},
          {"seed", options.seed},
          {"options", names}};
}

std::vector<SensitivityUnit> load_or_measure(const SensitivityInputs& inputs,
                                             const SensitivityOptions& how, const Json& identity,
                                             const std::filesystem::path& path, bool& measured) {
  if (std::ifstream file(path, std::ios::binary); file) {
    const Json json = Json::parse(file, nullptr, false);
    if (json.is_object() && json.value("measured", Json()) == identity && json.contains("units")) {
      log_info("sensitivity: taken from " + path.string());
      return units_from_json(json["units"], path.string());
    }
    log_info("sensitivity: " + path.string() +
             " is of another model, text, format, or choice of layers or schemes; measured anew");
  }
  measured = true;
  const auto units = measure_sensitivity(inputs, how, [](int64_t done, int64_t all) {
    check_interrupted();
    log_info(fmt::format("sensitivity: {} of {}", done, all));
  });
  write_file_atomically(path,
                        Json{{"measured", identity}, {"units", to_json(units)}}.dump(1) + "\n");
  log_info("sensitivity: written to " + path.string());
  return units;
}

double loss_of(const SensitivityUnit& unit, const SensitivityUnit::Choice& choice,
               const std::string& measure) {
  if (measure == "delta-loss") return choice.delta_loss;
  if (measure == "error")
    return choice.scheme.bits == 16
               ? 0
               : static_cast<double>(unit.weights) * std::pow(10, choice.error_db / 10);
  return choice.kl;
}

}  // namespace

int64_t parse_size(const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, value);
  while (at < end && *at == ' ') ++at;
  const std::map<std::string, double> kUnits = {
      {"", 1e9},   {"GB", 1e9},  {"G", 1e9},      {"MB", 1e6},     {"M", 1e6},
      {"KB", 1e3}, {"TB", 1e12}, {"GiB", 0x1p30}, {"MiB", 0x1p20}, {"B", 1}};
  const auto unit = kUnits.find(std::string(at, end));
  if (error != std::errc() || unit == kUnits.end() || !(value > 0) || value * unit->second > 1e18)
    fail(ErrorKind::kInvalidArgument, "--size", "'", text,
         "' is no size; write 4.2GB, 700MB or 1.5GiB");
  return static_cast<int64_t>(value * unit->second);
}

std::vector<QuantScheme> parse_options(const std::vector<std::string>& names,
                                       const QuantScheme& base) {
  std::vector<QuantScheme> schemes;
  for (const std::string& name : names) {
    QuantScheme scheme = base;
    int bits = 0;
    const auto [at, error] = std::from_chars(name.data(), name.data() + name.size(), bits);
    if (error == std::errc() && at == name.data() + name.size()) {
      scheme.bits = bits;
      if (const std::string problem = problems(scheme); !problem.empty())
        fail(ErrorKind::kInvalidArgument, "--options", "'", name, "': ", problem);
    } else {
      const QuantScheme preset = scheme_preset(name);
      scheme.bits = preset.bits;
      scheme.group_size = preset.group_size;
    }
    if (std::find(schemes.begin(), schemes.end(), scheme) == schemes.end())
      schemes.push_back(scheme);
  }
  if (schemes.size() < 2)
    fail(ErrorKind::kInvalidArgument, "--options",
         "at least two schemes are needed to choose from");
  return schemes;
}

namespace {

// The layers to choose for, which are those that no --layer-config speaks of, and what there is to
// choose from.
struct Question {
  const FormatPlan* packed = nullptr;  // whose sizes count
  std::vector<std::vector<FormatLayer>> layers;
  std::vector<QuantScheme> schemes;
  int64_t base_bytes = 0, layer_count = 0;  // of those layers under the base scheme

  Question(const QuantizeOptions& options, const Plan& plan) : layers(plan.layers) {
    for (const auto& f : plan.formats)
      if (packed == nullptr && f.format->packing() != Packing::kNone) packed = &f;
    if (packed == nullptr)
      fail(ErrorKind::kInvalidArgument, "--avg-bits",
           "sizes are those of a packed format; add one to --format");
    for (const QuantScheme& scheme : parse_options(options.choices, plan.scheme)) {
      std::string why;
      for (const auto& block : layers)
        for (const auto& layer : block)
          if (layer.scheme.bits != 16 && why.empty())
            for (const auto& f : plan.formats)
              if (scheme.bits != 16 && why.empty())
                why = f.format->problems(scheme, layer.out, layer.in);
      if (why.empty())
        schemes.push_back(scheme);
      else
        log_warn("sensitivity: " + describe(scheme) + " is left out: " + why);
    }
    if (schemes.size() < 2)
      fail(ErrorKind::kInvalidArgument, "--options", "fewer than two schemes fit the format");
    LayerConfig fixed(options.layer_config, plan.scheme);
    for (auto& block : layers)
      for (auto& layer : block) {
        if (layer.scheme.bits == 16) continue;
        if (fixed.find(layer.name) != nullptr)
          layer.scheme.bits = 16;
        else
          base_bytes += bytes_of(layer), ++layer_count;
      }
  }

  int64_t bytes_of(const FormatLayer& layer) const {
    int64_t bytes = 0;
    for (const auto& tensor : packed->format->tensors(layer)) bytes += tensor.nbytes();
    return bytes;
  }
  SensitivityInputs inputs(const Checkpoint& source, const Plan& plan,
                           const CalibrationSet& calibration, const TokenMasks& masks) const {
    return {.source = source,
            .architecture = plan.architecture,
            .layers = layers,
            .samples = calibration.samples,
            .masks = masks,
            .bytes_of = [this](const FormatLayer& layer) { return bytes_of(layer); }};
  }
  // With activations in files in `folder` where memory is too small for them.
  SensitivityOptions how(const QuantizeOptions& options, const Plan& plan,
                         const SensitivityInputs& in, const std::filesystem::path& folder) const {
    SensitivityOptions how{.schemes = schemes, .seed = options.seed, .compute = plan.compute};
    const int64_t limit = memory_limit(options);
    if (bytes(plan, in, how) <= limit) return how;
    how.folder = folder;
    if (const int64_t needed = bytes(plan, in, how); needed > limit)
      fail(ErrorKind::kMemory, "sensitivity", "measuring needs ", needed / 1000000, " MB, ",
           options.max_memory > 0 ? "--max-memory allows " : "free are ", limit / 1000000,
           "; use shorter samples (--seqlen) or fewer --options");
    return how;
  }
  // All that is held while sensitivities are measured.
  static int64_t bytes(const Plan& plan, const SensitivityInputs& in,
                       const SensitivityOptions& how) {
    return plan.memory.base + plan.memory.workspace + sensitivity_bytes(in, how);
  }
};

}  // namespace

int64_t measurement_bytes(const QuantizeOptions& options, const Checkpoint& source,
                          const CalibrationSet& calibration, const Plan& plan) {
  const Question question(options, plan);
  const TokenMasks none;
  const auto inputs = question.inputs(source, plan, calibration, none);
  return Question::bytes(plan, inputs, question.how(options, plan, inputs, "files"));
}

ChosenSchemes choose_schemes(const QuantizeOptions& options, const Checkpoint& source,
                             const CalibrationSet& calibration, const TokenMasks& masks,
                             const std::filesystem::path& scratch_folder) {
  const Plan plan = make_plan(options, source, static_cast<int64_t>(calibration.samples.size()),
                              calibration.seqlen);
  const Question question(options, plan);
  const FormatPlan* packed = question.packed;
  const auto inputs = question.inputs(source, plan, calibration, masks);
  const auto how = question.how(options, plan, inputs, scratch_folder);
  ChosenSchemes result;
  bool measured = false;
  const auto units = load_or_measure(
      inputs, how,
      identity_of(options, inputs, calibration, question.schemes, packed->format->name()),
      sensitivity_path(options), measured);
  if (measured) result.held = Question::bytes(plan, inputs, how);

  int64_t weights = 0;
  std::vector<std::vector<SizeChoice>> table;
  for (const auto& unit : units) {
    weights += unit.weights;
    auto& row = table.emplace_back();
    for (const auto& choice : unit.choices)
      row.push_back({choice.bytes, loss_of(unit, choice, options.sensitivity_measure)});
  }
  const Allocator allocator(table);
  const auto bits = [&](int64_t bytes) {
    return 8 * static_cast<double>(bytes) / static_cast<double>(weights);
  };
  // Shapes and offsets of other schemes may take more digits in the headers of the files.
  const int64_t rest = packed->bytes - question.base_bytes + 64 * question.layer_count;
  const int64_t budget =
      options.size.empty()
          ? static_cast<int64_t>(options.avg_bits / 8 * static_cast<double>(weights))
          : parse_size(options.size) - rest;
  if (budget < allocator.smallest())
    fail(ErrorKind::kInvalidArgument, options.size.empty() ? "--avg-bits" : "--size",
         options.size.empty() ? fmt::format("{}", options.avg_bits) : options.size,
         " is too small: the smallest choice of schemes takes ",
         fmt::format("{:.3f} bits per weight, {:.1f} MB with all that is not rounded",
                     bits(allocator.smallest()),
                     static_cast<double>(allocator.smallest() + rest) / 1e6));
  const auto predicted = [&](const Allocation& a) {
    double kl = 0;
    for (size_t u = 0; u < units.size(); ++u) kl += units[u].choices[a.chosen[u]].kl;
    return kl;
  };
  log_info("sensitivity: bits per weight -> MB, divergence to second order before tuning");
  constexpr int kPoints = 12;
  for (int i = 0; i <= kPoints; ++i) {
    const Allocation a = allocator.within(
        allocator.smallest() + (allocator.largest() - allocator.smallest()) * i / kPoints);
    log_info(fmt::format("sensitivity: {:6.3f} -> {:9.1f} MB  {:.5f}", bits(a.bytes),
                         static_cast<double>(a.bytes + rest) / 1e6, predicted(a)));
  }
  const Allocation chosen = allocator.within(budget);
  log_info(fmt::format("sensitivity: chosen {:.3f} bits per weight, {:.1f} MB, divergence {:.5f}",
                       bits(chosen.bytes), static_cast<double>(chosen.bytes + rest) / 1e6,
                       predicted(chosen)));
  Json config = Json::object();
  for (size_t u = 0; u < units.size(); ++u) {
    const QuantScheme& scheme = units[u].choices[chosen.chosen[u]].scheme;
    for (const auto& name : units[u].layers)
      if (scheme.bits != plan.scheme.bits || scheme.group_size != plan.scheme.group_size)
        config[name] = layer_config_entry(scheme);
  }
  result.layer_config = config.dump();
  return result;
}

}  // namespace signround
