// How each method rounds a block, the head, and what lies outside the blocks.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "signround/base/error.h"
#include "signround/base/hash.h"
#include "signround/base/log.h"
#include "signround/base/parallel.h"
#include "signround/io/safetensors.h"
#include "signround/kernels/cuda.h"
#include "signround/model/load.h"
#include "signround/ops/convert.h"
#include "signround/ops/matmul.h"
#include "signround/pipeline/distill.h"
#include "signround/pipeline/interrupt.h"
#include "signround/pipeline/run.h"
#include "signround/quant/gptq.h"
#include "signround/quant/imatrix.h"
#include "signround/quant/opt_rtn.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"
#include "signround/quant/scale_start_cuda.h"
#include "signround/quant/signround.h"
#include "signround/quant/signround_cuda.h"

namespace signround {
namespace {

constexpr int64_t kJudged = 16;  // samples that tell where steps are too long, with free scales
constexpr const char* kFactors = ".factors";  // of a norm's weight, in the file of what was learned

}  // namespace

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
  const DeviceScope scope(plan_.device);
  Moments moments;
  std::vector<Buffer> on_gpu;  // sums[i] there
  if (on_cuda())
    program.set_linear_input_observer([&](const LinearsOp& op, const void* x, DType dtype,
                                          int64_t rows, int64_t stride) {
      const int64_t in = op.params[0].in;
      const auto [place, first] = moments.of_layer.emplace(op.params[0].name, on_gpu.size());
      if (first) {
        for (const auto& param : op.params) moments.of_layer[param.name] = on_gpu.size();
        on_gpu.emplace_back(in * 8, plan_.device);
      }
      kernels::cuda::second_moments(rows, in, {x, dtype, stride},
                                    on_gpu[place->second].as<double>());
    });
  else
    observe(program, moments);
  for (int64_t first = 0; first < plan_.nsamples && first * plan_.seqlen < kTokens;
       first += plan_.micro_batch) {
    check_interrupted();
    block_timings_.timed("gather", 0, [&] {
      inputs_.gather(first, std::min(plan_.micro_batch, plan_.nsamples - first), program.input());
    });
    program.forward(weights);
  }
  program.set_linear_input_observer({});
  for (const Buffer& sums : on_gpu) {
    moments.sums.emplace_back(static_cast<size_t>(sums.bytes() / 8));
    copy_to_host(moments.sums.back().data(), sums.data(), sums.bytes());
  }
  return moments;
}

namespace {

Buffer without_gaps(const WeightView& weight) {
  Buffer rows(weight.out * weight.in * int64_t{sizeof(BF16)});
  const auto* from = static_cast<const BF16*>(weight.data);
  parallel_for(weight.out, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      std::copy_n(from + r * weight.stride, weight.in, rows.as<BF16>() + r * weight.in);
  });
  return rows;
}

}  // namespace

