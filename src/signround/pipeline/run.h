// One run from the first block to the last. run.cc has its course, run_methods.cc how each method
// rounds a block.
#pragma once

#include <chrono>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "signround/graph/program.h"
#include "signround/graph/stream.h"
#include "signround/graph/timings.h"
#include "signround/io/checkpoint.h"
#include "signround/model/patched_checkpoint.h"
#include "signround/pipeline/journal.h"
#include "signround/pipeline/options.h"
#include "signround/pipeline/output.h"
#include "signround/pipeline/plan.h"
#include "signround/pipeline/report.h"
#include "signround/quant/nf4.h"
#include "signround/quant/non_finite.h"
#include "signround/quant/tune.h"
#include "signround/text/calibration.h"

namespace signround {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start);

// 10 log10(error / signal).
double decibels(double error, double signal);

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

  // scales: the file in which the end-to-end pass leaves its result before it is applied; vectors:
  // the folder of the norms and biases that were tuned inside blocks.
  void open_outputs(Journal& journal, const std::filesystem::path& scales,
                    const std::filesystem::path& vectors, bool resume);
  void blocks();
  void end_to_end();
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
  void block(const BlockUnit& unit, bool selected, size_t order);
  struct WeightError {  // sums of squares over every 16th row
    double error = 0, signal = 0;
  };
  BlockReport round_without_text(int64_t index);
  WeightError round_without_text(const FormatLayer& layer);
  void load(const BlockUnit& unit, const Graph& graph, BlockWeights& weights);
  void observe(Program& program, Moments& moments);
  Moments observe_quantized(Program& program, const BlockWeights& weights);
  void reference_forward(Program& program, const BlockWeights& weights);
  double quantized_forward(Program& program, const BlockWeights& weights);
  TuneResult tune(Program& program, BlockWeights& weights, const Layers& layers,
                  const BlockUnit& unit);
  // Norms and biases that learn with the unit's weights: none without --enable-norm-bias-tuning.
  std::vector<VectorParam> vectors_of(const BlockUnit& unit) const;
  std::string vectors_hash(const BlockUnit& unit) const;  // of their tuned values
  // Into a file of the work folder, and back. False: it does not hold what the journal's line says.
  void write_vectors(const BlockUnit& unit) const;
  bool read_vectors(const BlockUnit& unit, const nlohmann::ordered_json& line);
  void use_tuned_vectors(BlockWeights& weights, const BlockUnit& unit) const;
  VectorChange vector_change(const BlockUnit& unit) const;
  std::unique_ptr<WeightSlot> make_cuda_slot(BlockWeights& weights, const FormatLayer& layer,
                                             const SignRoundOptions& how, const Moments& moments);
  double search_scales(const Layers& layers, const Moments& moments);
  void round_by_second_moments(Program& program, BlockWeights& weights, const Graph& graph,
                               const Layers& layers);
  std::vector<float> hessian(Program& program, const BlockWeights& weights, const LinearsOp& op);
  // What writing layers leaves for the journal and the report.
  struct Written {
    std::vector<std::string> hashes;  // of what each output holds of each layer
    int64_t rewritten_groups = 0;     // that a format holds in another form of equal weights
    std::vector<std::string> degradations;
    Timings timings;
  };
  // Into all outputs, and read back; touches nothing else, so that another thread may do it.
  template <class Linear>
  void write(const FormatLayer& layer, const Linear& linear, const NonFinite& non_finite,
             Written& written) const;
  template <class Linear>
  void write(const FormatLayer& layer, const Linear& linear, const NonFinite& non_finite) {
    Written written;
    write(layer, linear, non_finite, written);
    take(std::move(written));
  }
  void take(Written written);  // the block in work's
  // A block that a GPU is done with and whose layers are being written while it tunes the next one.
  struct Pending {
    std::future<Written> written;
    BlockReport report;
    BlockUnit unit;
    std::vector<std::string> degradations;  // while it was tuned
  };
  struct Finished {
    FormatLayer layer;
    QuantizedLinear linear;
    NonFinite non_finite;
  };
  void write_behind(std::vector<Finished> layers);
  void finish_pending();  // waits until it is written, and journals it
  void journal(BlockReport report, const BlockUnit& unit, const std::vector<std::string>& degradations);
  // Of a GPU: reads the block behind the one in work into the second staging memory meanwhile.
  void read_ahead();
  struct Staging;
  void stage(Staging& staging, int64_t first, const Graph& graph) const;
  void use_written_weights(BlockWeights& weights, const Layers& layers);
  void put_weight(BlockWeights& weights, const FormatLayer& layer, const float* rows);
  void degrade(const std::string& what);
  void progress(const BlockReport& block, size_t done);
  void end_timings(const std::string& what, double seconds);
  bool is_last_needed(const BlockUnit& unit) const {
    return unit.end() > plan_.blocks.back() && plan_.outside.empty();
  }

  const Checkpoint& source_;
  const QuantizeOptions& options_;
  Plan plan_;
  CalibrationSet calibration_;
  TokenMasks masks_;
  RunReport& report_;
  Journal* journal_ = nullptr;
  size_t resumed_ = 0;    // units that an earlier run finished
  bool learned_ = false;  // the end-to-end pass is done: scales_ holds what it found
  std::filesystem::path scales_, vectors_;
  std::vector<std::unique_ptr<OutputFolder>> outputs_;
  CheckpointVectors tuned_vectors_;  // norms and biases as tuning the blocks left them
  CheckpointFactors learned_norms_;  // what the end-to-end pass made of the norms' weights
  ActivationStream inputs_,
      targets_;                      // what the quantized model sees; what the original model sees
  std::vector<std::string> hashes_;  // of the layers of the block in work
  std::vector<std::string> degraded_;  // what was degraded in it
  int64_t rewritten_ = 0;  // groups of it that a format holds in another form of equal weights
  struct BlockMemory {
    Graph graph;
    bool trains;
    BlockWeights weights;
    Program program;
  };
  std::unique_ptr<BlockMemory> block_;  // of the block in work
  struct Staging {  // of a GPU: a block as it was read
    int64_t first = -1;
    Graph graph;
    std::unique_ptr<BlockWeights> weights;
    std::future<std::map<std::string, NonFinite>> read;
  };
  Staging staging_, ahead_;             // of the block in work, of the next one
  std::optional<BlockUnit> following_;  // behind the one in work
  std::future<Written> being_written_;  // of the block in work
  std::optional<Pending> pending_;
  std::map<std::string, NonFinite> non_finite_;  // of the block in work, by layer
  Timings timings_, block_timings_;  // of the whole run; of the block in work
  Clock::time_point start_ = Clock::now();
};

}  // namespace signround
