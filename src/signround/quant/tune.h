// Tunes one block: the loop that writes fake-quantized weights, runs the block, and gives each slot
// its gradient. Knows neither what a slot does with its gradient nor what the block is made of.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "signround/graph/program.h"
#include "signround/graph/stream.h"
#include "signround/graph/timings.h"
#include "signround/quant/slot.h"
#include "signround/quant/vector_tuner.h"

namespace signround {

// A linear layer under tuning: where its weight lies, and what fills it.
struct TunedLayer {
  std::string name;
  std::unique_ptr<WeightSlot> slot;
};

// A norm's weight or a bias under tuning, by its name in the block.
struct TunedVector {
  std::string name;
  VectorTuner tuner;
};

struct TuneOptions {
  int iters = 200;
  int64_t batch_size = 8;        // samples per step, all micro-batches together
  int64_t accumulate_steps = 1;  // that many batches before each step
  uint64_t seed = 42;            // of the order of samples
  bool keep_best = true;  // false: the parameters before the last step are kept
  // Without keep_best: so many samples, the same ones each time, judge the parameters at the start,
  // after a quarter of the iterations and before the last step. Where the loss is above that at the
  // start, steps are too long for this block, and it begins anew with a quarter of them, at most
  // kRestarts times; if even that does not help, the start is kept. One step's samples are too few
  // to judge: their loss is mostly their own. Rounded up to whole batches; 0: nobody judges.
  int64_t judged = 0;
  // A block is done when its mean loss over all samples (kStopWindow steps at least) is not lower by
  // this share than over all samples before: its steps then fall to 0 within an eighth of `iters`.
  // 0: never.
  double early_stop = 0;
  bool profile = false;  // on a GPU: operations are queued one by one, not as a recorded graph
  Timings* timings = nullptr;  // gets the time of what the program's own timings do not hold
};

constexpr int kRestarts = 2;
constexpr double kRestartFactor = 0.25;  // of steps, at each restart
constexpr int64_t kStopWindow = 8;

struct TuneResult {
  double loss_first = 0,
         loss_best = 0;     // mean squared error per element that counts, of one step's samples or
                            // of those that judge
  int best_iteration = -1;  // -1: no loss was finite; the initial parameters are kept
  int64_t non_finite_losses = 0;
  int iterations = 0;  // all, those before a restart too
  int restarts = 0;
  bool stopped_early = false;
};

// Which tokens count in the loss: masks[sample] has seq_len bytes, 0 = does not count. Empty: all
// count.
using TokenMasks = std::vector<std::vector<uint8_t>>;

// Draws batches of sample numbers as AutoRound does: a shuffle of all, cut into slices of `batch`;
// what is left over when fewer remain is dropped and a new shuffle begins.
class SampleOrder {
 public:
  SampleOrder(int64_t samples, int64_t batch, uint64_t seed);
  const int64_t* next();  // `batch` numbers, valid until the next call

 private:
  int64_t batch_;
  size_t position_;
  std::vector<int64_t> order_;
  uint64_t seed_, epoch_ = 0;
};

// `program` is planned for training with a micro-batch that divides what is drawn, or any size: the
// last one may be smaller only if `tail`, a program for the remainder, is given (null otherwise).
// `inputs` is what the quantized block will see, `targets` what the original block made of the
// original inputs. After the call, `weights` holds the fake-quantized weights of the last
// iteration; take the slots' finish() for the result. on_iteration (may be empty) is called after
// each step and may throw to stop. vectors: of which `program` must give the gradients.
TuneResult tune_block(Program& program, BlockWeights& weights, std::vector<TunedLayer>& layers,
                      const ActivationStream& inputs, const ActivationStream& targets,
                      const TokenMasks& masks, const TuneOptions& options,
                      const std::function<void(int)>& on_iteration = {},
                      std::span<TunedVector> vectors = {});

}  // namespace signround
