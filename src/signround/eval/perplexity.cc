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

// Of a GPU: a quarter of what is free there, since all blocks are read again for each group.
int64_t group_bytes(Device device) {
  return device.is_cuda() ? std::max(kGroupBytes, device_facts(device).free_bytes / 4)
                          : kGroupBytes;
}

// What rows of logits say, read back where a GPU computes them.
class Scores {
 public:
  // Of at most that many rows at a time.
  Scores(int64_t rows, int64_t vocab, Device device) : vocab_(vocab), device_(device) {
    if (!device.is_cuda()) return;
    targets_ = Buffer(rows * int64_t{sizeof(int32_t)}, device);
    rows_ = Buffer(rows * int64_t{sizeof(KlRow)}, device);
  }
  std::vector<XentRow> xent(const float* logits, std::span<const int32_t> targets) {
    return run<XentRow>(targets, [&](auto there, std::span<XentRow> rows) {
      xent_fwd(size(rows), vocab_, {logits, vocab_}, there, rows);
    });
  }
  std::vector<KlRow> kl(const float* logits, const float* reference,
                        std::span<const int32_t> targets) {
    return run<KlRow>(targets, [&](auto there, std::span<KlRow> rows) {
      kl_fwd(size(rows), vocab_, {logits, vocab_}, {reference, vocab_}, there, rows);
    });
  }

 private:
  template <class Rows>
  static int64_t size(const Rows& rows) {
    return static_cast<int64_t>(rows.size());
  }
  template <class Row, class Op>
  std::vector<Row> run(std::span<const int32_t> targets, Op&& op) {
    std::vector<Row> rows(targets.size());
    if (!device_.is_cuda()) {
      op(targets, std::span(rows));
      return rows;
    }
    const DeviceScope scope(device_);
    copy_to_device(targets_.data(), targets.data(), size(targets) * int64_t{sizeof(int32_t)});
    op(std::span<const int32_t>(targets_.as<int32_t>(), targets.size()),
       std::span<Row>(rows_.as<Row>(), rows.size()));
    copy_to_host(rows.data(), rows_.data(), size(rows) * int64_t{sizeof(Row)});
    return rows;
  }

  int64_t vocab_;
  Device device_;
  Buffer targets_, rows_;  // of a GPU
};

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
  TextModel mine(model, options.compute, options.device);
  std::unique_ptr<TextModel> other;
  if (reference) {
    other = std::make_unique<TextModel>(*reference, options.compute, options.device);
    require(other->architecture().vocab == mine.architecture().vocab, "eval", model.source(),
            " has ", mine.architecture().vocab, " tokens, the reference ", reference->source(),
            " has ", other->architecture().vocab);
  }
  const int64_t vocab = mine.architecture().vocab, hidden = mine.architecture().hidden,
                length = static_cast<int64_t>(chunks[0].size());
  const int64_t group = std::max<int64_t>(1, group_bytes(options.device) / (length * hidden * 4));
  Scores scores(mine.max_head_rows(), vocab, options.device);
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
        const float* logits = mine.logits(states, s, t, rows);
        if (!other) {
          for (const auto& row : scores.xent(logits, targets)) losses.push_back(-row.log_p);
          continue;
        }
        const float* wanted = other->logits(reference_states, s, t, rows);
        for (const auto& row : scores.kl(logits, wanted, targets)) {
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
