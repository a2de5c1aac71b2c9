#include "signround/pipeline/plan.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/graph/join.h"
#include "signround/graph/program.h"
#include "signround/graph/timings.h"
#include "signround/io/safetensors.h"
#include "signround/model/load.h"
#include "signround/ops/matmul.h"
#include "signround/pipeline/layer_config.h"
#include "signround/pipeline/output.h"
#include "signround/pipeline/prepare_awq.h"
#include "signround/quant/gptq.h"
#include "signround/quant/signround.h"
#include "signround/quant/signround_cuda.h"
#include "signround/quant/vector_tuner.h"

namespace signround {

namespace {

constexpr int64_t kTokensPerMicroBatch =
    4096;  // beyond it products gain nothing and buffers leave the caches
constexpr int64_t kStreamInF32 = int64_t{2} << 30;  // streams that are larger wait in bf16
constexpr double kRtnBytesPerSecond =
    400e6;  // of source weights: reading, rounding, packing, reading back
// Pages of the program and its libraries that are not there yet, and products that are yet to be
// compiled: 5 MB of code were measured.
constexpr int64_t kLibraries = int64_t{8} << 20;
constexpr double kOptRtnWeightsPerSecond = 60e6;

std::string gigabytes(int64_t bytes) {
  return bytes < (int64_t{1} << 30) ? fmt::format("{:.0f} MB", static_cast<double>(bytes) / 1e6)
                                    : fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9);
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0, shared = 0;
  statm >> size >> resident >> shared;
  return resident * sysconf(_SC_PAGESIZE) + kLibraries;
}

int64_t available_memory() {
  std::ifstream info("/proc/meminfo");
  std::string key, unit;
  int64_t value = 0, available = int64_t{1} << 60;
  while (info >> key >> value >> unit)
    if (key == "MemAvailable:") available = value << 10;
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream limit(path);
    if (limit >> value && value > 0) available = std::min(available, value);
  }
  return available;
}

// Tensors of blocks that the config does not count: how many, and the first one's name.
std::pair<int64_t, std::string> tensors_beyond(const Checkpoint& checkpoint,
                                               const Architecture& arch) {
  std::pair<int64_t, std::string> found;
  const std::string prefix = arch.block_prefix + ".";
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (!tensor.name.starts_with(prefix)) continue;
    const char *begin = tensor.name.data() + prefix.size(),
               *end = tensor.name.data() + tensor.name.size();
    int64_t index = -1;
    const auto parsed = std::from_chars(begin, end, index);
    if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != '.' || index < arch.blocks)
      continue;
    if (found.first++ == 0) found.second = tensor.name;
  }
  return found;
}

// Layers that one of the formats cannot hold stay as they are.
void skip_what_no_format_holds(const QuantizeOptions& options, Plan& plan) {
  FormatModel model{.scheme = plan.scheme,
                    .layers = plan.outside,
                    .block_prefixes = {plan.architecture.block_prefix},
                    .tuning = {}};
  for (const auto& layers : plan.layers)
    model.layers.insert(model.layers.end(), layers.begin(), layers.end());
  std::vector<std::unique_ptr<CheckpointFormat>> formats;
  for (const auto& name : options.formats) formats.push_back(make_format(name, model));
  const auto check = [&](FormatLayer& layer) {
    if (layer.scheme.bits == 16) return;
    for (const auto& format : formats) {
      const std::string why = format->problems(layer.scheme, layer.out, layer.in);
      if (why.empty()) continue;
      plan.skipped.push_back(layer.name + ": " + why);
      layer.scheme.bits = 16;
      return;
    }
  };
  for (auto& layers : plan.layers)
    for (FormatLayer& layer : layers) check(layer);
  for (FormatLayer& layer : plan.outside) check(layer);
}

// Error{kInvalidArgument} that names all of them, if there are any.
void fail_with_all(const std::vector<std::string>& problems) {
  if (problems.empty()) return;
  if (problems.size() == 1) throw Error(ErrorKind::kInvalidArgument, problems[0]);
  std::string text = std::to_string(problems.size()) + " problems:";
  for (const auto& problem : problems) text += "\n  " + problem;
  throw Error(ErrorKind::kInvalidArgument, text);
}