TuneResult Run::tune(Program& program, BlockWeights& weights, const Layers& layers,
                     const BlockUnit& unit) {
  const int64_t index = unit.first;
  const SignRoundOptions how = slot_options(options_);
  Moments moments;
  if (options_.start == "searched") moments = observe_quantized(program, weights);
  std::vector<TunedLayer> tuned;
  std::vector<const FormatLayer*> written;
  const bool on_gpu = plan_.device.is_cuda();
  block_timings_.timed("start", 0, [&] {
    for (const auto& layer : layers) {
      if (layer.scheme.bits == 16) continue;
      if (on_gpu) {
        tuned.push_back({layer.name, make_cuda_slot(weights, layer, how, moments)});
        written.push_back(&layer);
        continue;
      }
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
        const Buffer rows = without_gaps(place);
        slot = make_slot(rows.as<BF16>());
      } else {
        const auto rows = read_linear(source_, {layer.name, layer.out, layer.in, false});
        source_.release(layer.name + ".weight");
        slot = make_slot(rows.data());
      }
      tuned.push_back({layer.name, std::move(slot)});
      written.push_back(&layer);
    }
  });
  std::vector<TunedVector> vectors;
  for (const auto& param : vectors_of(unit)) {
    const DType dtype = source_.at(param.name).dtype;
    require(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16, "tune",
            param.name, " is of ", name_of(dtype), ", expected F32, F16 or BF16");
    int bits = plan_.scheme.bits;  // that its first step goes by: a bias's are its layer's
    for (const auto& layer : layers)
      if (param.name == layer.name + ".bias") bits = layer.scheme.bits;
    vectors.push_back({param.name, VectorTuner((on_gpu ? *staging_.weights : weights).vector(param.name),
                                               sign_round_lr(how, bits), how.momentum)});
  }
  const TuneOptions tune_options{.iters = options_.iters,
                                 .batch_size = options_.batch_size,
                                 .accumulate_steps = options_.gradient_accumulate_steps,
                                 .seed = options_.seed + static_cast<uint64_t>(index),
                                 .keep_best = options_.keeps_best(),
                                 .judged = options_.judges_states() ? kJudged : 0,
                                 .early_stop = options_.early_stop,
                                 .profile = options_.timing,
                                 .timings = &block_timings_};
  const TuneResult result = tune_block(
      program, weights, tuned, inputs_, targets_, masks_, tune_options,
      [&](int iteration) {
        check_interrupted();
        if (iteration % 10 == 0 && log_level() >= LogLevel::kInfo && iteration > 0)
          log_debug(fmt::format("block {}: step {} of {}", index, iteration, options_.iters));
      },
      vectors);
  if (result.non_finite_losses > 0)
    degrade(fmt::format("block {}: {} of {} losses were not finite{}", index,
                        result.non_finite_losses, result.iterations,
                        result.best_iteration < 0 ? "; it keeps what it began with" : ""));
  // Packed formats hold the tuned integers, and what is written is read back: what a GPU's slot
  // gives is what a continued run reads from the files.
  const bool keeps_weights =
      on_gpu && std::any_of(outputs_.begin(), outputs_.end(), [](const auto& output) {
        return output->plan().format->packing() != Packing::kNone;
      });
  if (keeps_weights) {
    std::vector<Finished> finished(tuned.size());
    block_timings_.timed("finish", 0, [&] {
      // Threads for the sake of the host's memory, whose pages are touched for the first time.
      parallel_for(static_cast<int64_t>(tuned.size()), 1, [&](int64_t begin, int64_t end) {
        const DeviceScope scope(plan_.device);
        for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
          const WeightView place = weights.weight(tuned[i].name);
          auto& slot = static_cast<SignRoundCudaSlot&>(*tuned[i].slot);
          slot.write_best(place.data, place.dtype, place.stride);
          finished[i] = {*written[i], slot.finish(), non_finite_.at(written[i]->name)};
        }
      });
      tuned.clear();
    });
    write_behind(std::move(finished));
  }
  for (size_t i = 0; i < tuned.size(); ++i) {
    const QuantizedLinear linear = block_timings_.timed("finish", 0, [&] {
      const DeviceScope scope(plan_.device);
      return tuned[i].slot->finish();
    });
    tuned[i].slot.reset();
    write(*written[i], linear, non_finite_[written[i]->name]);
  }
  for (const auto& vector : vectors) {
    auto& values = tuned_vectors_[vector.name] = vector.tuner.finish();
    round_to_dtype(values, source_.at(vector.name).dtype);
  }
  if (!vectors.empty()) write_vectors(unit);
  // From the files, as a continued run does: `fake` rounds to the source's dtype.
  if (!keeps_weights) use_written_weights(weights, layers);
  use_tuned_vectors(weights, unit);
  return result;
}

std::unique_ptr<WeightSlot> Run::make_cuda_slot(BlockWeights& weights, const FormatLayer& layer,
                                                const SignRoundOptions& how,
                                                const Moments& moments) {
  const DeviceScope scope(plan_.device);
  const auto slot_of = [&](const RowsAny& w) -> std::unique_ptr<WeightSlot> {
    if (options_.start != "searched")
      return std::make_unique<SignRoundCudaSlot>(w, layer.out, layer.in, layer.scheme, how);
    const std::vector<float> channels =
        channel_importance(moments.importance(layer).data(), layer.in);
    const int64_t groups = layer.out * layer.scheme.groups(layer.in);
    Buffer importance(4 * layer.in, plan_.device), grid(8 * groups, plan_.device);
    copy_to_device(importance.data(), channels.data(), importance.bytes());
    auto* scale = grid.as<float>();
    search_start_cuda(w, layer.out, layer.in, layer.scheme, importance.as<float>(), scale,
                      scale + groups);
    return std::make_unique<SignRoundCudaSlot>(w, layer.out, layer.in, layer.scheme, how,
                                               DeviceStart{scale, scale + groups});
  };
  const WeightView place = weights.weight(layer.name);
  if (layer.dtype == DType::kBF16 && place.dtype == DType::kBF16)
    return slot_of({place.data, place.dtype, place.stride});
  auto rows = read_linear(source_, {layer.name, layer.out, layer.in, false});
  source_.release(layer.name + ".weight");
  const int64_t group = layer.scheme.group(layer.in);
  for (int64_t r = 0; r < layer.out; ++r)
    for (int64_t c = 0; c < layer.in; c += group)
      replace_non_finite(rows.data() + r * layer.in + c, std::min(group, layer.in - c), 0);
  Buffer there(layer.out * layer.in * 4, plan_.device);
  copy_to_device(there.data(), rows.data(), there.bytes());
  return slot_of({there.data(), DType::kF32, layer.in});
}

