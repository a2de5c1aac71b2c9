// How well a model predicts a text, and how far its predictions are from another model's.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/device/device.h"
#include "signround/io/checkpoint.h"
#include "signround/text/tokenizer.h"

namespace signround {

// Perplexity = exp(mean of -log p(token | tokens before it in its chunk)). stderr by the delta
// method from the spread of the mean over positions.
struct Perplexity {
  double value = 0, stderr_ = 0;
  int64_t tokens = 0;
};

// KL(reference || model) in nats over positions: mean with its standard error, and how it is
// spread. same_top: share of positions where both hold the same token most likely.
struct Divergence {
  double mean = 0, stderr_ = 0, median = 0, p90 = 0, p99 = 0, max = 0;
  double same_top = 0, same_top_stderr = 0;
};

struct EvalResult {
  std::string model;
  Perplexity perplexity;
  bool has_reference = false;
  Divergence kl;
  Perplexity reference_perplexity;
  double seconds = 0;
  nlohmann::ordered_json to_json() const;
};

struct EvalOptions {
  int64_t seqlen = 2048;  // tokens of a chunk
  int64_t limit = 0;      // chunks; 0: all
  DType compute = DType::kF32;
  Device device = {};  // where models compute
};

// The text as one sequence of tokens (special tokens as the tokenizer adds them, once), cut into
// chunks of seqlen; a last chunk that is not full is left out, unless it is the only one.
// Error{kInvalidArgument} for less than two tokens.
std::vector<std::vector<int32_t>> chunks_of_text(const Tokenizer& tokenizer,
                                                 const std::string& text,
                                                 const EvalOptions& options);

// One pass over the chunks. reference may be null. Both models must have the same vocabulary.
EvalResult evaluate(const Checkpoint& model, const Checkpoint* reference,
                    const std::vector<std::vector<int32_t>>& chunks, const EvalOptions& options);

}  // namespace signround