void choose_layers(const QuantizeOptions& options, const Checkpoint& checkpoint, Plan& plan) {
  const Architecture& arch = plan.architecture;
  std::vector<std::string> problems;  // of options that do not fit this model
  try {
    plan.blocks = parse_blocks(options.blocks, arch.blocks);
  } catch (const Error& error) {
    problems.push_back(error.what());
  }
  for (const int64_t block : plan.blocks) {
    if (!plan.units.empty() && plan.units.back().end() == block &&
        plan.units.back().count < options.nblocks)
      ++plan.units.back().count;
    else
      plan.units.push_back({block, 1});
  }
  const std::set<int64_t> selected(plan.blocks.begin(), plan.blocks.end());
  LayerConfig layer_config(options.layer_config, plan.scheme),
      chosen(options.chosen_schemes, plan.scheme);
  std::set<std::string> used_parts;
  const auto layer_of = [&](const LinearParam& param, bool wanted, bool in_blocks) {
    FormatLayer layer{.name = param.name,
                      .scheme = plan.scheme,
                      .out = param.out,
                      .in = param.in,
                      .dtype = checkpoint.at(param.name + ".weight").dtype,
                      .in_blocks = in_blocks};
    if (const QuantScheme* own = layer_config.find(param.name))
      layer.scheme = *own;
    else if (const QuantScheme* best = chosen.find(param.name))
      layer.scheme = *best;
    for (const auto& part : options.ignore_layers)
      if (is_ignored({part}, param.name)) used_parts.insert(part), wanted = false;
    if (!wanted) layer.scheme.bits = 16;
    return layer;
  };
  for (int64_t i = 0; i < arch.blocks; ++i) {
    plan.layers.emplace_back();
    for (const LinearParam& param : arch.block(i).linear_params())
      plan.layers.back().push_back(layer_of(param, selected.count(i) > 0, true));
  }
  if (const auto [count, first] = tensors_beyond(checkpoint, arch); count > 0)
    plan.skipped.push_back(
        fmt::format("{} tensors of blocks behind the {} that config.json speaks of, the first {}",
                    count, arch.blocks, first));
  // By its whole name, to fewer than 16 bits.
  const auto rounds = [&](const std::string& name) {
    return layer_config.names(name) && layer_config.find(name)->bits < 16;
  };
  for (const LinearParam& param : arch.head().linear_params()) {
    if (!arch.tied) {
      if (options.quant_lm_head || layer_config.names(param.name))
        plan.outside.push_back(layer_of(param, true, false));
      continue;
    }
    const std::string why =
        ": the head of this model is tied to its embedding, so it cannot be quantized alone; leave "
        "it out";
    if (options.quant_lm_head) problems.push_back("--quant-lm-head" + why);
    for (const auto& name : std::set<std::string>{param.name, "lm_head", "model.embed_tokens"})
      if (rounds(name)) problems.push_back("--layer-config names " + name + why);
  }
  const std::string embedding = arch.embedding.substr(0, arch.embedding.rfind(".weight"));
  if (!arch.tied && rounds(embedding))
    problems.push_back("--layer-config names " + embedding +
                       ": the embedding stays as it is, since no format that is written here has "
                       "readers for a quantized one (docs/mixed_precision.md); leave it out");
  const std::string& example = plan.layers[0][0].name;
  for (const auto& part : options.ignore_layers)
    if (!used_parts.count(part))
      problems.push_back("--ignore-layers: no layer's name contains '" + part +
                         "'; a layer is called " + example);
  for (const auto& key : layer_config.unused())
    problems.push_back("--layer-config: no layer is meant by '" + key + "'; a layer is called " +
                       example);
  fail_with_all(problems);
  skip_what_no_format_holds(options, plan);
  if (plan.quantized_weights() == 0)
    fail(ErrorKind::kInvalidArgument, "plan", "no layer is left to quantize",
         plan.skipped.empty() ? "" : "; the first that was skipped: " + plan.skipped[0]);
}

void plan_format(const QuantizeOptions& options, const Checkpoint& checkpoint,
                 const std::string& name, Plan& plan) {
  FormatPlan result;
  FormatModel& model = result.model;
  model = {.scheme = plan.scheme,
           .layers = {},
           .block_prefixes = {plan.architecture.block_prefix},
           .tuning = {}};
  std::unordered_map<std::string, const FormatLayer*> quantized;  // by the weight's name
  const auto add = [&](const std::vector<FormatLayer>& layers) {
    for (const auto& layer : layers) {
      model.layers.push_back(layer);
      if (layer.scheme.bits < 16) quantized[layer.name + ".weight"] = &layer;
    }
  };
  for (const auto& layers : plan.layers) add(layers);
  add(plan.outside);
  model.tuning = {.iters = plan.tunes() ? options.iters : 0,
                  .lr = options.lr,
                  .minmax_lr = options.minmax_lr,
                  .nsamples = options.nsamples,
                  .seqlen = options.seqlen,
                  .batch_size = options.batch_size,
                  .gradient_accumulate_steps = options.gradient_accumulate_steps,
                  .enable_minmax_tuning = options.enable_minmax_tuning,
                  .enable_norm_bias_tuning = options.enable_norm_bias_tuning,
                  .enable_quanted_input = options.enable_quanted_input};
  result.format = make_format(name, model);
  result.folder = options.formats.size() == 1
                      ? options.output
                      : (std::filesystem::path(options.output) / name).string();
  result.quantization_config = result.format->quantization_config(model);

  const auto limit = static_cast<int64_t>(options.shard_size * 1e9);
  int64_t shard_bytes = limit;  // so that the first tensor opens a shard
  for (const TensorInfo& source : checkpoint.tensors()) {
    const auto found = quantized.find(source.name);
    const auto tensors = found == quantized.end() ? std::vector<TensorInfo>{source}
                                                  : result.format->tensors(*found->second);
    int64_t bytes = 0;
    for (const auto& t : tensors) bytes += t.nbytes();
    if (result.shards.empty() || shard_bytes + bytes > limit)
      result.shards.emplace_back(), shard_bytes = 0;
    shard_bytes += bytes;
    auto& shard = result.shards.back();
    shard.insert(shard.end(), tensors.begin(), tensors.end());
  }
  for (auto& shard : result.shards) {
    shard = sorted_for_alignment(std::move(shard));
    result.bytes += safetensors_file_size(shard);
  }
  plan.disk_bytes += result.bytes;
  plan.formats.push_back(std::move(result));
}

}  // namespace

