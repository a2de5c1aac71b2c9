#include "signround/pipeline/quantize.h"

#include <fmt/format.h>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/base/parallel.h"
#include "signround/base/version.h"
#include "signround/formats/consumers.h"
#include "signround/formats/open_model.h"
#include "signround/io/file.h"
#include "signround/pipeline/interrupt.h"
#include "signround/pipeline/journal.h"
#include "signround/pipeline/mixed.h"
#include "signround/pipeline/output.h"
#include "signround/pipeline/prepare_awq.h"
#include "signround/pipeline/run.h"
#include "signround/pipeline/run_folder.h"
#include "signround/pipeline/source_identity.h"
#include "signround/text/chat_template.h"

namespace signround {

using nlohmann::ordered_json;

namespace {

CalibrationSet calibrate(const QuantizeOptions& options, const Checkpoint& checkpoint,
                         const Tokenizer& tokenizer) {
  const Architecture arch = read_architecture(checkpoint);
  const auto chat = ChatTemplate::load(checkpoint.source());
  RenderChat render;
  if (chat)
    render = [&](const ordered_json& messages) {
      return chat->render(messages, nullptr, {.add_generation_prompt = true});
    };
  return load_calibration({.dataset = options.dataset,
                           .nsamples = options.nsamples,
                           .seqlen = options.seqlen,
                           .seed = options.seed,
                           .max_position = arch.max_position,
                           .shuffle = options.shuffle},
                          tokenizer, render);
}

// What a continued run must agree with: everything that decides the bytes of the result.
ordered_json settings_of(const QuantizeOptions& options, const Checkpoint& source, const Plan& plan,
                         const CalibrationSet& calibration) {
  ordered_json settings = fields_to_json(options);
  for (const char* key : {"output", "max_memory", "strict", "timing", "restart", "threads",
                          "compute_dtype", "stream_dtype", "device", "max_gpu_memory"})
    settings.erase(key);
  settings["program"] = kVersion;
  if (options.mixed()) settings["chosen_schemes"] = options.chosen_schemes;
  settings["source"] = source_identity(source);
  settings["samples"] = hex(calibration.hash());
  settings["threads"] = num_threads();
  settings["compute"] = torch_name_of(plan.compute);
  settings["stream"] = torch_name_of(plan.stream_dtype);
  settings["micro_batch"] = plan.micro_batch;
  if (plan.device.is_cuda()) settings["gpu"] = device_facts(plan.device).name;
  // As the journal gives it back: a path of bytes that are no UTF-8 changes.
  return ordered_json::parse(settings.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

// What `auto` chose by measurement or by free memory in the run that OUT holds is kept: the same
// command means the same run. Returns its micro-batch, 0 if there is none.
int64_t adopt_choices(const std::optional<ordered_json>& earlier, QuantizeOptions& options) {
  if (!earlier) return 0;
  const auto adopt = [&](const char* key, std::string& option) {
    const auto found = earlier->find(key);
    if (option == "auto" && found != earlier->end() &&
        (*found == "float32" || *found == "bfloat16"))
      option = *found;
  };
  const ordered_json now = fields_to_json(options);
  const auto same = [&](const char* key) {
    return earlier->contains(key) && now.contains(key) && (*earlier)[key] == now[key];
  };
  if (earlier->contains("chosen_schemes") && (*earlier)["chosen_schemes"].is_string() &&
      same("avg_bits") && same("size") && same("options") && same("sensitivity_measure") &&
      same("layer_config"))
    options.chosen_schemes = (*earlier)["chosen_schemes"];
  adopt("compute", options.compute_dtype);
  adopt("stream", options.stream_dtype);
  const auto found = earlier->find("micro_batch");
  return found != earlier->end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

// The model with AWQ's factors folded in: those of the run that goes on, or found now.
std::unique_ptr<Checkpoint> apply_awq(const Checkpoint& source, const Plan& plan,
                                      const CalibrationSet& calibration,
                                      const std::filesystem::path& file, bool strict,
                                      RunReport& report) {
  for (const auto& why : not_folded(plan)) {
    const std::string what = "awq does not scale " + why;
    if (strict) fail(ErrorKind::kStrict, "strict", what);
    log_warn(what);
    report.degradations.push_back(what);
  }
  if (!std::filesystem::exists(file)) {
    const auto on_block = [](int64_t block, double gain) {
      check_interrupted();
      log_info(fmt::format("awq: block {:>3}  error {:.2f} dB against plain rounding", block, gain));
    };
    write_factors(file, prepare_awq(source, plan, calibration.samples, file.parent_path(), on_block));
  }
  return std::make_unique<ScaledCheckpoint>(source, read_factors(file));
}

// The files of a finished run must hold what its report says they held.
void check_finished(const Plan& plan, const std::string& output, const ordered_json& report) {
  const ordered_json expected = report.value("checksums", ordered_json::object());
  for (const auto& format : plan.formats) {
    std::string wrong;
    try {
      const std::filesystem::path folder = format.folder;
      const auto config = ordered_json::parse(
          read_text_file("output", folder / "config.json", int64_t{16} << 20), nullptr, false);
      const auto section =
          config.is_object() ? config.value("quantization_config", ordered_json()) : ordered_json();
      if (!config.is_object() ||
          nlohmann::json(section) != nlohmann::json(format.quantization_config))
        wrong = "config.json is not the one that was written";
      if (format.shards.size() > 1 &&
          !std::filesystem::exists(folder / "model.safetensors.index.json"))
        wrong = "model.safetensors.index.json is not there";
      const std::string sum = hex(checksum_of_finished(format));
      if (expected.value(std::string(format.format->name()), "") != sum)
        wrong = "weights are not the ones that were written";
    } catch (const Error& error) {
      wrong = error.what();
    }
    if (!wrong.empty())
      fail(ErrorKind::kCorruptFile, "output", output,
           " holds a finished run of this very command that was damaged since: ", wrong,
           "; --restart makes it anew");
  }
}

std::unique_ptr<Checkpoint> open_source(const std::string& model, const QuantizeOptions& options) {
  auto source = open_model(model, false);
  if (source->config().contains("quantization_config"))
    fail(ErrorKind::kUnsupported, "quantize", source->source(),
         " is quantized already (quantization_config in its config.json); start from the original");
  check_model(options, *source);
  return source;
}

struct Text {
  CalibrationSet calibration;
  TokenMasks masks;
};

Text read_text(const QuantizeOptions& options, const Checkpoint& source) {
  Text text;
  if (!reads_text(options.effective_method())) return text;
  const auto tokenizer = open_tokenizer(source);
  text.calibration = calibrate(options, source, *tokenizer);
  const int32_t pad = tokenizer->pad_id() == tokenizer->eos_id() ? -1 : tokenizer->pad_id();
  for (const auto& ids : text.calibration.samples) text.masks.push_back(loss_mask(ids, pad));
  log_info(text.calibration.describe());
  return text;
}

}  // namespace

Plan plan_quantization(const std::string& model, const QuantizeOptions& requested) {
  const QuantizeOptions options = requested.resolved();
  set_num_threads(options.threads);
  const auto source = open_source(model, options);
  const Text text = read_text(options, *source);
  Plan plan = make_plan(options, *source, static_cast<int64_t>(text.calibration.samples.size()),
                        text.calibration.seqlen);
  if (options.mixed()) {
    log_warn("the plan is that of the scheme given; what is chosen within " +
             (options.size.empty() ? "--avg-bits" : std::string("--size")) +
             " is measured when the run begins");
    plan.memory.sensitivity = measurement_bytes(options, *source, text.calibration, plan);
  }
  return plan;
}

QuantizeResult quantize(const std::string& model, const QuantizeOptions& requested) {
  const QuantizeOptions options = requested.resolved();
  const auto start = Clock::now();
  InterruptGuard interrupt;
  set_num_threads(options.threads);
  QuantizeResult result;

  const auto source = open_source(model, options);
  RunFolder folder(options.output, source->source());
  auto [calibration, masks] = read_text(options, *source);
  QuantizeOptions planned = options;
  const int64_t micro_batch =
      options.restart ? 0 : adopt_choices(folder.earlier_settings(), planned);
  int64_t held = 0;
  if (options.mixed() && planned.chosen_schemes.empty()) {
    const auto chosen = choose_schemes(planned, *source, calibration, masks,
                                       folder.journal().parent_path());
    planned.chosen_schemes = chosen.layer_config;
    held = chosen.held;
  }
  Plan plan = make_plan(planned, *source, static_cast<int64_t>(calibration.samples.size()),
                        calibration.seqlen, micro_batch);
  plan.memory.sensitivity = held;
  log_info(plan.describe());
  if (options.restart) folder.clear();
  const ordered_json settings = settings_of(planned, *source, plan, calibration);
  if (const auto before = folder.finished_settings()) {
    if (*before != settings)
      fail(ErrorKind::kBusy, "output", options.output,
           " holds the result of a run with other settings; choose another OUT, or --restart to "
           "replace it:",
           differences(*before, settings));
    check_finished(plan, options.output, folder.finished_report());
    result.already_done = true;
    result.earlier_report = folder.finished_report();
    folder.remove_work_folder();
    return result;
  }

  RunReport& report = result.report;
  report.options = fields_to_json(options);
  report.options["model"] = model;
  report.settings = settings;
  report.plan = plan.describe();
  if (!calibration.samples.empty()) report.calibration.push_back(calibration.describe());
  for (const auto& format : plan.formats) {
    const std::string of = plan.formats.size() > 1 ? std::string(format.format->name()) + ": " : "";
    for (const auto& verdict : describe_verdicts(format.format->name(), format.model))
      report.verdicts.push_back(of + verdict);
    if (const std::string why = why_nobody_loads(format.format->name(), format.model); !why.empty())
      plan.unreadable.push_back(std::string(format.format->name()) + ": " + why);
  }
  for (const auto& verdict : report.verdicts) log_info("loads: " + verdict);

  const bool resume = folder.has_unfinished_run();
  Journal journal = Journal::open(folder.journal(), settings);
  std::unique_ptr<Checkpoint> prepared;
  if (options.awq)
    prepared = apply_awq(*source, plan, calibration, folder.factors(), options.strict, report);
  Run run(prepared ? *prepared : *source, options, std::move(plan), std::move(calibration), std::move(masks), report);
  run.open_outputs(journal, folder.scales(), folder.vectors(), resume);
  run.blocks();
  run.end_to_end();
  run.outside_layers();
  run.copy_rest();
  report.seconds = seconds_since(start);
  run.finish();
  folder.remove_work_folder();
  return result;
}

}  // namespace signround
