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

  // Logits (rows, vocab) of hidden states (rows, hidden), rows at most kRows; valid until the next
  // call.
  const float* logits(const float* hidden, int64_t rows);
  int64_t vocab() const { return vocab_; }

  // Writes the logits (rows, vocab) that rows [first, first + rows) are compared with.
  using Reference = std::function<void(int64_t first, int64_t rows, float* logits)>;
  // Sum of KL(reference || model) over the rows that count (mask 0 does not; empty: all), in nats.
  // d_hidden: (rows, hidden), the gradient of scale * that sum.
  double run(const float* hidden, int64_t rows, std::span<const uint8_t> mask, float scale,
             const Reference& reference, float* d_hidden);

  void add_timings(Timings& timings) const;  // of all calls, as "head ..."

  static constexpr int64_t kRows = 128;
  static int64_t bytes_needed(const Architecture& architecture, DType compute);

 private:
  Graph graph_;
  BlockWeights weights_;
  Program program_;
  int64_t hidden_, vocab_;
  std::vector<float> reference_;
  std::vector<KlRow> rows_;
  Timings timings_;
};

}  // namespace signround