int64_t memory_limit(const QuantizeOptions& options) {
  return options.max_memory > 0 ? static_cast<int64_t>(options.max_memory * 1e9)
                                : available_memory() / 10 * 9;
}

int64_t gpu_memory_limit(const QuantizeOptions& options, Device device) {
  const DeviceFacts facts = device_facts(device);
  return options.max_gpu_memory > 0 ? static_cast<int64_t>(options.max_gpu_memory * 1e9)
                                    : facts.free_bytes / 100 * 95;
}

DistillOptions distill_options(const QuantizeOptions& options, const Plan& plan) {
  return {.epochs = options.e2e_epochs,
          .lr = options.e2e_lr,
          .batch = std::min(options.batch_size, plan.nsamples),
          .seed = options.seed,
          .compute = plan.compute,
          .norms = options.e2e_norms,
          .device = plan.e2e_device,
          .integers = plan.integers,
          .profile = options.timing};
}

SignRoundOptions slot_options(const QuantizeOptions& options) {
  return {.iters = options.iters,
          .lr = options.lr,
          .minmax_lr = options.minmax_lr,
          .minmax_tuning = options.enable_minmax_tuning,
          .scales = options.scales == "free" ? ScaleTuning::kFree : ScaleTuning::kRangeFactors,
          .scale_lr = options.scale_lr,
          .momentum = options.momentum};
}

