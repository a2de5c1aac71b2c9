// Text from a model, token by token, all blocks in memory and a cache of keys and values.
#pragma once

#include <functional>
#include <memory>
#include <span>
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

// How long the last generate() took: from the prompt to the first token, and for each further one.
struct GenerateTimes {
  double prompt_seconds = 0;
  double seconds_per_token = 0;  // 0: there was no second token
};

class Generator {
 public:
  // device: where all weights and caches lie; layers of a quantized checkpoint stay packed on a GPU
  // if products are in bf16 (device_weights.h).
  Generator(const Checkpoint& checkpoint, DType compute, Device device = {});
  // Tokens behind `prompt` (at least one id). on_token (may be empty) sees each as it comes; false
  // ends the text.
  std::vector<int32_t> generate(const std::vector<int32_t>& prompt, const SampleOptions& options,
                                const std::function<bool(int32_t)>& on_token = {});
  // Logits of the position behind `ids`, (vocab).
  std::vector<float> next_logits(const std::vector<int32_t>& ids);
  const GenerateTimes& times() const { return times_; }
  // For tests: of a prompt, a GPU reads so many tokens at a time.
  void set_prompt_rows(int64_t rows) { prompt_rows_ = rows; }

 private:
  // Runs blocks of one shape. Neighbours in the model take turns, so that the next one reads its
  // input where the last one left it.
  struct Shape {
    Graph graph;
    std::unique_ptr<Program> single[2];
  };
  ProgramOptions options(int64_t rows) const;
  void begin(int64_t capacity);
  const float* feed(std::span<const int32_t> ids);
  const float* run_blocks(int64_t rows);
  std::vector<float> to_host(const float* logits) const;
  int32_t next_token(const float* logits, const SampleOptions& options, PythonRandom& random);

  const Checkpoint& checkpoint_;
  Architecture architecture_;
  DType compute_;
  Device device_;
  std::vector<Shape> shapes_;
  std::vector<size_t> shape_of_;  // of each block
  std::vector<std::unique_ptr<BlockWeights>> weights_;
  std::vector<KvCache> caches_;
  std::unique_ptr<BlockWeights> head_weights_;
  std::unique_ptr<Program> head_;
  Buffer host_rows_, rows_;  // embeddings, here and on the device
  Buffer best_;              // a GPU's XentRow
  GenerateTimes times_;
  int64_t prompt_rows_ = 2048;
};

// The token that `logits` (vocab) give under the options; draws from `random` only if temperature >
// 0.
int32_t sample_token(const float* logits, int64_t vocab, const SampleOptions& options,
                     PythonRandom& random);

}  // namespace signround