std::vector<VectorParam> Run::vectors_of(const BlockUnit& unit) const {
  std::vector<VectorParam> vectors;
  if (!options_.enable_norm_bias_tuning) return vectors;
  std::set<std::string> tuned;
  for (const auto& layer : plan_.layers_of(unit))
    if (layer.scheme.bits < 16) tuned.insert(layer.name);
  if (tuned.empty()) return vectors;
  const Graph graph = plan_.graph_of(unit);
  for (const Op& op : graph.ops()) {
    if (const auto* norm = std::get_if<NormOp>(&op)) vectors.push_back(norm->weight);
    if (const auto* linears = std::get_if<LinearsOp>(&op))
      for (const auto& p : linears->params)
        if (p.bias && tuned.count(p.name)) vectors.push_back({p.name + ".bias", p.out});
  }
  return vectors;
}

std::string Run::vectors_hash(const BlockUnit& unit) const {
  std::string text;
  for (const auto& param : vectors_of(unit))
    text += param.name + " " +
            hex(xxh3(std::as_bytes(std::span(tuned_vectors_.at(param.name))))) + "\n";
  return hex(xxh3(text));
}

namespace {

std::filesystem::path vector_file(const std::filesystem::path& folder, const BlockUnit& unit) {
  return folder / fmt::format("{}.safetensors", unit.first);
}

}  // namespace

void Run::write_vectors(const BlockUnit& unit) const {
  std::error_code error;
  std::filesystem::create_directories(vectors_, error);
  if (error)
    fail(ErrorKind::kIo, "work folder", "cannot create ", vectors_.string(), ": ", error.message());
  std::vector<TensorInfo> tensors;
  for (const auto& param : vectors_of(unit))
    tensors.push_back({param.name, DType::kF32, {param.size}});
  SafetensorsWriter file = SafetensorsWriter::create(vector_file(vectors_, unit), tensors);
  for (const auto& tensor : tensors)
    file.write(tensor.name, std::as_bytes(std::span(tuned_vectors_.at(tensor.name))));
  file.finish();
}

bool Run::read_vectors(const BlockUnit& unit, const nlohmann::ordered_json& line) {
  const std::vector<VectorParam> vectors = vectors_of(unit);
  if (vectors.empty()) return true;
  try {
    const SafetensorsFile file(vector_file(vectors_, unit));
    for (const auto& param : vectors) {
      const auto index = file.find(param.name);
      if (!index || !(file.tensors()[*index] == TensorInfo{param.name, DType::kF32, {param.size}}))
        return false;
      auto& values = tuned_vectors_[param.name];
      values.resize(static_cast<size_t>(param.size));
      const auto bytes = file.bytes(*index);
      std::memcpy(values.data(), bytes.data(), bytes.size());
    }
  } catch (const Error&) {  // not there, or cut off: the block is done again
    return false;
  }
  return line.value("vectors_hash", "") == vectors_hash(unit);
}

void Run::use_tuned_vectors(BlockWeights& weights, const BlockUnit& unit) const {
  const DeviceScope scope(weights.device());
  for (const auto& param : vectors_of(unit)) {
    const auto& values = tuned_vectors_.at(param.name);
    copy_to_current(weights.vector(param.name).data(), values.data(),
                    static_cast<int64_t>(values.size()) * 4);
    if (on_cuda()) synchronize();
  }
}

VectorChange Run::vector_change(const BlockUnit& unit) const {
  VectorChange change;
  for (const auto& param : vectors_of(unit)) {
    ++change.count;
    const std::vector<float> before = source_.read_all_f32(param.name);
    const std::vector<float>& after = tuned_vectors_.at(param.name);
    double error = 0, signal = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      const double w = before[i], d = after[i] - before[i];
      error += d * d, signal += w * w;
    }
    const double relative = signal > 0 ? std::sqrt(error / signal) : error > 0 ? 1 : 0;
    change.mean += relative;
    if (relative >= change.largest) change.largest = relative, change.name = param.name;
  }
  if (change.count > 0) change.mean /= static_cast<double>(change.count);
  return change;
}

