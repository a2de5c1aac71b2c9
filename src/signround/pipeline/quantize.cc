#include "signround/pipeline/quantize.h"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <set>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/base/parallel.h"
#include "signround/base/version.h"
#include "signround/eval/text_model.h"
#include "signround/formats/consumers.h"
#include "signround/formats/open_model.h"
#include "signround/graph/stream.h"
#include "signround/io/atomic_file.h"
#include "signround/model/load.h"
#include "signround/ops/convert.h"
#include "signround/ops/mse_loss.h"
#include "signround/pipeline/interrupt.h"
#include "signround/pipeline/journal.h"
#include "signround/pipeline/output.h"
#include "signround/pipeline/run_folder.h"
#include "signround/quant/imatrix.h"
#include "signround/quant/opt_rtn.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"
#include "signround/quant/signround.h"
#include "signround/quant/tune.h"
#include "signround/text/chat_template.h"

namespace signround {

using nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

namespace {

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double decibels(double error, double signal) {
  return error > 0 && signal > 0 ? 10 * std::log10(error / signal) : error > 0 ? 0.0 : -999.0;
}

// One run from the first block to the last; what it holds is what the plan's memory ledger counts.
class Run {
 public:
  Run(const Checkpoint& source, const QuantizeOptions& options, Plan plan,
      CalibrationSet calibration, TokenMasks masks, RunReport& report)
      : source_(source),
        options_(options),
        plan_(std::move(plan)),
        calibration_(std::move(calibration)),
        masks_(std::move(masks)),
        report_(report) {}

  void open_outputs(Journal& journal, bool resume);
  void blocks();
  void outside_layers();
  void copy_rest();
  void finish();

 private:
  using Layers = std::vector<FormatLayer>;
  struct Moments {  // sums over tokens of the squares of linear layers' inputs
    std::vector<std::vector<double>> sums;
    std::map<std::string, size_t> of_layer;  // by name; layers that read the same input share one
    std::vector<float> importance(const FormatLayer& layer) const;
  };

  void embed();
  void block(int64_t index);
  BlockReport round_without_text(int64_t index);
  QuantizedLinear round_to_nearest(const FormatLayer& layer, NonFinite& non_finite);
  void load(const Graph& graph, BlockWeights& weights);
  void observe(Program& program, Moments& moments);
  Moments observe_quantized(Program& program, const BlockWeights& weights);
  void reference_forward(Program& program, const BlockWeights& weights);
  double quantized_forward(Program& program, const BlockWeights& weights);
  TuneResult tune(Program& program, BlockWeights& weights, const Layers& layers, int64_t index);
  double search_scales(const Layers& layers, const Moments& moments);
  void write(const FormatLayer& layer, const QuantizedLinear& linear, const NonFinite& non_finite);
  void use_written_weights(BlockWeights& weights, const Layers& layers);
  void put_weight(BlockWeights& weights, const FormatLayer& layer, const float* rows);
  void degrade(const std::string& what);
  void progress(const BlockReport& block, size_t done);
  bool is_last_needed(int64_t index) const {
    return index >= plan_.blocks.back() && plan_.outside.empty();
  }

