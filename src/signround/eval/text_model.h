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
  // device: where it computes.
  TextModel(const Checkpoint& checkpoint, DType compute, Device device = {});

  const Architecture& architecture() const { return architecture_; }
  // Last hidden states of sequences of equal length: (sequences, length, hidden) in f32. Of a GPU:
  // there, if they leave room for a block, else in the host's memory.
  ActivationStream hidden_states(const std::vector<std::vector<int32_t>>& sequences) const;
  // Logits of rows [first, first + rows) of a sample's hidden states, (rows, vocab), on the model's
  // device; rows at most max_head_rows(). Valid until the next call.
  const float* logits(const ActivationStream& states, int64_t sample, int64_t first, int64_t rows);
  int64_t max_head_rows() const { return head_rows_; }

 private:
  // What reads all sequences: how many at once, and where they wait.
  struct Sizes {
    int64_t micro = 1;
    Device stream;
  };
  Sizes sizes_for(int64_t count, int64_t length) const;

  const Checkpoint& checkpoint_;
  Architecture architecture_;
  DType compute_;
  Device device_;
  int64_t head_rows_;
  std::unique_ptr<BlockWeights> head_weights_;
  std::unique_ptr<Program> head_;
};

}  // namespace signround