// X^T X of the inputs of one operation's layers, in the quantized model as far as it is rounded.
std::vector<float> Run::hessian(Program& program, const BlockWeights& weights,
                                const LinearsOp& op) {
  const int64_t in = op.params[0].in;
  std::vector<float> sums(static_cast<size_t>(in * in));
  int64_t valid_rows = 0;
  std::map<int64_t, std::unique_ptr<MatmulPlan>> products;  // by rows: the last ones are fewer
  program.set_linear_input_observer(
      [&](const LinearsOp& seen, const void* x, DType dtype, int64_t, int64_t stride) {
        if (seen.params[0].name != op.params[0].name) return;
        auto& product = products[valid_rows];
        if (!product)
          product = make_matmul({.m = in,
                                 .n = in,
                                 .k = valid_rows,
                                 .in = dtype,
                                 .trans_a = true,
                                 .lda = stride,
                                 .ldb = stride,
                                 .ldc = in,
                                 .accumulate = true});
        product->run(x, x, nullptr, sums.data());
      });
  for (int64_t first = 0; first < plan_.nsamples; first += plan_.micro_batch) {
    check_interrupted();
    const int64_t count = std::min(plan_.micro_batch, plan_.nsamples - first);
    valid_rows = count * plan_.seqlen;
    block_timings_.timed("gather", 0, [&] { inputs_.gather(first, count, program.input()); });
    program.forward(weights);
  }
  program.set_linear_input_observer({});
  return sums;
}

// GPTQ, true-sequential: layers that read the same input are rounded together, and the next ones
// see what they give.
void Run::round_by_second_moments(Program& program, BlockWeights& weights, const Graph& graph,
                                  const Layers& layers) {
  const GptqOptions how{.damp = options_.damp, .act_order = options_.act_order};
  for (const Op& op : graph.ops()) {
    const auto* linears = std::get_if<LinearsOp>(&op);
    if (linears == nullptr) continue;
    Layers rounded;
    for (const auto& param : linears->params)
      for (const auto& layer : layers)
        if (layer.name == param.name && layer.scheme.bits < 16) rounded.push_back(layer);
    if (rounded.empty()) continue;
    std::vector<float> moments = hessian(program, weights, *linears);
    const GptqFactor factor = block_timings_.timed(
        "factor", 0, [&] { return gptq_factor(std::move(moments), linears->params[0].in, how); });
    const std::string& name = rounded[0].name;
    if (factor.upper.empty())
      degrade(
          fmt::format("{}: the second moments of its inputs cannot be factored, even damped by {}: "
                      "rounded to nearest",
                      name, factor.damp / 10));
    else if (factor.damp > 1.5 * how.damp)
      degrade(fmt::format("{}: damped by {} instead of {}", name, factor.damp, how.damp));
    if (factor.dead > 0)
      degrade(
          fmt::format("{}: {} inputs are always 0 in the calibration text; their weights became 0",
                      name, factor.dead));
    for (const auto& layer : rounded) {
      check_interrupted();
      const auto rows = block_timings_.timed("load", 0, [&] {
        return read_linear(source_, {layer.name, layer.out, layer.in, false});
      });
      GptqNotes notes;
      const QuantizedLinear linear = block_timings_.timed("round", 0, [&] {
        return gptq(rows.data(), layer.out, layer.in, layer.scheme, factor, how, &notes);
      });
      write(layer, linear, notes.non_finite);
    }
    use_written_weights(weights, rounded);
  }
}

// opt-RTN. Returns the error that second moments predict for the layers' outputs, in dB.
double Run::search_scales(const Layers& layers, const Moments& moments) {
  double error = 0, signal = 0;
  for (const auto& layer : layers) {
    if (layer.scheme.bits == 16) continue;
    const std::vector<float> importance = moments.importance(layer);
    const auto rows = block_timings_.timed("load", 0, [&] {
      return read_linear(source_, {layer.name, layer.out, layer.in, false});
    });
    OptRtnNotes notes;
    const QuantizedLinear linear = block_timings_.timed("search", 0, [&] {
      return opt_rtn(rows.data(), layer.out, layer.in, layer.scheme, importance.data(), &notes);
    });
    if (notes.unimportant_groups + notes.filled_groups > 0)
      degrade(
          fmt::format("{}: {} groups of inputs were never or partly seen in the calibration text",
                      layer.name, notes.unimportant_groups + notes.filled_groups));
    block_timings_.timed("error", 0, [&] {
      std::vector<float> rounded(rows.size());
      dequantize(linear, rounded.data());
      for (int64_t r = 0; r < layer.out; ++r)
        for (int64_t c = 0; c < layer.in; ++c) {
          const size_t k = static_cast<size_t>(r * layer.in + c);
          if (!std::isfinite(rows[k])) continue;
          const double d = rounded[k] - rows[k], weight = importance[static_cast<size_t>(c)];
          error += weight * d * d, signal += weight * rows[k] * rows[k];
        }
    });
    write(layer, linear, notes.non_finite);
  }
  return decibels(error, signal);
}

