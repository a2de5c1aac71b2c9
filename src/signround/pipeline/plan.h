// Everything that is decided before the first block is touched: which layers, which tensors, which
// files, how much memory, time and disk. The run keeps to it.
#pragma once

#include <filesystem>
#include <memory>
#include <algorithm>
#include <string>
#include <vector>

#include "signround/formats/format.h"
#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"
#include "signround/pipeline/distill.h"
#include "signround/pipeline/options.h"
#include "signround/quant/signround.h"

namespace signround {

// Bytes that the run holds at its fullest moment, by what they are for.
struct MemoryLedger {
  // All the time.
  int64_t base = 0;       // the program, its libraries, the tokenizer, tables
  int64_t streams = 0;    // activations of all samples, originals and quantized ones, in memory
  int64_t workspace = 0;  // what kernels keep for their next call
  // While a block is in work.
  int64_t weights = 0;  // the largest block's weights and their gradients
  int64_t slots = 0;    // what tuning remembers of the largest block
  int64_t program = 0;  // activations and gradients of one micro-batch
  int64_t packing = 0;  // integers and packed bytes of the largest layer, once tuning has let go of it
  // Before or after all blocks.
  int64_t preparation = 0;  // AWQ's search
  int64_t end_to_end = 0;   // the pass over the whole model
  int64_t copying = 0;      // the largest piece of a copied tensor
  // All that is held while mixed precision measures, before the run's own streams.
  int64_t sensitivity = 0;
  int64_t block() const { return weights + program + std::max(slots, packing); }
  int64_t run() const {
    return base + streams + workspace + std::max({block(), preparation, end_to_end, copying});
  }
  int64_t total() const { return std::max(run(), sensitivity); }
  std::string describe() const;
};

// The same of a GPU's memory.
struct GpuLedger {
  int64_t context = 0;    // the driver, libraries, kernels
  int64_t streams = 0;    // activations of all samples
  int64_t workspace = 0;  // what kernels keep
  int64_t weights = 0;    // the largest block's weights and their gradients
  int64_t slots = 0;      // what tuning remembers of it
  int64_t program = 0;    // activations and gradients of one micro-batch
  int64_t end_to_end = 0;  // the pass over the whole model, with what kernels keep then
  int64_t block() const { return workspace + weights + slots + program; }
  int64_t total() const { return context + streams + std::max(block(), end_to_end); }
  std::string describe() const;
};

// One output folder.
struct FormatPlan {
  std::shared_ptr<CheckpointFormat> format;
  std::string folder;
  FormatModel model;  // as the format describes it
  nlohmann::ordered_json quantization_config;
  std::vector<std::vector<TensorInfo>> shards;
  int64_t bytes = 0;
  std::filesystem::path shard_path(size_t shard) const;  // when it is finished
};

// Consecutive blocks that are tuned as one.
struct BlockUnit {
  int64_t first = 0, count = 1;
  int64_t end() const { return first + count; }
};

struct Plan {
  Architecture architecture;
  QuantScheme scheme;
  std::string method;
  std::vector<int64_t> blocks;  // to quantize
  std::vector<BlockUnit> units;  // the same blocks, by what is tuned together
  std::vector<std::vector<FormatLayer>>
      layers;  // of each block of the model, all linear layers; bits 16: left alone
  std::vector<FormatLayer> outside;  // quantized layers outside the blocks (the head)
  std::vector<std::string> skipped;  // "name: why": layers that no format can hold
  std::vector<std::string> unreadable;  // "format: why": what no engine that we know can load
  std::vector<FormatPlan> formats;
  DType compute = DType::kF32, stream_dtype = DType::kF32;
  bool int8_gradients = false;  // of tuning blocks
  Device device = {};  // where blocks are tuned
  Device stream_device = {};  // where activations wait: a GPU's memory, or the host's
  int64_t nsamples = 0, seqlen = 0, batch = 0, micro_batch = 1;  // batch: samples of one step
  Device e2e_device = {};  // of the end-to-end pass
  IntegerPlace integers = IntegerPlace::kInFile;  // during that
  // Bytes of the GPU's memory that the pass needs and does not get; it runs on the CPU then.
  int64_t e2e_refused = 0;
  MemoryLedger memory;
  GpuLedger gpu_memory;  // all 0 on a CPU
  int64_t scratch_bytes = 0;  // of the file in which activations wait; 0: they wait in memory
  double seconds = 0;         // estimate of the whole run
  int64_t disk_bytes = 0;  // of all formats
  bool needs_calibration() const { return reads_text(method); }
  bool tunes() const { return method == "signround"; }
  // Each block sees what the quantized blocks before it give, beside what the original ones give.
  bool follows_quantized_model() const { return tunes() || method == "gptq"; }
  std::vector<FormatLayer> layers_of(const BlockUnit& unit) const;
  Graph graph_of(const BlockUnit& unit) const;
  int64_t quantized_weights() const;
  // Bits on disk per weight of the quantized layers, scales and zero points included: in the first
  // packed format, or in the usual one if there is none. 0: nothing is quantized.
  double bits_per_weight() const;
  std::string describe() const;
};

// Throws the first error that makes the run impossible: kInvalidArgument, kUnsupported, kMemory,
// kIo (disk). nsamples and seqlen are those that calibration gave (0 without calibration).
// micro_batch: what the run that is being continued chose, taken again if it fits the memory; 0:
// choose.
Plan make_plan(const QuantizeOptions& options, const Checkpoint& checkpoint, int64_t nsamples,
               int64_t seqlen, int64_t micro_batch = 0);

// Bytes that the run may hold: --max-memory, or nine tenths of what is free.
int64_t memory_limit(const QuantizeOptions& options);
// Of the GPU: --max-gpu-memory, or 95% of what is free.
int64_t gpu_memory_limit(const QuantizeOptions& options, Device device);

DistillOptions distill_options(const QuantizeOptions& options, const Plan& plan);
// How each layer is tuned, from resolved options.
SignRoundOptions slot_options(const QuantizeOptions& options);

// All tensors against config.json, and the layers that a plan would quantize, without the rest: for
// checks in the first second.
void check_model(const QuantizeOptions& options, const Checkpoint& checkpoint);

}  // namespace signround