  const Checkpoint& source_;
  const QuantizeOptions& options_;
  Plan plan_;
  CalibrationSet calibration_;
  TokenMasks masks_;
  RunReport& report_;
  Journal* journal_ = nullptr;
  size_t resumed_ = 0;  // blocks that an earlier run finished
  std::vector<std::unique_ptr<OutputFolder>> outputs_;
  ActivationStream inputs_,
      targets_;                      // what the quantized model sees; what the original model sees
  std::vector<std::string> hashes_;  // of the layers of the block in work
  std::map<std::string, NonFinite> non_finite_;  // of the block in work, by layer
  std::map<std::string, OpTiming> timings_;
  Clock::time_point start_ = Clock::now();
};

void Run::degrade(const std::string& what) {
  if (options_.strict) fail(ErrorKind::kStrict, "strict", what);
  log_warn(what);
  report_.degradations.push_back(what);
}

void Run::open_outputs(Journal& journal, bool resume) {
  journal_ = &journal;
  for (const auto& why : plan_.skipped) degrade("left in 16 bit: " + why);
  for (const auto& warning : calibration_.warnings) degrade(warning);
  for (const auto& format : plan_.formats)
    outputs_.push_back(std::make_unique<OutputFolder>(format, resume));
  // What the journal says is finished must be what the files hold; from the first difference on it
  // is done again.
  size_t good = 0;
  for (const auto& line : journal.finished()) {
    const auto index = line.value("index", int64_t{-1});
    if (good >= plan_.blocks.size() || index != plan_.blocks[good]) break;
    const Layers& layers = plan_.layers[static_cast<size_t>(index)];
    std::vector<std::string> found;
    for (const auto& output : outputs_)
      for (const auto& layer : layers)
        if (layer.scheme.bits < 16) found.push_back(hex(output->hash_of(layer)));
    if (!line.contains("hashes") || line["hashes"] != ordered_json(found)) {
      log_warn(
          fmt::format("block {} of the earlier run is damaged on disk and is done again", index));
      break;
    }
    for (const auto& output : outputs_)
      for (const auto& layer : layers)
        if (layer.scheme.bits < 16) output->mark_layer_written(layer);
    report_.blocks.push_back(BlockReport::from_json(line));
    for (const auto& d : line.value("degradations", ordered_json::array()))
      report_.degradations.push_back(d);
    ++good;
  }
  journal.begin(good);
  resumed_ = good;
  if (good > 0)
    log_info(
        fmt::format("continuing: {} of {} blocks were finished before", good, plan_.blocks.size()));
}

// The model's input: rows of the embedding.
void Run::embed() {
  const int64_t hidden = plan_.architecture.hidden;
  targets_ = ActivationStream(plan_.nsamples, plan_.seqlen, hidden, plan_.stream_dtype);
  std::vector<float> rows(static_cast<size_t>(plan_.seqlen * hidden));
  for (int64_t s = 0; s < plan_.nsamples; ++s) {
    embed_tokens(source_, plan_.architecture, calibration_.samples[static_cast<size_t>(s)],
                 rows.data());
    targets_.scatter(s, 1, rows.data());
  }
  source_.release(plan_.architecture.embedding);
  if (plan_.tunes()) inputs_ = targets_.clone();
}

void Run::blocks() {
  if (plan_.needs_calibration() && (resumed_ < plan_.blocks.size() || !plan_.outside.empty()))
    embed();
  const int64_t last = plan_.needs_calibration() && !plan_.outside.empty()
                           ? plan_.architecture.blocks - 1
                           : plan_.blocks.back();
  const bool nothing_left = resumed_ == plan_.blocks.size() && plan_.outside.empty();
  for (int64_t i = 0; i <= last && !nothing_left; ++i) {
    check_interrupted();
    block(i);
  }
}

void Run::block(int64_t index) {
  const auto start = Clock::now();
  const size_t order = static_cast<size_t>(
      std::lower_bound(plan_.blocks.begin(), plan_.blocks.end(), index) - plan_.blocks.begin());
  const bool selected = order < plan_.blocks.size() && plan_.blocks[order] == index;
  const bool finished = selected && order < resumed_;
  const Layers& layers = plan_.layers[static_cast<size_t>(index)];
  hashes_.clear();
  const size_t degraded_before = report_.degradations.size();

  BlockReport report{.index = index};
  if (!plan_.needs_calibration()) {
    if (!selected || finished) return;
    report = round_without_text(index);
  } else {
    const Graph graph = plan_.architecture.block(index);
    BlockWeights weights(graph, plan_.compute);
    load(graph, weights);
    std::set<std::string> untuned;
    for (const auto& layer : layers)
      if (layer.scheme.bits == 16) untuned.insert(layer.name);
    Program program(graph, {.batch = plan_.micro_batch,
                            .seq_len = plan_.seqlen,
                            .compute = plan_.compute,
                            .train = plan_.tunes() && selected && !finished,
                            .untuned = untuned});
    Moments moments;
    if (selected && !finished && !plan_.tunes()) observe(program, moments);
    reference_forward(program, weights);
    if (selected && !finished) {
      if (plan_.tunes()) {
        const TuneResult tuned = tune(program, weights, layers, index);
        report.loss_first = tuned.loss_first, report.loss_best = tuned.loss_best,
        report.best_iteration = tuned.best_iteration;
      } else {
        report.error_db = search_scales(layers, moments);
      }
    }
    if (plan_.tunes() && !(finished && is_last_needed(index))) {
      if (finished) use_written_weights(weights, layers);
      const double error_db = quantized_forward(program, weights);
      if (!finished) report.error_db = error_db;
    }
    for (const auto& t : program.timings()) {
      OpTiming& sum = timings_[t.name];
      sum.seconds += t.seconds, sum.flops += t.flops, sum.calls += t.calls;
    }
  }
  for (const auto& layer : layers) source_.release(layer.name + ".weight");
  if (!selected || finished) return;
  report.seconds = seconds_since(start);
  for (const auto& output : outputs_) output->sync();
  ordered_json line = report.to_json();
  line["hashes"] = hashes_;
  line["degradations"] = std::vector<std::string>(
      report_.degradations.begin() + static_cast<std::ptrdiff_t>(degraded_before),
      report_.degradations.end());
  journal_->append(line);
  report_.blocks.push_back(report);
  progress(report, order + 1);
}

// Weights that are not finite would spoil the reference; they are replaced as in rounding
// (quant/non_finite.h).
void Run::load(const Graph& graph, BlockWeights& weights) {
  load_weights(source_, graph, weights);
  non_finite_.clear();
  for (const auto& param : graph.linear_params()) {
    const WeightView place = weights.weight(param.name);
    std::mutex mutex;
    NonFinite& found = non_finite_[param.name];
    parallel_for(param.out, 16, [&](int64_t begin, int64_t end) {
      NonFinite mine;
      for (int64_t r = begin; r < end; ++r) {
        if (place.dtype == DType::kBF16)
          mine.merge(replace_non_finite(static_cast<BF16*>(place.data) + r * place.stride, param.in,
                                        r * param.in));
        else
          mine.merge(replace_non_finite(static_cast<float*>(place.data) + r * place.stride,
                                        param.in, r * param.in));
      }
      std::lock_guard lock(mutex);
      found.merge(mine);
    });
  }
}

std::vector<float> Run::Moments::importance(const FormatLayer& layer) const {
  const auto found = of_layer.find(layer.name);
  require(found != of_layer.end() && static_cast<int64_t>(sums[found->second].size()) == layer.in,
          "moments", "internal: no second moments for ", layer.name);
  return {sums[found->second].begin(), sums[found->second].end()};
}

void Run::observe(Program& program, Moments& moments) {
  program.set_linear_input_observer([&moments, scratch = std::vector<float>()](
                                        const LinearsOp& op, const void* x, DType dtype,
                                        int64_t rows, int64_t stride) mutable {
    const int64_t in = op.params[0].in;
    const auto [place, first] = moments.of_layer.emplace(op.params[0].name, moments.sums.size());
    if (first) {
      for (const auto& param : op.params) moments.of_layer[param.name] = moments.sums.size();
      moments.sums.emplace_back(static_cast<size_t>(in));
    }
    scratch.resize(static_cast<size_t>(rows * in));
    convert(rows, in, {x, dtype, stride}, {scratch.data(), DType::kF32, in});
    add_second_moments(scratch.data(), rows, in, in, moments.sums[place->second].data());
  });
}

// Of what the quantized model feeds the layers of this block, over the first samples: second
// moments need few.
Run::Moments Run::observe_quantized(Program& program, const BlockWeights& weights) {
  constexpr int64_t kTokens = 16384;
  Moments moments;
  observe(program, moments);
  for (int64_t first = 0; first < plan_.nsamples && first * plan_.seqlen < kTokens;
       first += plan_.micro_batch) {
    check_interrupted();
    inputs_.gather(first, std::min(plan_.micro_batch, plan_.nsamples - first), program.input());
    program.forward(weights);
  }
  program.set_linear_input_observer({});
  return moments;
}

// targets: x becomes the original block's output, in place.
void Run::reference_forward(Program& program, const BlockWeights& weights) {
  for (int64_t first = 0; first < plan_.nsamples; first += plan_.micro_batch) {
    check_interrupted();
    const int64_t count = std::min(plan_.micro_batch, plan_.nsamples - first);
    targets_.gather(first, count, program.input());
    program.forward(weights);
    targets_.scatter(first, count, program.output());
  }
}

// inputs: x_q becomes the quantized block's output, in place. Returns its error against the target
// in dB.
double Run::quantized_forward(Program& program, const BlockWeights& weights) {
  const int64_t cols = plan_.architecture.hidden;
  std::vector<float> target(static_cast<size_t>(plan_.micro_batch * plan_.seqlen * cols));
  std::vector<double> row_sums(static_cast<size_t>(plan_.micro_batch * plan_.seqlen));
  double error = 0, signal = 0;
  const std::vector<float> zeros(static_cast<size_t>(cols));
  for (int64_t first = 0; first < plan_.nsamples; first += plan_.micro_batch) {
    check_interrupted();
    const int64_t count = std::min(plan_.micro_batch, plan_.nsamples - first),
                  rows = count * plan_.seqlen;
    inputs_.gather(first, count, program.input());
    program.forward(weights);
    targets_.gather(first, count, target.data());
    const std::span<double> sums(row_sums.data(), static_cast<size_t>(rows));
    error += mse_loss_fwd(rows, cols, {program.output(), cols}, {target.data(), DType::kF32, cols},
                          {}, sums)
                 .sum;
    signal +=
        mse_loss_fwd(rows, cols, {target.data(), cols}, {zeros.data(), DType::kF32, 0}, {}, sums)
            .sum;
    if (options_.enable_quanted_input)
      inputs_.scatter(first, count, program.output());
    else
      inputs_.scatter(first, count, target.data());
  }
  return decibels(error, signal);
}

TuneResult Run::tune(Program& program, BlockWeights& weights, const Layers& layers, int64_t index) {
  const SignRoundOptions how = slot_options(options_);
  Moments moments;
  if (options_.start == "searched") moments = observe_quantized(program, weights);
  std::vector<TunedLayer> tuned;
  std::vector<const FormatLayer*> written;
  for (const auto& layer : layers) {
    if (layer.scheme.bits == 16) continue;
    const auto make_slot = [&](const auto* w) -> std::unique_ptr<WeightSlot> {
      if (options_.start != "searched")
        return std::make_unique<SignRoundSlot>(w, layer.out, layer.in, layer.scheme, how);
      const QuantizedLinear start =
          search_start(w, layer.out, layer.in, layer.scheme, moments.importance(layer).data());
      return std::make_unique<SignRoundSlot>(w, layer.out, layer.in, layer.scheme, how, &start);
    };
    std::unique_ptr<WeightSlot> slot;
    const WeightView place = weights.weight(layer.name);
    if (layer.dtype == DType::kBF16 && place.dtype == DType::kBF16) {
      slot = make_slot(static_cast<const BF16*>(place.data));
    } else {
      const auto rows = read_linear(source_, {layer.name, layer.out, layer.in, false});
      slot = make_slot(rows.data());
    }
    tuned.push_back({layer.name, std::move(slot)});
    written.push_back(&layer);
  }
  const TuneOptions tune_options{.iters = options_.iters,
                                 .batch_size = options_.batch_size,
                                 .accumulate_steps = options_.gradient_accumulate_steps,
                                 .seed = options_.seed + static_cast<uint64_t>(index),
                                 .keep_best = options_.keeps_best()};
  const TuneResult result = tune_block(
      program, weights, tuned, inputs_, targets_, masks_, tune_options, [&](int iteration) {
        check_interrupted();
        if (iteration % 10 == 0 && log_level() >= LogLevel::kInfo && iteration > 0)
          log_debug(fmt::format("block {}: step {} of {}", index, iteration, options_.iters));
      });
  if (result.non_finite_losses > 0)
    degrade(fmt::format("block {}: {} of {} losses were not finite{}", index,
                        result.non_finite_losses, result.iterations,
                        result.best_iteration < 0 ? "; it keeps round-to-nearest" : ""));
  for (size_t i = 0; i < tuned.size(); ++i) {
    const QuantizedLinear linear = tuned[i].slot->finish();
    tuned[i].slot.reset();
    write(*written[i], linear, non_finite_[written[i]->name]);
  }
  // From the files, as a continued run does: `fake` rounds to the source's dtype.
  use_written_weights(weights, layers);
  return result;
}

// opt-RTN. Returns the error that second moments predict for the layers' outputs, in dB.
double Run::search_scales(const Layers& layers, const Moments& moments) {
  double error = 0, signal = 0;
  for (const auto& layer : layers) {
    if (layer.scheme.bits == 16) continue;
    const std::vector<float> importance = moments.importance(layer);
    const auto rows = read_linear(source_, {layer.name, layer.out, layer.in, false});
    OptRtnNotes notes;
    const QuantizedLinear linear =
        opt_rtn(rows.data(), layer.out, layer.in, layer.scheme, importance.data(), &notes);
    if (notes.unimportant_groups + notes.filled_groups > 0)
      degrade(
          fmt::format("{}: {} groups of inputs were never or partly seen in the calibration text",
                      layer.name, notes.unimportant_groups + notes.filled_groups));
    std::vector<float> rounded(rows.size());
    dequantize(linear, rounded.data());
    for (int64_t r = 0; r < layer.out; ++r)
      for (int64_t c = 0; c < layer.in; ++c) {
        const size_t k = static_cast<size_t>(r * layer.in + c);
        if (!std::isfinite(rows[k])) continue;
        const double d = rounded[k] - rows[k], weight = importance[static_cast<size_t>(c)];
        error += weight * d * d, signal += weight * rows[k] * rows[k];
      }
    write(layer, linear, notes.non_finite);
  }
  return decibels(error, signal);
}

// RTN reads no text and runs no block. The error is that of the weights, on every 16th row.
BlockReport Run::round_without_text(int64_t index) {
  double error = 0, signal = 0;
  for (const auto& layer : plan_.layers[static_cast<size_t>(index)]) {
    if (layer.scheme.bits == 16) continue;
    check_interrupted();
    NonFinite non_finite;
    const QuantizedLinear linear = round_to_nearest(layer, non_finite);
    const int64_t group = layer.scheme.group(layer.in), groups = linear.groups();
    std::vector<float> row(static_cast<size_t>(layer.in));
    for (int64_t r = 0; r < layer.out; r += 16) {
      source_.read_f32(layer.name + ".weight", r, 1, row.data());
      for (int64_t c = 0; c < layer.in; ++c) {
        const double w = row[static_cast<size_t>(c)];
        const size_t k = static_cast<size_t>(r * layer.in + c),
                     g = static_cast<size_t>(r * groups + c / group);
        if (!std::isfinite(w)) continue;
        const double d = double(linear.scales[g]) * (linear.codes[k] - linear.zeros[g]) - w;
        error += d * d, signal += w * w;
      }
    }
    source_.release(layer.name + ".weight");
    write(layer, linear, non_finite);
  }
  return {.index = index, .error_db = decibels(error, signal)};
}

// From the mapped file where it holds aligned bf16, without a copy.
QuantizedLinear Run::round_to_nearest(const FormatLayer& layer, NonFinite& non_finite) {
  check_linear(source_, {layer.name, layer.out, layer.in, false});
  if (layer.dtype == DType::kBF16) {
    std::vector<std::byte> scratch;
    const auto bytes = source_.bytes(layer.name + ".weight", scratch);
    if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(BF16) == 0)
      return rtn(reinterpret_cast<const BF16*>(bytes.data()), layer.out, layer.in, layer.scheme,
                 &non_finite);
  }
  const auto rows = read_linear(source_, {layer.name, layer.out, layer.in, false});
  return rtn(rows.data(), layer.out, layer.in, layer.scheme, &non_finite);
}

void Run::write(const FormatLayer& layer, const QuantizedLinear& linear,
                const NonFinite& non_finite) {
  if (non_finite.count > 0)
    degrade(fmt::format(
        "{}.weight holds {} values that are not finite, the first at row {}, column {}; their "
        "groups were rounded from the finite ones",
        layer.name, non_finite.count, non_finite.first / layer.in, non_finite.first % layer.in));
  const float floor = layer.scheme.scale_floor();
  const auto clamped = std::count_if(linear.scales.begin(), linear.scales.end(),
                                     [&](float s) { return std::abs(s) <= floor * 1.01f; });
  if (clamped > 0)
    degrade(fmt::format("{}: {} of {} scales stand at the floor of {:g}", layer.name, clamped,
                        linear.scales.size(), floor));
  for (const auto& output : outputs_) {
    const auto written = output->write_layer(layer, linear);
    hashes_.push_back(hex(written.hash));
  }
}

void Run::put_weight(BlockWeights& weights, const FormatLayer& layer, const float* rows) {
  const WeightView place = weights.weight(layer.name);
  convert(layer.out, layer.in, {rows, DType::kF32, layer.in},
          {place.data, place.dtype, place.stride});
}

void Run::use_written_weights(BlockWeights& weights, const Layers& layers) {
  // Packed formats hold the tuned integers; `fake` rounds to the source's dtype, so it is asked
  // last.
  OutputFolder* from = outputs_[0].get();
  for (const auto& output : outputs_)
    if (output->plan().format->packing() != Packing::kNone) from = output.get();
  std::vector<float> rows;
  for (const auto& layer : layers) {
    if (layer.scheme.bits == 16) continue;
    rows.resize(static_cast<size_t>(layer.out * layer.in));
    from->read_weight(layer, rows.data());
    put_weight(weights, layer, rows.data());
  }
}

void Run::progress(const BlockReport& block, size_t done) {
  const double elapsed = seconds_since(start_),
               left = elapsed / static_cast<double>(done - resumed_) *
                      static_cast<double>(plan_.blocks.size() - done);
  std::string loss;
  if (plan_.tunes())
    loss = fmt::format("  loss {:.3g} -> {:.3g} (step {})", block.loss_first, block.loss_best,
                       block.best_iteration);
  log_info(fmt::format(
      "block {:>3} ({}/{}){}  error {:.1f} dB  {:.1f} s, {} left", block.index, done,
      plan_.blocks.size(), loss, block.error_db, block.seconds,
      left < 90 ? fmt::format("{:.0f} s", left) : fmt::format("{:.0f} min", left / 60)));
}

// The head: scales searched with the second moments of its own inputs, which are the last block's
// outputs, normed.
void Run::outside_layers() {
  if (plan_.outside.empty()) return;
  hashes_.clear();
  Moments moments;
  if (plan_.needs_calibration()) {
    const Graph head = plan_.architecture.head();
    Graph norm;  // the head without its product, which nobody needs here
    const auto& op = std::get<NormOp>(head.ops()[0]);
    norm.output(norm.rms_norm(norm.input(plan_.architecture.hidden), op.weight, op.eps, op.heads,
                              op.weight_offset));
    BlockWeights weights(norm, plan_.compute);
    load_weights(source_, norm, weights);
    Program program(norm, {.batch = 1, .seq_len = plan_.seqlen, .compute = plan_.compute});
    const ActivationStream& stream = plan_.tunes() ? inputs_ : targets_;
    for (const auto& layer : plan_.outside) moments.of_layer[layer.name] = 0;
    auto& sums = moments.sums.emplace_back(static_cast<size_t>(plan_.architecture.hidden));
    for (int64_t s = 0; s < plan_.nsamples; ++s) {
      stream.gather(s, 1, program.input());
      program.forward(weights);
      add_second_moments(program.output(), plan_.seqlen, plan_.architecture.hidden,
                         plan_.architecture.hidden, sums.data());
    }
    search_scales(plan_.outside, moments);
  } else {
    for (const auto& layer : plan_.outside) {
      if (layer.scheme.bits == 16) continue;
      NonFinite non_finite;
      const QuantizedLinear linear = round_to_nearest(layer, non_finite);
      write(layer, linear, non_finite);
    }
  }
}

void Run::copy_rest() {
  std::set<std::string> quantized;
  for (const auto& layers : plan_.layers)
    for (const auto& layer : layers)
      if (layer.scheme.bits < 16) quantized.insert(layer.name + ".weight");
  for (const auto& layer : plan_.outside)
    if (layer.scheme.bits < 16) quantized.insert(layer.name + ".weight");
  int64_t copied = 0;
  for (const TensorInfo& tensor : source_.tensors()) {
    if (quantized.count(tensor.name)) continue;
    check_interrupted();
    for (const auto& output : outputs_) output->copy(source_, tensor);
    ++copied;
  }
  report_.ledger = {{"quantized", static_cast<int64_t>(quantized.size())}, {"copied", copied}};
  require(static_cast<int64_t>(quantized.size()) + copied ==
              static_cast<int64_t>(source_.tensors().size()),
          "ledger", "internal: ", source_.tensors().size(), " tensors came in, ", quantized.size(),
          " were quantized and ", copied, " copied");
}

void Run::finish() {
  report_.source_bytes = source_.bytes_on_disk();
  report_.result_bytes = plan_.formats[0].bytes;
  report_.planned_memory = plan_.memory.total();
  report_.peak_rss_bytes = peak_rss_bytes();
  for (const auto& [name, t] : timings_)
    report_.timings[name] = {{"seconds", t.seconds},
                             {"gflops", t.seconds > 0 ? t.flops / t.seconds / 1e9 : 0},
                             {"calls", t.calls}};
  const std::vector<ExtraFile> reports = {
      {"signround.json",
       {},
       report_.to_json().dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n"},
      {"signround.md", {}, report_.to_markdown()}};
  for (const auto& output : outputs_) output->finish(source_, reports);
  if (plan_.formats.size() > 1)
    for (const auto& file : reports)
      write_file_atomically(std::filesystem::path(options_.output) / file.name, file.content);
}

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
  for (const char* key :
       {"output", "max_memory", "strict", "restart", "threads", "compute_dtype", "stream_dtype"})
    settings.erase(key);
  std::string tensors = source.config().dump();
  for (const auto& t : source.tensors())
    tensors += t.name + std::string(name_of(t.dtype)) + shape_text(t.shape);
  settings["program"] = kVersion;
  settings["source"] = hex(xxh3(tensors)) + fmt::format("-{}", source.bytes_on_disk());
  settings["samples"] = hex(calibration.hash());
  settings["threads"] = num_threads();
  settings["compute"] = torch_name_of(plan.compute);
  settings["stream"] = torch_name_of(plan.stream_dtype);
  settings["micro_batch"] = plan.micro_batch;
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
  adopt("compute", options.compute_dtype);
  adopt("stream", options.stream_dtype);
  const auto found = earlier->find("micro_batch");
  return found != earlier->end() && found->is_number_integer() ? found->get<int64_t>() : 0;
}

}  // namespace

