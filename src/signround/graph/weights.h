// The parameters of one block in memory: what a Program multiplies with, and the gradients that a
// tuner asked for.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/graph/graph.h"
#include "signround/tensor/buffer.h"

namespace signround {

// One linear layer's place: (out, in) values of `dtype`, rows `stride` elements apart, and its
// gradient (f32, the same layout, nullptr where none was asked for).
struct WeightView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t out = 0, in = 0, stride = 0;
  float* gradient = nullptr;
};

// Layers that read the same input lie one below the other, so that one product serves them all.
class BlockWeights {
 public:
  struct Group {
    int64_t out = 0, in = 0;  // of all layers of the group together
    bool has_bias = false;
    Buffer weight, bias, gradient;
  };

  // Memory for all parameters of `graph`, weights in `compute` (kF32 or kBF16). Blocks of the same
  // shape share one BlockWeights: rename() gives it the next block's names.
  BlockWeights(const Graph& graph, DType compute);
  void allocate_gradients();        // for all linear layers; kept from then on

  DType compute() const { return compute_; }
  WeightView weight(std::string_view linear_name);
  std::span<float> vector(std::string_view name);  // a norm's weight or a "name.bias"
  const Group& group(size_t linears_op) const {
    return groups_[linears_op];
  }  // in the order of recording
  Group& group(size_t linears_op) { return groups_[linears_op]; }
  static int64_t bytes_needed(const Graph& graph, DType compute, bool gradients);

 private:
  DType compute_;
  std::vector<Group> groups_;
  std::vector<Buffer> norms_;
  struct Place {
    size_t group = 0;
    int64_t row = 0;
    LinearParam param;
  };
  std::unordered_map<std::string, Place> linears_;
  std::unordered_map<std::string, std::span<float>> vectors_;
};

}  // namespace signround
