// A model that reads whole texts, one block in memory at a time: from token ids to the last hidden
// states, and from those to logits.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "signround/graph/program.h"
#include "signround/graph/stream.h"
#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"

namespace signround {

// Rows of the embedding for `ids`, scaled as the architecture says, into (ids, hidden) f32.
void embed_tokens(const Checkpoint& checkpoint, const Architecture& architecture,
                  std::span<const int32_t> ids, float* rows);

class TextModel {
 public:
  TextModel(const Checkpoint& checkpoint, DType compute);

  const Architecture& architecture() const { return architecture_; }
  // Last hidden states of sequences of equal length: (sequences, length, hidden).
  ActivationStream hidden_states(const std::vector<std::vector<int32_t>>& sequences) const;
  // Logits of `rows` hidden states, (rows, vocab); rows at most max_head_rows().
  const float* logits(const float* hidden, int64_t rows);
  int64_t max_head_rows() const { return kHeadRows; }

 private:
  static constexpr int64_t kHeadRows = 128;  // bounds the logits in memory
  const Checkpoint& checkpoint_;
  Architecture architecture_;
  DType compute_;
  std::unique_ptr<BlockWeights> head_weights_;
  std::unique_ptr<Program> head_;
};

}  // namespace signround