// RTN and NF4 read no text and run no block. The error is that of the weights.
BlockReport Run::round_without_text(int64_t index) {
  WeightError sum;
  for (const auto& layer : plan_.layers[static_cast<size_t>(index)]) {
    if (layer.scheme.bits == 16) continue;
    check_interrupted();
    const WeightError of_layer = round_without_text(layer);
    sum.error += of_layer.error, sum.signal += of_layer.signal;
  }
  return {.index = index, .error_db = decibels(sum.error, sum.signal)};
}

namespace {

// use(w) with w: (out, in), from the mapped file where it holds aligned bf16, without a copy.
template <class Use>
auto with_weight(const Checkpoint& source, const FormatLayer& layer, Use&& use) {
  check_linear(source, {layer.name, layer.out, layer.in, false});
  if (layer.dtype == DType::kBF16) {
    std::vector<std::byte> scratch;
    const auto bytes = source.bytes(layer.name + ".weight", scratch);
    if (reinterpret_cast<uintptr_t>(bytes.data()) % alignof(BF16) == 0)
      return use(reinterpret_cast<const BF16*>(bytes.data()));
  }
  const auto rows = read_linear(source, {layer.name, layer.out, layer.in, false});
  return use(rows.data());
}

}  // namespace

Run::WeightError Run::round_without_text(const FormatLayer& layer) {
  NonFinite non_finite;
  const double bytes = 3.0 * static_cast<double>(layer.out * layer.in);  // bf16 in, codes out
  const auto rounded = [&](auto&& method) {
    return block_timings_.timed("round", bytes, [&] {
      return with_weight(source_, layer, [&](const auto* w) {
        return method(w, layer.out, layer.in, layer.scheme, &non_finite);
      });
    });
  };
  const auto finish = [&](const auto& linear) {
    WeightError sum;
    block_timings_.timed("error", 0, [&] {
      std::vector<float> row(static_cast<size_t>(layer.in)), found(row.size());
      for (int64_t r = 0; r < layer.out; r += 16) {
        source_.read_f32(layer.name + ".weight", r, 1, row.data());
        dequantize_row(linear, r, found.data());
        for (size_t c = 0; c < row.size(); ++c) {
          if (!std::isfinite(row[c])) continue;
          const double w = row[c], d = found[c] - w;
          sum.error += d * d, sum.signal += w * w;
        }
      }
    });
    source_.release(layer.name + ".weight");
    write(layer, linear, non_finite);
    return sum;
  };
  if (layer.scheme.levels == Levels::kNf4)
    return finish(rounded([](auto... arguments) { return nf4(arguments...); }));
  return finish(rounded([](auto... arguments) { return rtn(arguments...); }));
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
    const ActivationStream& stream = plan_.follows_quantized_model() ? inputs_ : targets_;
    for (const auto& layer : plan_.outside) moments.of_layer[layer.name] = 0;
    auto& sums = moments.sums.emplace_back(static_cast<size_t>(plan_.architecture.hidden));
    for (int64_t s = 0; s < plan_.nsamples; ++s) {
      if (stream.device().is_cuda()) {
        const DeviceScope scope(stream.device());
        Buffer rows(plan_.seqlen * plan_.architecture.hidden * 4, stream.device());
        stream.gather(s, 1, rows.as<float>());
        copy_to_host(program.input(), rows.data(), rows.bytes());
      } else {
        stream.gather(s, 1, program.input());
      }
      program.forward(weights);
      add_second_moments(program.output(), plan_.seqlen, plan_.architecture.hidden,
                         plan_.architecture.hidden, sums.data());
    }
    search_scales(plan_.outside, moments);
  } else {
    for (const auto& layer : plan_.outside)
      if (layer.scheme.bits < 16) round_without_text(layer);
  }
}