namespace {

int64_t slot_bytes(const QuantizeOptions& options, const std::vector<FormatLayer>& layers,
                   bool on_gpu) {
  const SignRoundOptions slot = slot_options(options);
  const auto bytes_of = on_gpu ? SignRoundCudaSlot::bytes : SignRoundSlot::bytes;
  int64_t bytes = 0;
  for (const auto& l : layers)
    if (l.scheme.bits < 16)
      bytes += bytes_of(l.out, l.in, l.scheme, slot,
                        l.dtype == DType::kBF16 ? DType::kBF16 : DType::kF32,
                        options.keeps_best());
  return bytes;
}

ProgramOptions program_options(const QuantizeOptions& options, const Plan& plan) {
  return {.batch = plan.micro_batch,
          .seq_len = plan.seqlen,
          .compute = plan.compute,
          .train = plan.tunes(),
          .norm_gradients = options.enable_norm_bias_tuning,
          .bias_gradients = options.enable_norm_bias_tuning,
          .int8_gradients = plan.int8_gradients,
          .device = plan.device};
}

// The parameters of the largest unit, and where they are tuned, their gradients.
int64_t weights_bytes(const QuantizeOptions& options, const Plan& plan) {
  std::optional<DType> gradients;
  if (plan.tunes())
    gradients = Program::gradient_dtype(program_options(options, plan),
                                        plan.batch > plan.micro_batch);
  int64_t bytes = 0;
  for (const BlockUnit& unit : plan.units)
    bytes = std::max(bytes, BlockWeights::bytes_needed(plan.graph_of(unit), plan.compute, gradients,
                                                       plan.device));
  return bytes;
}

// What kernels keep during the end-to-end pass.
int64_t end_to_end_workspace(const Graph& graph, const QuantizeOptions& options, const Plan& plan,
                             Device device) {
  ProgramOptions how = program_options(options, plan);
  how.batch = distill_options(options, plan).batch;
  how.input_gradient = true;
  how.device = device;
  return Program::workspace_bytes(graph, how);
}

// What runs one micro-batch through `graph`, the largest unit.
void plan_program(const Graph& graph, const QuantizeOptions& options, Plan& plan) {
  ProgramOptions how = program_options(options, plan);
  const int64_t rows = plan.micro_batch * plan.seqlen;
  MemoryLedger& m = plan.memory;
  int64_t widest = 0;  // input of a layer, which is observed in f32 on a CPU
  if (!plan.device.is_cuda() &&
      (plan.method == "opt-rtn" || (plan.tunes() && options.start == "searched")))
    for (const auto& p : graph.linear_params()) widest = std::max(widest, p.in);
  m.program =
      Program::bytes_needed(graph, how) + rows * (plan.architecture.hidden + widest) * 4;
  m.workspace = Program::workspace_bytes(graph, how);
  if (plan.method == "gptq")
    for (const auto& p : graph.linear_params())
      m.workspace = std::max(m.workspace, matmul_workspace_bytes({.m = p.in,
                                                                  .n = p.in,
                                                                  .k = rows,
                                                                  .in = plan.compute,
                                                                  .trans_a = true,
                                                                  .lda = p.in,
                                                                  .ldb = p.in,
                                                                  .ldc = p.in,
                                                                  .accumulate = true}));
  if (options.e2e_epochs > 0 && !plan.device.is_cuda())
    m.workspace = std::max(m.workspace, end_to_end_workspace(graph, options, plan, {}));
}

DistillBytes end_to_end_bytes(const QuantizeOptions& options, const Plan& plan) {
  return distill_bytes(plan.architecture, plan.layers, plan.seqlen, distill_options(options, plan));
}

// Integers stay in memory where half of what is allowed is enough; else they are read again and
// again. `kept`: where that memory is.
void plan_end_to_end(const QuantizeOptions& options, int64_t limit, IntegerPlace kept, Plan& plan) {
  MemoryLedger& m = plan.memory;
  plan.integers = kept;
  if (m.base + m.streams + m.packing + end_to_end_bytes(options, plan).host > limit / 2)
    plan.integers = IntegerPlace::kInFile;
  m.end_to_end = end_to_end_bytes(options, plan).host + m.packing;  // while scales are written
}

// The pass runs on the GPU that blocks are tuned on, with all integers there if they fit; where not
// even one block's do beside the activations, it runs on the CPU.
void plan_end_to_end_with_gpu(const Graph& graph, const QuantizeOptions& options, int64_t gpu_limit,
                              int64_t host_limit, Plan& plan) {
  GpuLedger& g = plan.gpu_memory;
  MemoryLedger& m = plan.memory;
  plan.e2e_device = plan.device;
  const int64_t workspace =
      std::max(g.workspace, end_to_end_workspace(graph, options, plan, plan.device));
  const auto fits = [&](IntegerPlace integers) {
    plan.integers = integers;
    g.end_to_end = end_to_end_bytes(options, plan).gpu + workspace;
    return g.total() <= gpu_limit;
  };
  if (fits(IntegerPlace::kThere)) {
    m.end_to_end = end_to_end_bytes(options, plan).host + m.packing;
  } else if (fits(IntegerPlace::kInHost)) {
    plan_end_to_end(options, host_limit, IntegerPlace::kInHost, plan);
  } else {
    plan.e2e_refused = g.context + g.streams + g.end_to_end;
    g.end_to_end = 0;
    plan.e2e_device = {};
    m.workspace = end_to_end_workspace(graph, options, plan, {});
    plan_end_to_end(options, host_limit, IntegerPlace::kThere, plan);
  }
}

// Of tuned norms and biases, with their gradients.
int64_t vector_bytes(const QuantizeOptions& options, const Graph& graph) {
  int64_t bytes = 0;
  if (options.enable_norm_bias_tuning)
    for (const auto& v : graph.vector_params())
      bytes += VectorTuner::bytes(v.size, options.momentum) + 4 * v.size;
  return bytes;
}

[[noreturn]] void fail_for_memory(const char* whose, int64_t needed, const std::string& parts,
                                  const char* flag, bool given, int64_t limit) {
  fail(ErrorKind::kMemory, "plan", "the run needs ", gigabytes(needed), " of ", whose, " memory (",
       parts, "), ", given ? std::string(flag) + " allows " : std::string("free are "),
       gigabytes(limit),
       "; use fewer or shorter samples (--nsamples, --seqlen), --stream-dtype bfloat16, or "
       "--method rtn");
}

// A block is tuned on a GPU. Micro-batches are as large as its memory allows; activations of all
// samples wait there if that leaves room, else in the host's memory, else in a file.
void plan_gpu(const Graph& graph, const QuantizeOptions& options, int64_t micro_batch,
              int64_t stream_elements, int64_t host_limit, Plan& plan) {
  GpuLedger& g = plan.gpu_memory;
  MemoryLedger& m = plan.memory;
  const DeviceFacts facts = device_facts(plan.device);
  g.context = facts.total_bytes - facts.free_bytes;
  const int64_t limit = gpu_memory_limit(options, plan.device) +
                        (options.max_gpu_memory > 0 ? 0 : g.context);
  const int64_t all = stream_elements * size_of(plan.stream_dtype),
                sample = plan.seqlen * plan.architecture.hidden;
  int64_t codes = 0;  // of the largest layer, and of its slot while that is made
  for (const BlockUnit& unit : plan.units) {
    const auto layers = plan.layers_of(unit);
    g.slots = std::max(g.slots, slot_bytes(options, layers, true));
    for (const auto& l : layers)
      codes = std::max(codes, l.out * l.in * (l.dtype == DType::kBF16 ? 1 : 5) +
                                  16 * l.out * l.scheme.groups(l.in));
  }
  g.slots += codes;
  const auto plan_with = [&](bool streams_there, int64_t micro) {
    plan.micro_batch = micro;
    g.streams = streams_there ? all : sample * size_of(plan.stream_dtype);
    g.weights = weights_bytes(options, plan);
    plan_program(graph, options, plan);
    g.workspace = m.workspace;
    // Beside the buffers: targets of a micro-batch, sums, what is observed.
    g.program = m.program - micro * plan.seqlen * plan.architecture.hidden * 4 +
                micro * sample * size_of(plan.stream_dtype) + (int64_t{4} << 20);
    return g.total() <= limit;
  };
  const int64_t most = micro_batch > 0 ? std::min(micro_batch, plan.batch) : plan.batch;
  bool fits = false, there = true;
  for (int64_t micro = most; micro >= 1 && !fits; --micro) {
    if (plan.batch % micro != 0) continue;
    fits = plan_with(true, micro);
    there = fits;
    if (!fits) fits = plan_with(false, micro);
  }
  if (!fits)
    fail_for_memory("GPU", g.total(), g.describe(), "--max-gpu-memory", options.max_gpu_memory > 0,
                    limit);
  plan.stream_device = there ? plan.device : Device{Device::Kind::kPinned, 0};
  // The host holds a block and the next one on its way, and what is packed.
  m.workspace = 0;
  m.program = plan.seqlen * plan.architecture.hidden * 4;
  m.slots = 0;  // two blocks' integers: of one that is written and one that is done
  for (const BlockUnit& unit : plan.units) {
    int64_t integers = 0;
    for (const auto& l : plan.layers_of(unit))
      if (l.scheme.bits < 16) integers += l.out * l.in + 5 * l.out * l.scheme.groups(l.in);
    m.slots = std::max(m.slots, 2 * integers);
  }
  m.slots += m.packing;
  m.weights = 2 * BlockWeights::bytes_needed(graph, plan.compute, std::nullopt, plan.device);
  m.streams = there ? 0 : all;
  if (options.e2e_epochs > 0) plan_end_to_end_with_gpu(graph, options, limit, host_limit, plan);
  if (m.total() > host_limit && !there && options.max_memory > 0) {
    plan.scratch_bytes = all;
    plan.stream_device = {};
    m.streams = 2 * sample * size_of(plan.stream_dtype);
  }
  if (m.total() > host_limit)
    fail_for_memory("the host's", m.total(), m.describe(), "--max-memory", options.max_memory > 0,
                    host_limit);
}

void plan_memory(const QuantizeOptions& options, const Checkpoint& checkpoint, int64_t micro_batch,
                 Plan& plan) {
  const Architecture& arch = plan.architecture;
  MemoryLedger& m = plan.memory;
  m.base = resident_bytes();
  for (const auto& layers : plan.layers)
    for (const auto& l : layers)
      m.packing = std::max(m.packing, l.out * l.in * 8 + (int64_t{1} << 20));
  // Copied tensors: in pieces from a file that holds them as they are; a GGUF's are decoded whole,
  // beside the mapped pages that they are decoded from, at most 34 bytes for 32 values (Q8_0).
  std::error_code ignored;
  const bool as_they_are = std::filesystem::is_directory(checkpoint.source(), ignored);
  for (const auto& t : checkpoint.tensors())
    m.copying = std::max(m.copying, as_they_are ? std::min(t.nbytes(), OutputFolder::kPiece)
                                                : t.nbytes() + t.nbytes() * 17 / 32);
  if (!plan.needs_calibration()) return;

  const int64_t stream_elements = plan.nsamples * plan.seqlen * arch.hidden;
  const int64_t streams = plan.follows_quantized_model() ? 2 : 1;
  plan.stream_dtype =
      options.stream_dtype == "bfloat16" ||
              (options.stream_dtype == "auto" && streams * stream_elements * 4 > kStreamInF32)
          ? DType::kBF16
          : DType::kF32;
  Graph graph;  // of the largest unit
  for (const BlockUnit& unit : plan.units) {
    Graph of_unit = plan.graph_of(unit);
    const auto layers = plan.layers_of(unit);
    if (plan.tunes())
      m.slots =
          std::max(m.slots, slot_bytes(options, layers, false) + vector_bytes(options, of_unit));
    if (plan.method == "gptq")
      for (const auto& l : layers) m.slots = std::max(m.slots, gptq_bytes(l.out, l.in));
    if (of_unit.num_values() > graph.num_values()) graph = std::move(of_unit);
  }
  if (options.awq) m.preparation = prepare_awq_bytes(plan.layers);
  const int64_t limit = memory_limit(options);
  if (plan.device.is_cuda())
    return plan_gpu(graph, options, micro_batch, streams * stream_elements, limit, plan);
  // Whether activations wait in memory or in a file does not change the result, the micro-batch
  // does, in the last bits: it shrinks only where the file alone is not enough.
  int64_t widest = micro_batch > 0 && micro_batch < plan.batch ? micro_batch : plan.batch;
  while (widest > 1 &&
         (plan.batch % widest != 0 || widest * plan.seqlen > kTokensPerMicroBatch))
    --widest;
  const auto plan_with = [&](bool in_file, int64_t micro) {
    plan.micro_batch = micro;
    plan.scratch_bytes = in_file ? streams * stream_elements * size_of(plan.stream_dtype) : 0;
    m.streams = streams * (in_file ? stream_elements / plan.nsamples : stream_elements) *
                size_of(plan.stream_dtype);
    m.weights = weights_bytes(options, plan);
    plan_program(graph, options, plan);
    if (options.e2e_epochs > 0)
      plan_end_to_end(options, limit, IntegerPlace::kThere, plan);
    return m.total() <= limit;
  };
  const bool may_use_file = options.max_memory > 0;
  bool fits = plan_with(false, widest);
  if (!fits && may_use_file) fits = plan_with(true, widest);
  for (int64_t micro = widest - 1; !fits && micro >= 1; --micro)
    if (plan.batch % micro == 0) fits = plan_with(may_use_file, micro);
  if (m.total() > limit)
    fail_for_memory("the machine's", m.total(), m.describe(), "--max-memory",
                    options.max_memory > 0, limit);
}

// 6PT floating-point operations for each step (Kaplan et al.: 2 forward, 2 each gradient), at three
// quarters of what products alone reach here.
void estimate_time(const QuantizeOptions& options, const Checkpoint& checkpoint, Plan& plan) {
  double source_bytes = 0;
  for (const auto& t : checkpoint.tensors()) source_bytes += static_cast<double>(t.nbytes());
  plan.seconds = source_bytes / kRtnBytesPerSecond;
  if (!plan.needs_calibration()) return;
  const double rate = 0.75 * product_rate(plan.compute, plan.device),
               e2e_rate = options.e2e_epochs > 0
                              ? 0.75 * product_rate(plan.compute, plan.e2e_device)
                              : rate;
  const double tokens = static_cast<double>(plan.nsamples * plan.seqlen);
  for (int64_t i : plan.blocks) {
    const double weights = static_cast<double>(plan.architecture.block(i).num_weights());
    // gptq: the original, one for each of about four inputs of layers, the quantized.
    const double passes =
        (plan.tunes() ? 2 : plan.method == "gptq" ? 6 : 1) + (options.awq ? 1 : 0);
    plan.seconds += passes * 2 * weights * tokens / rate;
    if (plan.tunes())
      plan.seconds +=
          6 * weights * static_cast<double>(plan.batch * plan.seqlen) * options.iters / rate;
    else if (plan.method == "opt-rtn")
      plan.seconds += weights / kOptRtnWeightsPerSecond;
    // Two forward passes and one backward, at about two thirds of that rate.
    plan.seconds += static_cast<double>(options.e2e_epochs) * 12 * weights * tokens / e2e_rate;
  }
}

// What the files of an earlier run, finished or not, hold of the disk already.
int64_t bytes_taken(const Plan& plan) {
  int64_t bytes = 0;
  for (const auto& format : plan.formats)
    for (size_t i = 0; i < format.shards.size(); ++i) {
      const std::string path = format.shard_path(i).string();
      for (const std::string& name : {path, path + ".partial"}) {
        struct stat info{};
        if (stat(name.c_str(), &info) == 0) bytes += int64_t{info.st_blocks} * 512;
      }
    }
  return bytes;
}

void check_disk(const Plan& plan, const std::string& output) {
  std::error_code error;
  std::filesystem::path folder = std::filesystem::absolute(output, error);
  while (!folder.empty() && !std::filesystem::exists(folder, error) &&
         folder != folder.parent_path())
    folder = folder.parent_path();
  const auto space = std::filesystem::space(folder, error);
  const int64_t needed =
      std::max<int64_t>(plan.disk_bytes - bytes_taken(plan), 0) + plan.scratch_bytes;
  if (!error && space.available < static_cast<std::uintmax_t>(needed))
    fail(ErrorKind::kIo, "plan", "the result needs ", gigabytes(needed),
         " more on the disk of ", folder.string(),
         plan.scratch_bytes > 0 ? " (" + gigabytes(plan.scratch_bytes) +
                                      " of it while activations wait in a file)"
                                : "",
         ", free are ", gigabytes(static_cast<int64_t>(space.available)));
}

}  // namespace

