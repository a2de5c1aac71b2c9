// Records one transformer block: which operations it is made of, on which parameters. Knows shapes
// of one token row only; how many rows there are, in which precision products run and where buffers
// lie is decided when a Program is made from it (program.h).
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "signround/ops/activation.h"
#include "signround/tensor/tensor.h"

namespace signround {

// A matrix of (tokens, cols) that an operation makes. Only its number; the Graph knows the rest.
struct Value {
  int id = -1;
};

// Weight (out, in) of a linear layer, named as in the checkpoint without ".weight"; bias: there is
// a "name.bias" too.
struct LinearParam {
  std::string name;
  int64_t out = 0, in = 0;
  bool bias = false;
};

// A parameter of one dimension, by its full name in the checkpoint.
struct VectorParam {
  std::string name;
  int64_t size = 0;
};

// Rotary position embedding. Angle of dimension pair i at position p: p * inv_freq[i]; cos and sin
// are multiplied by `factor` (YaRN's attention factor). 2 * inv_freq.size() dimensions of each head
// are rotated, the rest is left alone.
struct RopeSpec {
  std::vector<double> inv_freq;
  double factor = 1;
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + half)
};

struct AttentionSpec {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;
  int64_t window = 0;  // sliding window in tokens; 0: none
  float softcap = 0;   // 0: none
};

// The operations, in the order of recording. Inputs are values recorded before.
struct LinearsOp {  // out[i] = x * weight[i]^T + bias[i]: layers that read the same x run as one
                    // product
  Value x;
  std::vector<LinearParam> params;
  std::vector<Value> out;
};
struct NormOp {  // RMS norm of each of `heads` equal parts of a row; weight + weight_offset
                 // multiplies
  Value x;
  VectorParam weight;
  float eps, weight_offset;
  int64_t heads;
  Value out;
};
struct RopeOp {
  Value x;
  int64_t heads, head_dim;
  RopeSpec spec;
  Value out;
};
struct AttentionOp {  // causal
  Value q, k, v;
  AttentionSpec spec;
  Value out;
};
struct GatedOp {  // activation(gate) * up
  Value gate, up;
  Activation activation;
  Value out;
};
struct AddOp {
  Value x, y;
  Value out;
};
using Op = std::variant<LinearsOp, NormOp, RopeOp, AttentionOp, GatedOp, AddOp>;

class Graph {
 public:
  Value input(int64_t cols);  // once, first
  std::vector<Value> linears(Value x, std::vector<LinearParam> params);
  Value linear(Value x, LinearParam param) { return linears(x, {std::move(param)})[0]; }
  Value rms_norm(Value x, VectorParam weight, float eps, int64_t heads = 1,
                 float weight_offset = 0);
  Value rope(Value x, int64_t heads, int64_t head_dim, const RopeSpec& spec);
  Value attention(Value q, Value k, Value v, const AttentionSpec& spec);
  Value gated(Activation activation, Value gate, Value up);
  Value add(Value x, Value y);
  void output(Value value);  // once, last

  int64_t cols(Value value) const { return cols_[static_cast<size_t>(value.id)]; }
  int num_values() const { return static_cast<int>(cols_.size()); }
  const std::vector<Op>& ops() const { return ops_; }
  Value input() const { return input_; }
  Value output() const { return output_; }
  std::vector<LinearParam> linear_params() const;  // all, in the order of recording
  std::vector<VectorParam> vector_params() const;  // norm weights and biases
  int64_t num_weights() const;                     // elements of all linear weights

 private:
  Value make(int64_t cols);
  void check(Value value, const char* op) const;
  std::vector<int64_t> cols_;
  std::vector<Op> ops_;
  Value input_, output_;
};

// The same operations on the same values, with parameters of the same sizes under other names: what
// is planned for one can run the other.
bool same_shape(const Graph& a, const Graph& b);

std::vector<Value> inputs_of(const Op& op);
std::vector<Value> outputs_of(const Op& op);
std::string name_of(const Op& op);  // "linears", "rms_norm", ... for timings and errors

}  // namespace signround