// Learned scales go into a file of their own first: a run that is stopped while they are written
// into the outputs writes them once more.
void Run::end_to_end() {
  if (options_.e2e_epochs == 0) return;
  OutputFolder* packed = nullptr;
  for (const auto& output : outputs_)
    if (output->plan().format->packing() != Packing::kNone) packed = output.get();
  require(packed != nullptr, "end to end", "no packed format is written");
  const auto tensor_of = [](const FormatLayer& layer) {
    return TensorInfo{
        layer.name + ".scales", DType::kF32, {layer.out, layer.scheme.groups(layer.in)}};
  };
  if (!learned_) {
    const auto start = Clock::now();
    staging_ = {}, ahead_ = {};  // of a GPU: no block is read any more
    const PatchedCheckpoint tuned(source_, tuned_vectors_);
    const DistillResult learned = distill(
        {.source = tuned,
         .architecture = plan_.architecture,
         .layers = plan_.layers,
         .samples = calibration_.samples,
         .masks = masks_,
         .targets = targets_,
         .read = [&](const FormatLayer& layer) { return packed->read_linear(layer); },
         .timings = &block_timings_},
        distill_options(options_, plan_), [&](int64_t step, int64_t steps, double kl) {
          check_interrupted();
          log_info(fmt::format("end to end: step {} of {}  KL {:.5f}", step + 1, steps, kl));
        });
    std::vector<TensorInfo> tensors;
    for (const auto& layers : plan_.layers)
      for (const auto& layer : layers)
        if (layer.scheme.bits < 16) tensors.push_back(tensor_of(layer));
    for (const auto& [name, factors] : learned.norms)
      tensors.push_back({name + kFactors, DType::kF32, {static_cast<int64_t>(factors.rows.size())}});
    SafetensorsWriter file =
        SafetensorsWriter::create(scales_, tensors,
                                  {{"kl_first", fmt::format("{}", learned.kl_first)},
                                   {"kl_last", fmt::format("{}", learned.kl_last)},
                                   {"steps", fmt::format("{}", learned.steps)},
                                   {"seconds", fmt::format("{:.3f}", seconds_since(start))}});
    for (const auto& layers : plan_.layers)
      for (const auto& layer : layers)
        if (layer.scheme.bits < 16)
          file.write(layer.name + ".scales",
                     std::as_bytes(std::span(learned.scales.at(layer.name))));
    for (const auto& [name, factors] : learned.norms)
      file.write(name + kFactors, std::as_bytes(std::span(factors.rows)));
    file.finish();
    end_timings("end to end", seconds_since(start));
    learned_ = true;
  }

  const SafetensorsFile file(scales_);
  for (const auto& layers : plan_.layers)
    for (const auto& layer : layers) {
      if (layer.scheme.bits == 16) continue;
      check_interrupted();
      const auto index = file.find(layer.name + ".scales");
      require(index && file.tensors()[*index] == tensor_of(layer), "end to end", scales_.string(),
              " holds no scales of ", layer.name, "; --restart begins anew");
      QuantizedLinear linear = block_timings_.timed(
          "read back", 0, [&] { return packed->read_linear(layer); });
      const auto bytes = file.bytes(*index);
      std::memcpy(linear.scales.data(), bytes.data(), bytes.size());
      write(layer, linear, {});
    }
  for (int64_t i = 0; i < plan_.architecture.blocks; ++i) {
    const Graph graph = plan_.architecture.block(i);
    for (const Op& op : graph.ops()) {
      const auto* norm = std::get_if<NormOp>(&op);
      const auto index = norm == nullptr ? std::nullopt : file.find(norm->weight.name + kFactors);
      if (!index) continue;
      std::vector<float> rows(static_cast<size_t>(norm->weight.size));
      const auto bytes = file.bytes(*index);
      require(bytes.size() == rows.size() * sizeof(float), "end to end", scales_.string(), ": ",
              norm->weight.name, kFactors, " has ", bytes.size(), " bytes, expected ",
              rows.size() * sizeof(float), "; --restart begins anew");
      std::memcpy(rows.data(), bytes.data(), bytes.size());
      learned_norms_[norm->weight.name] = {
          .rows = std::move(rows), .columns = {}, .offset = norm->weight_offset};
    }
  }
  for (const auto& output : outputs_) output->sync();
  for (const auto& [key, value] : file.metadata())
    if (key != "format") report_.end_to_end[key] = std::stod(value);
}

}  // namespace signround