std::filesystem::path FormatPlan::shard_path(size_t shard) const {
  const std::filesystem::path path = folder;
  if (shards.size() == 1) return path / "model.safetensors";
  return path / fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards.size());
}

std::string MemoryLedger::describe() const {
  std::string text;
  const auto add = [&](const char* name, int64_t bytes) {
    if (bytes > 0) text += (text.empty() ? "" : " + ") + gigabytes(bytes) + " " + name;
  };
  if (sensitivity > run()) {
    add("the measurement for mixed precision and the program", sensitivity);
    return text;
  }
  add("program and tables", base);
  add("activations of samples", streams);
  add("kernels' workspace", workspace);
  const int64_t most = std::max({block(), preparation, end_to_end, copying});
  if (most == block()) {
    add("one block's weights and gradients", weights);
    add("one micro-batch", program);
    add(slots >= packing ? "its tuning state" : "packing", std::max(slots, packing));
  } else if (most == end_to_end) {
    add("the end-to-end pass", end_to_end);
  } else if (most == preparation) {
    add("the search for AWQ's factors", preparation);
  } else {
    add("copying", copying);
  }
  return text;
}

std::string GpuLedger::describe() const {
  std::string text;
  const auto add = [&](const char* name, int64_t bytes) {
    if (bytes > 0) text += (text.empty() ? "" : " + ") + gigabytes(bytes) + " " + name;
  };
  add("driver and libraries", context);
  add("activations of samples", streams);
  if (end_to_end > block()) {
    add("the end-to-end pass", end_to_end);
    return text;
  }
  add("kernels' workspace", workspace);
  add("one block's weights and gradients", weights);
  add("one micro-batch", program);
  add("its tuning state", slots);
  return text;
}

