#include "signround/infer/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "signround/base/error.h"
#include "signround/eval/text_model.h"
#include "signround/model/load.h"

namespace signround {

Generator::Generator(const Checkpoint& checkpoint, DType compute)
    : checkpoint_(checkpoint), architecture_(read_architecture(checkpoint)), compute_(compute) {
  const auto load = [&](const Graph& graph) {
    auto weights = std::make_unique<BlockWeights>(graph, compute);
    load_weights(checkpoint, graph, *weights);
    for (const auto& param : graph.linear_params()) checkpoint.release(param.name + ".weight");
    return weights;
  };
  for (int64_t i = 0; i < architecture_.blocks; ++i) {
    graphs_.push_back(architecture_.block(i));
    weights_.push_back(load(graphs_.back()));
    single_.push_back(std::make_unique<Program>(
        graphs_.back(), ProgramOptions{.batch = 1, .seq_len = 1, .compute = compute}));
  }
  const Graph head = architecture_.head();
  head_weights_ = load(head);
  head_ =
      std::make_unique<Program>(head, ProgramOptions{.batch = 1, .seq_len = 1, .compute = compute});
}

void Generator::begin(int64_t capacity) {
  caches_.clear();
  for (const Graph& graph : graphs_) caches_.emplace_back(graph, capacity);
}

const float* Generator::feed(const std::vector<int32_t>& ids) {
  const auto count = static_cast<int64_t>(ids.size()), hidden = architecture_.hidden;
  std::vector<float> rows(static_cast<size_t>(count * hidden));
  embed_tokens(checkpoint_, architecture_, ids, rows.data());
  for (size_t i = 0; i < graphs_.size(); ++i) {
    std::unique_ptr<Program> wide;
    if (count > 1)
      wide = std::make_unique<Program>(
          graphs_[i], ProgramOptions{.batch = 1, .seq_len = count, .compute = compute_});
    Program& program = wide ? *wide : *single_[i];
    std::copy(rows.begin(), rows.end(), program.input());
    program.forward(*weights_[i], &caches_[i]);
    std::copy_n(program.output(), count * hidden, rows.begin());
  }
  std::copy_n(rows.end() - hidden, hidden, head_->input());
  head_->forward(*head_weights_);
  return head_->output();
}

std::vector<float> Generator::next_logits(const std::vector<int32_t>& ids) {
  require(!ids.empty(), "generate", "an empty prompt has no next token");
  begin(static_cast<int64_t>(ids.size()));
  const float* logits = feed(ids);
  return {logits, logits + architecture_.vocab};
}

std::vector<int32_t> Generator::generate(const std::vector<int32_t>& prompt,
                                         const SampleOptions& options,
                                         const std::function<bool(int32_t)>& on_token) {
  require(!prompt.empty(), "generate", "the prompt has no tokens");
  begin(static_cast<int64_t>(prompt.size()) + options.max_tokens);
  PythonRandom random(options.seed);
  std::vector<int32_t> tokens;
  const float* logits = options.max_tokens > 0 ? feed(prompt) : nullptr;
  while (static_cast<int64_t>(tokens.size()) < options.max_tokens) {
    const int32_t token = sample_token(logits, architecture_.vocab, options, random);
    if (std::find(options.stop.begin(), options.stop.end(), token) != options.stop.end()) break;
    tokens.push_back(token);
    if (on_token && !on_token(token)) break;
    if (static_cast<int64_t>(tokens.size()) < options.max_tokens) logits = feed({token});
  }
  return tokens;
}

int32_t sample_token(const float* logits, int64_t vocab, const SampleOptions& options,
                     PythonRandom& random) {
  const auto best = static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
  if (!std::isfinite(logits[best]))
    fail(ErrorKind::kInternal, "generate", "logit ", best, " is ", logits[best],
         ": the model's weights or activations are not finite");
  if (options.temperature <= 0) return best;
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> p(order.size());
  for (size_t i = 0; i < p.size(); ++i)
    p[i] = std::exp((double(logits[i]) - double(logits[best])) / options.temperature);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
  });
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options.top_p * total))
    kept += p[static_cast<size_t>(order[count++])];
  double draw = random.uniform() * kept;
  for (size_t i = 0; i < count; ++i) {
    draw -= p[static_cast<size_t>(order[i])];
    if (draw < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace signround
