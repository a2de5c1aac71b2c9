#include "signround/pipeline/run.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <set>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/eval/text_model.h"
#include "signround/io/atomic_file.h"
#include "signround/kernels/cuda.h"
#include "signround/model/load.h"
#include "signround/model/scaled_checkpoint.h"
#include "signround/ops/convert.h"
#include "signround/ops/matmul.h"
#include "signround/ops/mse_loss.h"
#include "signround/pipeline/interrupt.h"
#include "signround/quant/load_finite.h"

namespace signround {

using nlohmann::ordered_json;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double decibels(double error, double signal) {
  return error > 0 && signal > 0 ? 10 * std::log10(error / signal) : error > 0 ? 0.0 : -999.0;
}

void Run::degrade(const std::string& what) {
  if (options_.strict) fail(ErrorKind::kStrict, "strict", what);
  log_warn(what);
  report_.degradations.push_back(what);
  degraded_.push_back(what);
}

void Run::open_outputs(Journal& journal, const std::filesystem::path& scales,
                       const std::filesystem::path& vectors, bool resume) {
  const auto start = Clock::now();
  journal_ = &journal;
  scales_ = scales;
  vectors_ = vectors;
  learned_ = resume && std::filesystem::exists(scales_);
  for (const auto& why : plan_.skipped) degrade("left in 16 bit: " + why);
  for (const auto& why : plan_.unreadable) degrade("no known engine loads " + why);
  for (const auto& warning : calibration_.warnings) degrade(warning);
  for (const auto& format : plan_.formats)
    outputs_.push_back(std::make_unique<OutputFolder>(format, resume));
  // What the journal says is finished must be what the files hold; from the first difference on it
  // is done again.
  size_t good = 0;
  for (const auto& line : journal.finished()) {
    const auto index = line.value("index", int64_t{-1});
    if (good >= plan_.units.size() || index != plan_.units[good].first) break;
    const Layers layers = plan_.layers_of(plan_.units[good]);
    std::vector<std::string> found;  // in the order of write()
    std::vector<std::function<void()>> mark;
    for (const auto& layer : layers)
      for (const auto& output : outputs_) {
        if (layer.scheme.bits == 16) continue;
        const uint64_t hash = output->hash_of(layer);
        found.push_back(hex(hash));
        mark.push_back([&, hash] { output->mark_layer_written(layer, hash); });
      }
    // Learned scales may be written already, and are written again.
    if ((!learned_ && line["hashes"] != ordered_json(found)) ||
        !read_vectors(plan_.units[good], line)) {
      log_warn(
          fmt::format("block {} of the earlier run is damaged on disk and is done again", index));
      break;
    }
    for (const auto& run : mark) run();
    report_.blocks.push_back(BlockReport::from_json(line));
    for (const auto& d : line.value("degradations", ordered_json::array()))
      report_.degradations.push_back(d);
    ++good;
  }
  journal.begin(good);
  timings_.add("lay out", seconds_since(start));
  resumed_ = good;
  learned_ = learned_ && good == plan_.units.size();
  if (good > 0)
    log_info(
        fmt::format("continuing: {} of {} blocks were finished before", good, plan_.units.size()));
}

// The model's input: rows of the embedding.
void Run::embed() {
  const int64_t hidden = plan_.architecture.hidden;
  targets_ = ActivationStream(plan_.nsamples, plan_.seqlen, hidden, plan_.stream_dtype,
                              plan_.scratch_bytes > 0 ? scales_.parent_path() : "",
                              plan_.stream_device);
  Buffer there;  // the rows on a GPU
  if (plan_.device.is_cuda()) there = Buffer(plan_.seqlen * hidden * 4, plan_.device);
  std::vector<float> rows(static_cast<size_t>(plan_.seqlen * hidden));
  const auto start = Clock::now();
  for (int64_t s = 0; s < plan_.nsamples; ++s) {
    embed_tokens(source_, plan_.architecture, calibration_.samples[static_cast<size_t>(s)],
                 rows.data());
    const DeviceScope scope(plan_.device);
    if (on_cuda()) copy_to_device(there.data(), rows.data(), there.bytes());
    targets_.scatter(s, 1, on_cuda() ? there.as<float>() : rows.data());
    if (on_cuda()) synchronize();
  }
  source_.release(plan_.architecture.embedding);
  if (plan_.follows_quantized_model()) inputs_ = targets_.clone();
  timings_.add("embed", seconds_since(start));
}

void Run::blocks() {
  const int64_t last =
      plan_.needs_calibration() && (!plan_.outside.empty() || options_.e2e_epochs > 0)
          ? plan_.architecture.blocks - 1
          : plan_.blocks.back();
  const bool nothing_left = resumed_ == plan_.units.size() && plan_.outside.empty() &&
                            (options_.e2e_epochs == 0 || learned_);
  if (options_.timing)  // measured here, not within a block
    timings_.timed("measuring the machine", 0, [&] { machine_rates(plan_.compute, plan_.device); });
  reset_device_peak();
  if (plan_.needs_calibration() && !nothing_left) embed();
  size_t next = 0;  // unit
  for (int64_t i = 0; i <= last && !nothing_left;) {
    check_interrupted();
    const bool selected = next < plan_.units.size() && plan_.units[next].first == i;
    const BlockUnit unit = selected ? plan_.units[next] : BlockUnit{.first = i};
    following_.reset();
    if (unit.end() <= last) {
      const size_t then = next + (selected ? 1 : 0);
      const bool is_unit = then < plan_.units.size() && plan_.units[then].first == unit.end();
      following_ = is_unit ? plan_.units[then] : BlockUnit{.first = unit.end()};
    }
    block(unit, selected, next);
    if (selected) ++next;
    i = unit.end();
  }
  block_.reset();
  finish_pending();
}

// selected: to be rounded, as unit number `order`; else its blocks only pass activations on.
void Run::block(const BlockUnit& unit, bool selected, size_t order) {
  const auto start = Clock::now();
  const int64_t index = unit.first;
  const bool finished = selected && order < resumed_;
  const Layers layers = plan_.layers_of(unit);
  hashes_.clear();
  rewritten_ = 0;
  degraded_.clear();

  BlockReport report{.index = index};
  if (!plan_.needs_calibration()) {
    if (!selected || finished) return;
    report = round_without_text(index);
  } else {
    const Graph graph = plan_.graph_of(unit);
    std::set<std::string> untuned;
    for (const auto& layer : layers)
      if (layer.scheme.bits == 16) untuned.insert(layer.name);
    const bool trains = plan_.tunes() && selected && !finished;
    // A GPU's memory is dear to take and to give back: blocks of one shape share it.
    const bool shared = plan_.device.is_cuda() && untuned.empty();
    if (!shared || !block_ || block_->trains != trains || !same_shape(block_->graph, graph)) {
      block_.reset();
      block_ = std::make_unique<BlockMemory>(BlockMemory{
          graph, trains, BlockWeights(graph, plan_.compute, plan_.device),
          Program(graph, {.batch = plan_.micro_batch,
                          .seq_len = plan_.seqlen,
                          .compute = plan_.compute,
                          .train = trains,
                          // What is done again for a continued run must have the same bits.
                          .as_trained = plan_.tunes(),
                          .untuned = untuned,
                          .norm_gradients = options_.enable_norm_bias_tuning,
                          .bias_gradients = options_.enable_norm_bias_tuning,
                          .int8_gradients = plan_.int8_gradients,
                          .device = plan_.device,
                          .timed = options_.timing || !plan_.device.is_cuda()})});
    } else {
      block_->weights.rename(graph);
      block_->program.rename(graph);
    }
    BlockWeights& weights = block_->weights;
    Program& program = block_->program;
    block_timings_.timed("load", 0, [&] { load(unit, graph, weights); });
    Moments moments;
    if (selected && !finished && !plan_.follows_quantized_model()) observe(program, moments);
    reference_forward(program, weights);
    if (selected && !finished) {
      if (plan_.tunes()) {
        const TuneResult tuned = tune(program, weights, layers, unit);
        report.loss_first = tuned.loss_first, report.loss_best = tuned.loss_best,
        report.best_iteration = tuned.best_iteration, report.restarts = tuned.restarts;
        report.stopped_early = tuned.stopped_early;
      } else if (plan_.method == "gptq") {
        round_by_second_moments(program, weights, graph, layers);
      } else {
        report.error_db = search_scales(layers, moments);
      }
    }
    if (plan_.follows_quantized_model() && !(finished && is_last_needed(unit))) {
      if (finished) use_written_weights(weights, layers), use_tuned_vectors(weights, unit);
      const double error_db = quantized_forward(program, weights);
      if (!finished) report.error_db = error_db;
    }
    block_timings_.add(program.timings());
    program.clear_timings();
    if (!shared) block_.reset();
  }
  for (const auto& layer : layers) source_.release(layer.name + ".weight");
  const bool rounded = selected && !finished;
  if (rounded && !being_written_.valid())
    block_timings_.timed("sync", 0, [&] {
      for (const auto& output : outputs_) output->sync();
    });
  report.seconds = seconds_since(start);
  report.rewritten_groups = rewritten_;
  if (rounded) report.vectors = vector_change(unit);
  end_timings(fmt::format("block {}", index), report.seconds);
  if (!rounded) return;
  progress(report, order + 1);
  if (being_written_.valid())
    pending_ = {std::move(being_written_), report, unit, degraded_};
  else
    journal(report, unit, degraded_);
}

// What was timed since the last call belongs to `what`, which took that long.
void Run::end_timings(const std::string& what, double seconds) {
  if (options_.timing)
    log_info("timing: " + what + "\n" +
             describe(block_timings_, seconds, machine_rates(plan_.compute, plan_.device)));
  timings_.add(block_timings_.all());
  block_timings_ = {};
}

// Weights that are not finite would spoil the reference; they are replaced as in rounding
// (quant/non_finite.h).
void Run::load(const BlockUnit& unit, const Graph& graph, BlockWeights& weights) {
  if (!weights.device().is_cuda()) {
    non_finite_ = load_finite_weights(source_, graph, weights);
  } else {
    if (ahead_.read.valid() && ahead_.first == unit.first) {
      non_finite_ = ahead_.read.get();
      std::swap(staging_, ahead_);
    } else {
      stage(staging_, unit.first, graph);
      non_finite_ = load_finite_weights(source_, graph, *staging_.weights);
    }
    const DeviceScope scope(plan_.device);
    weights.upload(*staging_.weights);
    synchronize();
    read_ahead();
  }
  // Their pages of the file would count as the program's memory.
  for (const auto& p : graph.linear_params()) source_.release(p.name + ".weight");
}

void Run::stage(Staging& staging, int64_t first, const Graph& graph) const {
  if (staging.weights && same_shape(staging.graph, graph))
    staging.weights->rename(graph);
  else
    staging.weights =
        std::make_unique<BlockWeights>(graph, plan_.compute, Device{Device::Kind::kPinned, 0});
  staging.graph = graph;
  staging.first = first;
}

void Run::read_ahead() {
  if (!following_) return;
  const Graph graph = plan_.graph_of(*following_);
  stage(ahead_, following_->first, graph);
  ahead_.read = std::async(std::launch::async, [this, graph] {
    return load_finite_weights(source_, graph, *ahead_.weights);
  });
}

// targets: x becomes the original block's output, in place.
void Run::reference_forward(Program& program, const BlockWeights& weights) {
  const DeviceScope scope(plan_.device);
  for (int64_t first = 0; first < plan_.nsamples; first += plan_.micro_batch) {
    check_interrupted();
    const int64_t count = std::min(plan_.micro_batch, plan_.nsamples - first);
    block_timings_.timed("gather", 0, [&] { targets_.gather(first, count, program.input()); });
    program.forward(weights);
    block_timings_.timed("gather", 0, [&] { targets_.scatter(first, count, program.output()); });
  }
}

// inputs: x_q becomes the quantized block's output, in place. Returns its error against the target
// in dB.
double Run::quantized_forward(Program& program, const BlockWeights& weights) {
  const DeviceScope scope(plan_.device);
  const int64_t cols = plan_.architecture.hidden, most = plan_.micro_batch * plan_.seqlen;
  Buffer target(most * cols * 4, plan_.device), row_sums(most * 8, plan_.device),
      zeros(cols * 4, plan_.device), sum(8, plan_.device);
  double error = 0, signal = 0;
  const auto loss = [&](int64_t rows, RowsIn pred, RowsAny ref) {
    const std::span<double> sums(row_sums.as<double>(), static_cast<size_t>(rows));
    double all = mse_loss_fwd(rows, cols, pred, ref, {}, sums).sum;
    if (!on_cuda()) return all;
    kernels::cuda::total(sums.data(), rows, sum.as<double>());
    copy_to_host(&all, sum.data(), 8);
    return all;
  };
  for (int64_t first = 0; first < plan_.nsamples; first += plan_.micro_batch) {
    check_interrupted();
    const int64_t count = std::min(plan_.micro_batch, plan_.nsamples - first),
                  rows = count * plan_.seqlen;
    block_timings_.timed("gather", 0, [&] {
      inputs_.gather(first, count, program.input());
      targets_.gather(first, count, target.as<float>());
    });
    program.forward(weights);
    const RowsIn output{program.output(), cols}, reference{target.as<float>(), cols};
    block_timings_.timed("loss", 0, [&] {
      error += loss(rows, output, reference);
      signal += loss(rows, reference, {zeros.data(), DType::kF32, 0});
    });
    block_timings_.timed("gather", 0, [&] {
      inputs_.scatter(first, count,
                      options_.enable_quanted_input ? program.output() : target.as<float>());
    });
  }
  return decibels(error, signal);
}

template <class Linear>
void Run::write(const FormatLayer& layer, const Linear& linear, const NonFinite& non_finite,
                Written& written) const {
  if (non_finite.count > 0)
    written.degradations.push_back(fmt::format(
        "{}.weight holds {} values that are not finite, the first at row {}, column {}; their "
        "groups were rounded from the finite ones",
        layer.name, non_finite.count, non_finite.first / layer.in, non_finite.first % layer.in));
  written.timings.timed("pack", 0, [&] {
    for (const auto& output : outputs_) {
      const auto of_output = output->write_layer(layer, linear);
      written.hashes.push_back(hex(of_output.hash));
      written.rewritten_groups += of_output.rewritten_groups;
    }
  });
  if constexpr (std::is_same_v<Linear, QuantizedLinear>) {
    const float floor = layer.scheme.scale_floor();
    const auto clamped = std::count_if(linear.scales.begin(), linear.scales.end(),
                                       [&](float s) { return std::abs(s) <= floor * 1.01f; });
    if (clamped > 0)
      written.degradations.push_back(fmt::format("{}: {} of {} scales stand at the floor of {:g}",
                                                 layer.name, clamped, linear.scales.size(), floor));
  }
}
template void Run::write(const FormatLayer&, const QuantizedLinear&, const NonFinite&,
                         Written&) const;
template void Run::write(const FormatLayer&, const Nf4Linear&, const NonFinite&, Written&) const;

void Run::take(Written written) {
  hashes_.insert(hashes_.end(), written.hashes.begin(), written.hashes.end());
  rewritten_ += written.rewritten_groups;
  block_timings_.add(written.timings.all());
  for (const auto& what : written.degradations) degrade(what);
}

void Run::write_behind(std::vector<Finished> layers) {
  finish_pending();
  being_written_ = std::async(std::launch::async, [this, layers = std::move(layers)] {
    Written written;
    for (const Finished& f : layers) write(f.layer, f.linear, f.non_finite, written);
    written.timings.timed("sync", 0, [&] {
      for (const auto& output : outputs_) output->sync();
    });
    return written;
  });
}

void Run::finish_pending() {
  if (!pending_) return;
  Pending done = std::move(*pending_);
  pending_.reset();
  hashes_.clear();
  rewritten_ = 0;
  std::swap(degraded_, done.degradations);  // the next block, in work, has some of its own
  Written written = block_timings_.timed("wait for writing", 0, [&] { return done.written.get(); });
  written.timings = {};  // it took place beside what is timed
  take(std::move(written));
  done.report.rewritten_groups = rewritten_;
  journal(done.report, done.unit, degraded_);
  std::swap(degraded_, done.degradations);
}

void Run::journal(BlockReport report, const BlockUnit& unit,
                  const std::vector<std::string>& degradations) {
  ordered_json line = report.to_json();
  line["hashes"] = hashes_;
  if (report.vectors.count > 0) line["vectors_hash"] = vectors_hash(unit);
  line["degradations"] = degradations;
  timings_.timed("journal", 0, [&] { journal_->append(line); });
  report_.blocks.push_back(std::move(report));
}

void Run::put_weight(BlockWeights& weights, const FormatLayer& layer, const float* rows) {
  const WeightView place = weights.weight(layer.name);
  const DeviceScope scope(weights.device());
  Buffer there;
  if (on_cuda()) {
    there = Buffer(layer.out * layer.in * 4, weights.device());
    copy_to_device(there.data(), rows, there.bytes());
    rows = there.as<float>();
  }
  convert(layer.out, layer.in, {rows, DType::kF32, layer.in},
          {place.data, place.dtype, place.stride});
  if (on_cuda()) synchronize();  // before the rows go
}

void Run::use_written_weights(BlockWeights& weights, const Layers& layers) {
  // Packed formats hold the tuned integers; `fake` rounds to the source's dtype, so it is asked
  // last.
  OutputFolder* from = outputs_[0].get();
  for (const auto& output : outputs_)
    if (output->plan().format->packing() != Packing::kNone) from = output.get();
  std::vector<float> rows;
  block_timings_.timed("read back", 0, [&] {
    for (const auto& layer : layers) {
      if (layer.scheme.bits == 16) continue;
      rows.resize(static_cast<size_t>(layer.out * layer.in));
      from->read_weight(layer, rows.data());
      put_weight(weights, layer, rows.data());
    }
  });
}

void Run::progress(const BlockReport& block, size_t done) {
  const double elapsed = seconds_since(start_),
               left = elapsed / static_cast<double>(done - resumed_) *
                      static_cast<double>(plan_.units.size() - done);
  std::string loss;
  if (plan_.tunes())
    loss = fmt::format("  loss {:.3g} -> {:.3g} (step {}{}{})", block.loss_first, block.loss_best,
                       block.best_iteration,
                       block.restarts > 0 ? fmt::format(", restarts {}", block.restarts) : "",
                       block.stopped_early ? ", stopped early" : "");
  log_info(fmt::format(
      "block {:>3} ({}/{}){}  error {:.1f} dB  {:.1f} s, {} left", block.index, done,
      plan_.units.size(), loss, block.error_db, block.seconds,
      left < 90 ? fmt::format("{:.0f} s", left) : fmt::format("{:.0f} min", left / 60)));
}

void Run::copy_rest() {
  std::set<std::string> quantized;
  for (const auto& layers : plan_.layers)
    for (const auto& layer : layers)
      if (layer.scheme.bits < 16) quantized.insert(layer.name + ".weight");
  for (const auto& layer : plan_.outside)
    if (layer.scheme.bits < 16) quantized.insert(layer.name + ".weight");
  int64_t copied = 0;
  const auto start = Clock::now();
  malloc_trim(0);  // what rounding freed would stay resident beside the tensors that are copied
  const PatchedCheckpoint tuned(source_, tuned_vectors_);
  const ScaledCheckpoint learned(tuned, learned_norms_);
  for (const TensorInfo& tensor : source_.tensors()) {
    if (quantized.count(tensor.name)) continue;
    check_interrupted();
    for (const auto& output : outputs_) output->copy(learned, tensor);
    ++copied;
  }
  timings_.add("copy", seconds_since(start));
  report_.ledger = {{"quantized", static_cast<int64_t>(quantized.size())}, {"copied", copied}};
  require(static_cast<int64_t>(quantized.size()) + copied ==
              static_cast<int64_t>(source_.tensors().size()),
          "ledger", "internal: ", source_.tensors().size(), " tensors came in, ", quantized.size(),
          " were quantized and ", copied, " copied");
}

void Run::finish() {
  report_.source_bytes = source_.bytes_on_disk();
  report_.result_bytes = plan_.formats[0].bytes;
  report_.bits_per_weight = plan_.bits_per_weight();
  report_.planned_memory = plan_.memory.total();
  report_.peak_rss_bytes = peak_rss_bytes();
  if (plan_.device.is_cuda()) {
    report_.planned_gpu_memory = plan_.gpu_memory.total();
    report_.peak_gpu_bytes = plan_.gpu_memory.context + device_peak_bytes();
  }
  for (const auto& output : outputs_)
    report_.checksums[std::string(output->plan().format->name())] = hex(output->checksum());
  timings_.add(block_timings_.all());  // of layers outside the blocks
  if (options_.timing)
    log_info("timing: whole run\n" +
             describe(timings_, seconds_since(start_), machine_rates(plan_.compute, plan_.device)));
  for (const auto& t : timings_.all())
    report_.timings[t.name] = {{"seconds", t.seconds},
                               {"gflops", t.seconds > 0 ? t.flops / t.seconds / 1e9 : 0},
                               {"gbps", t.seconds > 0 ? t.bytes / t.seconds / 1e9 : 0},
                               {"calls", t.calls}};
  if (plan_.tunes())
    report_.probed_gflops = product_rate(plan_.compute, plan_.device) / 1e9;
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

}  // namespace signround