std::vector<FormatLayer> Plan::layers_of(const BlockUnit& unit) const {
  std::vector<FormatLayer> all;
  for (int64_t i = unit.first; i < unit.end(); ++i) {
    const auto& of_block = layers[static_cast<size_t>(i)];
    all.insert(all.end(), of_block.begin(), of_block.end());
  }
  return all;
}

Graph Plan::graph_of(const BlockUnit& unit) const {
  if (unit.count == 1) return architecture.block(unit.first);
  std::vector<Graph> parts;
  for (int64_t i = unit.first; i < unit.end(); ++i) parts.push_back(architecture.block(i));
  return join(parts);
}

int64_t Plan::quantized_weights() const {
  int64_t n = 0;
  for (const auto& block : layers)
    for (const auto& l : block) n += l.scheme.bits < 16 ? l.out * l.in : 0;
  for (const auto& l : outside) n += l.scheme.bits < 16 ? l.out * l.in : 0;
  return n;
}

double Plan::bits_per_weight() const {
  if (quantized_weights() == 0) return 0;
  const FormatPlan* packed = &formats[0];
  for (const auto& f : formats)
    if (packed->format->packing() == Packing::kNone) packed = &f;
  std::shared_ptr<CheckpointFormat> format = packed->format;
  if (format->packing() == Packing::kNone)
    format = make_format(scheme.levels == Levels::kNf4 ? "bnb" : "auto_round", packed->model);
  int64_t bytes = 0;
  const auto add = [&](const std::vector<FormatLayer>& of_block) {
    for (const auto& layer : of_block)
      if (layer.scheme.bits < 16)
        for (const auto& tensor : format->tensors(layer)) bytes += tensor.nbytes();
  };
  for (const auto& of_block : layers) add(of_block);
  add(outside);
  return 8 * static_cast<double>(bytes) / static_cast<double>(quantized_weights());
}

