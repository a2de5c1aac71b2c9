// Text from a model, token by token, all blocks in memory and a cache of keys and values.
#pragma once

#include <functional>
#include <vector>

#include "signround/base/random.h"
#include "signround/graph/program.h"
#include "signround/io/checkpoint.h"
#include "signround/model/architecture.h"

namespace signround {

struct SampleOptions {
  int64_t max_tokens = 64;
  double temperature = 0;  // 0: always the most likely token
  double top_p = 1;        // only the most likely tokens that together have this probability
  uint64_t seed = 42;
  std::vector<int32_t> stop;  // ends at any of these; not part of the result
};

class Generator {
 public:
  Generator(const Checkpoint& checkpoint, DType compute);
  // Tokens behind `prompt` (at least one id). on_token (may be empty) sees each as it comes; false
  // ends the text.
  std::vector<int32_t> generate(const std::vector<int32_t>& prompt, const SampleOptions& options,
                                const std::function<bool(int32_t)>& on_token = {});
  // Logits of the position behind `ids`, (vocab).
  std::vector<float> next_logits(const std::vector<int32_t>& ids);

 private:
  void begin(int64_t capacity);
  const float* feed(const std::vector<int32_t>& ids);
  const Checkpoint& checkpoint_;
  Architecture architecture_;
  DType compute_;
  std::vector<Graph> graphs_;
  std::vector<std::unique_ptr<BlockWeights>> weights_;
  std::vector<KvCache> caches_;
  std::vector<std::unique_ptr<Program>> single_;  // of each block, for one token
  std::unique_ptr<BlockWeights> head_weights_;
  std::unique_ptr<Program> head_;
};

// The token that `logits` (vocab) give under the options; draws from `random` only if temperature >
// 0.
int32_t sample_token(const float* logits, int64_t vocab, const SampleOptions& options,
                     PythonRandom& random);

}  // namespace signround
