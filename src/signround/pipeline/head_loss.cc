#include "signround/pipeline/head_loss.h"

#include <algorithm>

#include "signround/model/load.h"

namespace signround {
namespace {

ProgramOptions options_of(const Graph& graph, DType compute, bool train) {
  ProgramOptions options{.batch = 1,
                         .seq_len = HeadLoss::kRows,
                         .compute = compute,
                         .train = train,
                         .input_gradient = train};
  for (const auto& param : graph.linear_params()) options.untuned.insert(param.name);
  return options;
}

// Of hidden states (rows, hidden); what is left of the program's rows is zero.
float* run_head(Program& program, const BlockWeights& weights, const float* hidden, int64_t rows,
                int64_t cols) {
  std::copy_n(hidden, rows * cols, program.input());
  std::fill(program.input() + rows * cols, program.input() + program.rows() * cols, 0.0f);
  program.forward(weights);
  return program.output();
}

}  // namespace

HeadLoss::HeadLoss(const Checkpoint& source, const Architecture& architecture, DType compute)
    : graph_(architecture.head()),
      weights_(graph_, compute),
      program_(graph_, options_of(graph_, compute, true)),
      reference_(graph_, options_of(graph_, compute, false)),
      hidden_(architecture.hidden),
      vocab_(architecture.vocab),
      rows_(kRows) {
  load_weights(source, graph_, weights_);
}

float* HeadLoss::reference_logits(const float* hidden, int64_t rows) {
  return run_head(reference_, weights_, hidden, rows, hidden_);
}

double HeadLoss::run(const float* hidden, int64_t rows, std::span<const uint8_t> mask, float scale,
                     const Reference& reference, float* d_hidden) {
  double sum = 0;
  for (int64_t first = 0; first < rows; first += kRows) {
    const int64_t count = std::min(kRows, rows - first);
    const auto part =
        mask.empty() ? mask : mask.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    const RowsIn ref{reference(first, count), vocab_},
        model{run_head(program_, weights_, hidden + first * hidden_, count, hidden_), vocab_};
    timings_.timed("head kl", 0, [&] {
      const std::span<KlRow> found(rows_.data(), static_cast<size_t>(count));
      kl_fwd(count, vocab_, model, ref, {}, found);
      for (int64_t r = 0; r < count; ++r)
        if (part.empty() || part[static_cast<size_t>(r)] != 0)
          sum += rows_[static_cast<size_t>(r)].kl;
      float* gradient = program_.output_gradient();
      kl_bwd(count, vocab_, model, ref, found, part, scale, {gradient, DType::kF32, vocab_});
      std::fill(gradient + count * vocab_, gradient + kRows * vocab_, 0.0f);
    });
    program_.backward(weights_, false);
    std::copy_n(program_.input_gradient(), count * hidden_, d_hidden + first * hidden_);
  }
  return sum;
}

void HeadLoss::add_timings(Timings& timings) const {
  for (const Program* program : {&program_, &reference_})
    for (OpTiming t : program->timings()) {
      t.name = "head " + t.name;
      timings.add({t});
    }
  timings.add(timings_.all());
}

int64_t HeadLoss::bytes_needed(const Architecture& architecture, DType compute) {
  const Graph head = architecture.head();
  return BlockWeights::bytes_needed(head, compute, std::nullopt) +
         Program::bytes_needed(head, options_of(head, compute, true)) +
         Program::bytes_needed(head, options_of(head, compute, false));
}

}  // namespace signround