std::string Plan::describe() const {
  std::string names;
  for (const auto& f : formats)
    names += (names.empty() ? "" : ", ") + std::string(f.format->name());
  std::string text = fmt::format(
      "plan: {} of {} blocks, {:.1f} M weights to {} by {}, {:.2f} bits per weight with scales; {} "
      "on disk as {}",
      blocks.size(),
      architecture.blocks, static_cast<double>(quantized_weights()) / 1e6,
      signround::describe(scheme), method, bits_per_weight(), gigabytes(disk_bytes), names);
  if (needs_calibration())
    text += fmt::format(
        "\nplan: {} samples of {} tokens, steps of {} in micro-batches of {}, products in {}{}, "
        "activations wait in {}{}",
        nsamples, seqlen, batch, micro_batch, torch_name_of(compute),
        int8_gradients ? ", those of gradients in int8" : "", torch_name_of(stream_dtype),
        scratch_bytes > 0 ? ", in a file of " + gigabytes(scratch_bytes) + " in OUT" : "");
  text += fmt::format("\nplan: about {}, peak memory {} = {}",
                      seconds < 90     ? fmt::format("{:.0f} s", seconds)
                      : seconds < 5400 ? fmt::format("{:.0f} min", seconds / 60)
                                       : fmt::format("{:.1f} h", seconds / 3600),
                      gigabytes(memory.total()), memory.describe());
  if (device.is_cuda())
    text += fmt::format("\nplan: on {}, its peak memory {} = {}; activations wait in {}",
                        name_of(device), gigabytes(gpu_memory.total()), gpu_memory.describe(),
                        stream_device.is_cuda() ? "its memory"
                        : scratch_bytes > 0     ? "a file"
                                                : "the host's memory");
  if (e2e_refused > 0)
    text += fmt::format("\nplan: the end-to-end pass runs on the CPU: it would need {} of {}",
                        gigabytes(e2e_refused), name_of(device));
  return text;
}

