// How far a model's predictions are from given ones, and the gradient of that by the last hidden
// states; the head runs a few rows at a time, which bounds the logits in memory.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <vector>

#include "signround/graph/program.h"
#include "signround/graph/timings.h"
#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"
#include "signround/ops/xent.h"

namespace signround {

class HeadLoss {
 public:
  // device: where it runs; hidden states, logits and gradients lie there. rows: at a time. timed:
  // see ProgramOptions.
  HeadLoss(const Checkpoint& source, const Architecture& architecture, DType compute,
           Device device = {}, int64_t rows = kRows, bool timed = true);

  // Logits (rows, vocab) of hidden states (rows, hidden) to compare with, as many rows as run()
  // asks for; the caller may write into them; valid until the next call.
  float* reference_logits(const float* hidden, int64_t rows);
  int64_t vocab() const { return vocab_; }

  // The logits (rows, vocab) that rows [first, first + rows) are compared with.
  using Reference = std::function<const float*(int64_t first, int64_t rows)>;
  // Sum of KL(reference || model) over the rows that count (mask 0 does not; empty: all), in nats.
  // d_hidden: (rows, hidden), the gradient of scale * that sum.
  double run(const float* hidden, int64_t rows, std::span<const uint8_t> mask, float scale,
             const Reference& reference, float* d_hidden);

  void add_timings(Timings& timings) const;  // of all calls, as "head ..."

  // Twice as many take 1 to 5% off the end-to-end pass of a vocabulary of 49,152, for 75 MB more.
  static constexpr int64_t kRows = 128;
  static int64_t bytes_needed(const Architecture& architecture, DType compute, Device device = {},
                              int64_t rows = kRows);

 private:
  float* run_head(Program& program, const float* hidden, int64_t rows);

  Device device_;
  int64_t most_rows_;
  Graph graph_;
  BlockWeights weights_;
  Program program_, reference_;
  int64_t hidden_, vocab_;
  std::vector<KlRow> rows_;
  Buffer rows_there_, mask_there_;  // on a GPU
  Timings timings_;
};

}  // namespace signround
