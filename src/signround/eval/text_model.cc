#include "signround/eval/text_model.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/model/load.h"

namespace signround {

void embed_tokens(const Checkpoint& checkpoint, const Architecture& architecture,
                  std::span<const int32_t> ids, float* rows) {
  const int64_t hidden = architecture.hidden,
                known = checkpoint.at(architecture.embedding).shape[0];
  for (int32_t id : ids)
    require(id >= 0 && id < known, "embedding", "token ", id, " is outside the vocabulary of ",
            known);
  parallel_for(static_cast<int64_t>(ids.size()), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = rows + t * hidden;
      checkpoint.read_f32(architecture.embedding, ids[static_cast<size_t>(t)], 1, row);
      for (int64_t c = 0; c < hidden; ++c) row[c] *= architecture.embedding_scale;
    }
  });
}

TextModel::TextModel(const Checkpoint& checkpoint, DType compute)
    : checkpoint_(checkpoint), architecture_(read_architecture(checkpoint)), compute_(compute) {}

ActivationStream TextModel::hidden_states(
    const std::vector<std::vector<int32_t>>& sequences) const {
  require(!sequences.empty(), "eval", "no sequence to read");
  const auto count = static_cast<int64_t>(sequences.size()),
             length = static_cast<int64_t>(sequences[0].size());
  ActivationStream states(count, length, architecture_.hidden, DType::kF32);
  std::vector<float> rows(static_cast<size_t>(length * architecture_.hidden));
  for (int64_t s = 0; s < count; ++s) {
    require(static_cast<int64_t>(sequences[static_cast<size_t>(s)].size()) == length, "eval",
            "sequences of different lengths");
    embed_tokens(checkpoint_, architecture_, sequences[static_cast<size_t>(s)], rows.data());
    states.scatter(s, 1, rows.data());
  }
  constexpr int64_t kTokens = 2048;  // of one run: enough for the products, little memory
  const int64_t micro = std::clamp<int64_t>(kTokens / length, 1, count);
  for (int64_t i = 0; i < architecture_.blocks; ++i) {
    const Graph graph = architecture_.block(i);
    BlockWeights weights(graph, compute_);
    load_weights(checkpoint_, graph, weights);
    for (const auto& param : graph.linear_params()) checkpoint_.release(param.name + ".weight");
    Program program(graph, {.batch = micro, .seq_len = length, .compute = compute_});
    for (int64_t first = 0; first < count; first += micro) {
      const int64_t n = std::min(micro, count - first);
      states.gather(first, n, program.input());
      program.forward(weights);
      states.scatter(first, n, program.output());
    }
  }
  return states;
}

const float* TextModel::logits(const float* hidden, int64_t rows) {
  require(rows > 0 && rows <= kHeadRows, "eval", rows, " rows at once, at most ", kHeadRows);
  if (!head_) {
    const Graph graph = architecture_.head();
    head_weights_ = std::make_unique<BlockWeights>(graph, compute_);
    load_weights(checkpoint_, graph, *head_weights_);
    head_ = std::make_unique<Program>(
        graph, ProgramOptions{.batch = 1, .seq_len = kHeadRows, .compute = compute_});
  }
  std::copy_n(hidden, rows * architecture_.hidden, head_->input());
  head_->forward(*head_weights_);
  return head_->output();
}

}  // namespace signround
