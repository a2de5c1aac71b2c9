// The weights of a block for generating text: dense, or on a GPU packed as the file holds them.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "signround/graph/weights.h"
#include "signround/io/checkpoint.h"

namespace signround {

// Reads blocks one after the other to `device`. On a GPU, with products in bf16, layers of a
// quantized checkpoint stay packed where a product takes them so: layers of one LinearsOp in one
// weight if their bits and groups agree, else each by itself; dense where one of them cannot.
class GenerationWeights {
 public:
  GenerationWeights(const Checkpoint& checkpoint, DType compute, Device device)
      : checkpoint_(checkpoint), compute_(compute), device_(device) {}
  // All parameters of `graph`.
  std::unique_ptr<BlockWeights> load(const Graph& graph);

 private:
  void stage(const Graph& graph, const std::vector<bool>& packed,
             const std::set<std::string>& names);
  const Checkpoint& checkpoint_;
  DType compute_;
  Device device_;
  // Pinned memory on the way to a GPU, for the next block if that has the same shape.
  std::unique_ptr<BlockWeights> staging_;
  Graph graph_;
  std::vector<bool> packed_;  // of each LinearsOp
};

}  // namespace signround
