// The parameters of one block in memory: what a Program multiplies with, and the gradients that a
// tuner asked for.
#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "signround/graph/graph.h"
#include "signround/kernels/packed_matmul.h"
#include "signround/tensor/buffer.h"
#include "signround/tensor/rows.h"

namespace signround {

// One linear layer's place: (out, in) values of `dtype`, rows `stride` elements apart, and its
// gradient (out, in) in kF32 or kBF16 (no data where none was asked for).
struct WeightView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t out = 0, in = 0, stride = 0;
  RowsAny gradient;
};

// Layers that read the same input lie one below the other, so that one product serves them all.
class BlockWeights {
 public:
  struct Group {
    int64_t out = 0, in = 0;  // of all layers of the group together
    int64_t stride = 0;       // of the weight; gradients lie row by row without gaps
    bool has_bias = false;
    Buffer weight, bias, gradient, bias_gradient;
    // On a GPU, for products alone: instead of `weight`, which is empty then. From the group's row
    // `row` on; together they are all of it.
    struct Packed {
      int64_t row = 0;
      kernels::PackedWeight weight;
    };
    std::vector<Packed> packed;
  };

  // Memory for all parameters of `graph` on `device`, weights in `compute` (kF32 or kBF16). Pinned
  // memory is laid out as a GPU's, for upload().
  // A group whose layers are all in `packed` gets no weight: the caller gives it packed ones.
  BlockWeights(const Graph& graph, DType compute, Device device = {},
               const std::set<std::string>& packed = {});
  // All parameters from memory of the same layout to this GPU: queued, so `from` must stay as it is
  // until synchronize().
  void upload(const BlockWeights& from);
  // Blocks of the same shape can share one BlockWeights: gives it the next block's names. What it
  // holds stays. REQUIRES: same_shape(graph, the graph that it was made for).
  void rename(const Graph& graph);
  // For all linear layers; kept from then on, and made anew where dtype (kF32 or kBF16) changes.
  void allocate_gradients(DType dtype = DType::kF32);
  void allocate_norm_gradients();  // for all norms
  void allocate_bias_gradients();  // for all linear layers that have one

  DType compute() const { return compute_; }
  Device device() const { return device_; }
  DType gradient_dtype() const { return gradient_dtype_; }
  WeightView weight(std::string_view linear_name);
  std::span<float> vector(std::string_view name);  // a norm's weight or a "name.bias"
  // Of the norm_op-th NormOp in the order of recording; an empty gradient: none was asked for.
  std::span<float> norm(size_t norm_op) { return floats(norms_[norm_op]); }
  std::span<float> norm_gradient(size_t norm_op) {
    return norm_gradients_.empty() ? std::span<float>() : floats(norm_gradients_[norm_op]);
  }
  // Of the linears_op-th LinearsOp, all layers' together: as norm_gradient.
  std::span<float> bias_gradient(size_t linears_op) {
    return floats(groups_[linears_op].bias_gradient);
  }
  // Of what vector(name) gives; empty: none was asked for.
  std::span<float> vector_gradient(std::string_view name);
  void zero_vector_gradients();
  const Group& group(size_t linears_op) const {
    return groups_[linears_op];
  }  // in the order of recording
  Group& group(size_t linears_op) { return groups_[linears_op]; }
  // gradients: their type, or none.
  static int64_t bytes_needed(const Graph& graph, DType compute, std::optional<DType> gradients,
                              Device device = {});

 private:
  static std::span<float> floats(Buffer& buffer) {
    return {buffer.as<float>(), static_cast<size_t>(buffer.bytes() / 4)};
  }
  Device device_;
  DType compute_, gradient_dtype_ = DType::kF32;
  std::vector<Group> groups_;
  std::vector<Buffer> norms_, norm_gradients_;
  struct Place {
    size_t group = 0;
    int64_t row = 0;
    LinearParam param;
  };
  std::unordered_map<std::string, Place> linears_;
  struct VectorPlace {
    bool norm = false;  // else a bias
    size_t index = 0;   // of the norm, or of the bias's group
    int64_t row = 0, size = 0;
  };
  const VectorPlace& place_of(std::string_view vector) const;
  std::unordered_map<std::string, VectorPlace> vectors_;
};

}  // namespace signround