namespace {

bool wants_int8_gradients(const QuantizeOptions& options, const Plan& plan) {
  if (!plan.tunes() || options.gradient_dtype != "int8") return false;
  if (plan.device.is_cuda())
    fail(ErrorKind::kUnsupported, "plan",
         "--gradient-dtype int8 is for CPUs; leave it out, or use --device cpu");
  if (const char* why_not = why_no_int8_products(plan.compute))
    fail(ErrorKind::kUnsupported, "plan", "--gradient-dtype int8: ", why_not, "; leave it out");
  return true;
}

}  // namespace

Plan make_plan(const QuantizeOptions& options, const Checkpoint& checkpoint, int64_t nsamples,
               int64_t seqlen, int64_t micro_batch) {
  Plan plan;
  plan.architecture = read_architecture(checkpoint);
  plan.scheme = options.quant_scheme();
  plan.method = options.effective_method();
  choose_layers(options, checkpoint, plan);
  for (const auto& name : options.formats) plan_format(options, checkpoint, name, plan);
  const Device device = parse_device(options.device);
  if (plan.tunes()) plan.device = device;
  if (!plan.tunes() && options.device.starts_with("cuda"))
    log_warn("--device " + options.device + ": only tuning runs on a GPU, --method " + plan.method +
             " on the CPU");
  // Measured before memory is planned: what CUDA's libraries hold counts then.
  if (plan.device.is_cuda()) product_rate(DType::kBF16, plan.device);
  plan.compute = options.compute_dtype == "float32"    ? DType::kF32
                 : options.compute_dtype == "bfloat16" ? DType::kBF16
                 : plan.device.is_cuda()               ? DType::kBF16
                 : plan.needs_calibration()            ? fastest_compute_dtype()
                                                       : DType::kF32;
  plan.int8_gradients = wants_int8_gradients(options, plan);
  plan.nsamples = nsamples;
  plan.seqlen = seqlen;
  plan.batch = plan.tunes()
                   ? std::min(nsamples, options.batch_size * options.gradient_accumulate_steps)
                   : std::max<int64_t>(1, std::min(nsamples, kTokensPerMicroBatch /
                                                                 std::max<int64_t>(1, seqlen)));
  plan_memory(options, checkpoint, micro_batch, plan);
  estimate_time(options, checkpoint, plan);
  check_disk(plan, options.output);
  return plan;
}

void check_model(const QuantizeOptions& options, const Checkpoint& checkpoint) {
  Plan plan;
  plan.architecture = read_architecture(checkpoint);
  plan.scheme = options.quant_scheme();
  const Architecture& arch = plan.architecture;
  for (int64_t i = 0; i < arch.blocks; ++i) check_weights(checkpoint, arch.block(i));
  check_weights(checkpoint, arch.head());
  const auto& embedding = checkpoint.at(arch.embedding);
  const std::vector<int64_t> expected = {arch.vocab, arch.hidden};
  if (embedding.shape != expected)
    fail(ErrorKind::kCorruptFile, "plan", arch.embedding, " in ", checkpoint.source(),
         " has shape ", shape_text(embedding.shape), ", config.json asks for ",
         shape_text(expected));
  choose_layers(options, checkpoint, plan);
}

}  // namespace signround