QuantizeResult quantize(const std::string& model, const QuantizeOptions& requested) {
  const QuantizeOptions options = requested.resolved();
  const auto start = Clock::now();
  InterruptGuard interrupt;
  set_num_threads(options.threads);
  QuantizeResult result;

  const auto source = open_model(model, false);
  if (source->config().contains("quantization_config"))
    fail(ErrorKind::kUnsupported, "quantize", source->source(),
         " is quantized already (quantization_config in its config.json); start from the original");
  check_model(options, *source);
  RunFolder folder(options.output, source->source());

  CalibrationSet calibration;
  TokenMasks masks;
  if (options.effective_method() != "rtn") {
    const auto tokenizer = open_tokenizer(*source);
    calibration = calibrate(options, *source, *tokenizer);
    const int32_t pad = tokenizer->pad_id() == tokenizer->eos_id() ? -1 : tokenizer->pad_id();
    for (const auto& ids : calibration.samples) masks.push_back(loss_mask(ids, pad));
    log_info(calibration.describe());
  }
  QuantizeOptions planned = options;
  const int64_t micro_batch =
      options.restart ? 0 : adopt_choices(folder.earlier_settings(), planned);
  Plan plan = make_plan(planned, *source, static_cast<int64_t>(calibration.samples.size()),
                        calibration.seqlen, micro_batch);
  log_info(plan.describe());
  if (options.restart) folder.clear();
  const ordered_json settings = settings_of(options, *source, plan, calibration);
  if (const auto before = folder.finished_settings()) {
    if (*before != settings)
      fail(ErrorKind::kBusy, "output", options.output,
           " holds the result of a run with other settings; choose another OUT, or --restart to "
           "replace it");
    result.already_done = true;
    folder.remove_work_folder();
    return result;
  }

  RunReport& report = result.report;
  report.options = fields_to_json(options);
  report.options["model"] = model;
  report.settings = settings;
  report.plan = plan.describe();
  if (!calibration.samples.empty()) report.calibration.push_back(calibration.describe());
  report.verdicts = describe_verdicts(plan.formats[0].format->name(), plan.formats[0].model);
  for (const auto& verdict : report.verdicts) log_info("loads: " + verdict);

  const bool resume = folder.has_unfinished_run();
  Journal journal = Journal::open(folder.journal(), settings);
  Run run(*source, options, std::move(plan), std::move(calibration), std::move(masks), report);
  run.open_outputs(journal, resume);
  run.blocks();
  run.outside_layers();
  run.copy_rest();
  report.seconds = seconds_since(start);
  run.finish();
  folder.remove_work_folder();
  return result;
}

}  // namespace signround
