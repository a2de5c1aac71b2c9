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
  HeadLoss(const Checkpoint& source, const Architecture& architecture, DType compute);

  // Logits (rows, vocab) of hidden states (rows, hidden) to compare with, rows at most kRows; the
  // caller may write into them; valid until the next call.
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
  static int64_t bytes_needed(const Architecture& architecture, DType compute);

 private:
  Graph graph_;
  BlockWeights weights_;
  Program program_, reference_;
  int64_t hidden_, vocab_;
  std::vector<KlRow> rows_;
  Timings timings_;
};

}  // namespace signround
