#include "signround/eval/perplexity.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "signround/base/error.h"
#include "signround/eval/text_model.h"
#include "signround/ops/xent.h"

namespace signround {

using nlohmann::ordered_json;

namespace {

constexpr int64_t kGroupBytes = int64_t{512} << 20;  // hidden states held at once, of each model

struct Mean {
  double value = 0, error = 0;
};

Mean mean_of(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (double v : values) sum += v;
  const double n = static_cast<double>(values.size()), mean = sum / n;
  for (double v : values) squares += (v - mean) * (v - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

Perplexity perplexity_of(const std::vector<double>& losses) {
  const Mean mean = mean_of(losses);
  return {std::exp(mean.value), std::exp(mean.value) * mean.error,
          static_cast<int64_t>(losses.size())};
}

double quantile(const std::vector<double>& sorted, double q) {
  return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5)];
}

Divergence divergence_of(std::vector<double> kl, const std::vector<double>& same) {
  const Mean mean = mean_of(kl), top = mean_of(same);
  std::sort(kl.begin(), kl.end());
  return {.mean = mean.value,
          .stderr_ = mean.error,
          .median = quantile(kl, 0.5),
          .p90 = quantile(kl, 0.9),
          .p99 = quantile(kl, 0.99),
          .max = kl.back(),
          .same_top = top.value,
          .same_top_stderr = top.error};
}

ordered_json to_json(const Perplexity& p) {
  return {{"value", p.value}, {"stderr", p.stderr_}, {"tokens", p.tokens}};
}

}  // namespace

ordered_json EvalResult::to_json() const {
  ordered_json json = {{"model", model}, {"perplexity", signround::to_json(perplexity)}};
  if (has_reference) {
    json["reference_perplexity"] = signround::to_json(reference_perplexity);
    json["kl"] = {{"mean", kl.mean}, {"stderr", kl.stderr_}, {"median", kl.median},
                  {"p90", kl.p90},   {"p99", kl.p99},        {"max", kl.max}};
    json["same_top"] = kl.same_top;
    json["same_top_stderr"] = kl.same_top_stderr;
  }
  json["seconds"] = seconds;
  return json;
}

std::vector<std::vector<int32_t>> chunks_of_text(const Tokenizer& tokenizer,
                                                 const std::string& text,
                                                 const EvalOptions& options) {
  const auto ids = tokenizer.encode(text);
  require(ids.size() >= 2, "eval", "the text has ", ids.size(),
          " tokens; at least 2 are needed to predict one");
  const auto length = std::min(ids.size(), static_cast<size_t>(options.seqlen));
  std::vector<std::vector<int32_t>> chunks;
  for (size_t start = 0; start + length <= ids.size(); start += length) {
    if (options.limit > 0 && static_cast<int64_t>(chunks.size()) == options.limit) break;
    chunks.emplace_back(ids.begin() + static_cast<std::ptrdiff_t>(start),
                        ids.begin() + static_cast<std::ptrdiff_t>(start + length));
  }
  return chunks;
}

EvalResult evaluate(const Checkpoint& model, const Checkpoint* reference,
                    const std::vector<std::vector<int32_t>>& chunks, const EvalOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  TextModel mine(model, options.compute);
  std::unique_ptr<TextModel> other;
  if (reference) {
    other = std::make_unique<TextModel>(*reference, options.compute);
    require(other->architecture().vocab == mine.architecture().vocab, "eval", model.source(),
            " has ", mine.architecture().vocab, " tokens, the reference ", reference->source(),
            " has ", other->architecture().vocab);
  }
  const int64_t vocab = mine.architecture().vocab, hidden = mine.architecture().hidden,
                length = static_cast<int64_t>(chunks[0].size());
  const int64_t group = std::max<int64_t>(1, kGroupBytes / (length * hidden * 4));
  std::vector<double> losses, reference_losses, kl, same;
  for (size_t first = 0; first < chunks.size(); first += static_cast<size_t>(group)) {
    const std::vector<std::vector<int32_t>> part(
        chunks.begin() + static_cast<std::ptrdiff_t>(first),
        chunks.begin() + static_cast<std::ptrdiff_t>(
                             std::min(chunks.size(), first + static_cast<size_t>(group))));
    const ActivationStream states = mine.hidden_states(part);
    const ActivationStream reference_states =
        other ? other->hidden_states(part) : ActivationStream();
    for (int64_t s = 0; s < states.samples(); ++s) {
      const auto& ids = part[static_cast<size_t>(s)];
      // The last position predicts a token that is not there.
      for (int64_t t = 0; t < length - 1; t += mine.max_head_rows()) {
        const int64_t rows = std::min(mine.max_head_rows(), length - 1 - t);
        const std::span<const int32_t> targets(ids.data() + t + 1, static_cast<size_t>(rows));
        const float* logits =
            mine.logits(static_cast<const float*>(states.sample(s).data) + t * hidden, rows);
        if (!other) {
          std::vector<XentRow> out(static_cast<size_t>(rows));
          xent_fwd(rows, vocab, {logits, vocab}, targets, out);
          for (const auto& row : out) losses.push_back(-row.log_p);
          continue;
        }
        const float* wanted =
            other->logits(static_cast<const float*>(reference_states.sample(s).data) +
                              t * other->architecture().hidden,
                          rows);
        std::vector<KlRow> out(static_cast<size_t>(rows));
        kl_fwd(rows, vocab, {logits, vocab}, {wanted, vocab}, targets, out);
        for (const auto& row : out) {
          losses.push_back(-row.model.log_p);
          reference_losses.push_back(-row.ref.log_p);
          kl.push_back(row.kl);
          same.push_back(row.same_top() ? 1 : 0);
        }
      }
    }
  }
  EvalResult result{.model = model.source(), .perplexity = perplexity_of(losses)};
  if (other) {
    result.has_reference = true;
    result.kl = divergence_of(kl, same);
    result.reference_perplexity = perplexity_of(reference_losses);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace signround
