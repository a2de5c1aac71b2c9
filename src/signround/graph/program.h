// A recorded block made ready to run: a number of rows, a precision, planned buffers, and the
// kernels chosen.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "signround/graph/graph.h"
#include "signround/graph/weights.h"

namespace signround {

// Keys and values of the positions seen so far, for generating token by token. One entry per
// attention of the block: (capacity, 2 * kv_heads * head_dim) values of `dtype` (kF32 or kBF16),
// the keys of a position before its values.
struct KvCache {
  std::vector<Buffer> entries;
  DType dtype = DType::kF32;
  int64_t length = 0, capacity = 0;
  KvCache(const Graph& graph, int64_t capacity, Device device = {}, DType dtype = DType::kF32);
};

struct ProgramOptions {
  int64_t batch = 1,
          seq_len = 1;          // sequences in one run and tokens of each; rows = batch * seq_len
  DType compute = DType::kF32;  // what matrix products multiply in
  bool train = false;           // plan for backward()
  bool as_trained = false;      // forward() gives the bits of a program that is planned for it
  bool input_gradient = false;  // backward() also gives the gradient of the input
  std::set<std::string> untuned = {};  // linear layers whose weight gradient is not wanted
  bool norm_gradients = false;         // backward() also gives the gradients of all norms' weights
  bool bias_gradients = false;         // and of the biases of tuned linear layers
  // Gradients from products of operands rounded to 8 bits (MatmulSpec::int8).
  bool int8_gradients = false;
  Device device = {};  // where all buffers lie and operations run
  bool timed = true;   // timings() are kept; on a GPU, each operation is then waited for
};

// Time and work of each kind of operation, accumulated over runs.
struct OpTiming {
  std::string name;  // "linears.forward", "attention.backward", ...
  double seconds = 0, flops = 0, bytes = 0;
  int64_t calls = 0;
};

// Activations are f32 by contract. A value that only matrix products read is kept in their
// precision: they would round it anyway, so the numbers are the same. With `train` products round
// what only gates read too, and the gradient of a gate's output. Not thread-safe; one run at a
// time.
class Program {
 public:
  Program(const Graph& graph, const ProgramOptions& options);
  ~Program();
  Program(Program&&) noexcept;

  int64_t rows() const;
  float* input();  // (rows, cols): fill before forward
  // forward() reads rows there from now on; nullptr: in input() again. Not with backward().
  void read_input_from(const float* rows);
  const float* output() const;  // (rows, cols): valid after forward, until the next forward
  float* output();
  float* output_gradient();  // (rows, cols): fill before backward; backward overwrites it
  const float* input_gradient() const;

  // With a cache: rows are the next seq_len positions of one sequence; their keys and values are
  // appended to it.
  void forward(const BlockWeights& weights, KvCache* cache = nullptr);
  // On a GPU both are queued: input, output and gradients lie there.
  // After forward. Weight gradients go into weights' gradient buffers: overwritten, or added to
  // with `accumulate`, which needs them in f32. Gradients of norms and biases, where they were
  // planned, are always added to: the caller zeroes them.
  void backward(BlockWeights& weights, bool accumulate);

  // What an observer sees: the input rows of every LinearsOp of a forward run, in the compute
  // dtype. For second moments.
  using LinearInputObserver = std::function<void(const LinearsOp& op, const void* x, DType dtype,
                                                 int64_t rows, int64_t stride)>;
  void set_linear_input_observer(LinearInputObserver observer);

  // What weight gradients can be made in: bf16 where products are and nothing is added to them
  // later.
  static DType gradient_dtype(const ProgramOptions& options, bool accumulates);
  DType gradient_dtype(bool accumulates) const;

  Device device() const;
  // The program of another block of the same shape from now on. REQUIRES: same_shape(graph, its graph).
  void rename(const Graph& graph);
  int64_t bytes() const;  // planned buffers
  const std::vector<OpTiming>& timings() const;
  void clear_timings();
  // Bytes that a program of these options would plan, without allocating them.
  static int64_t bytes_needed(const Graph& graph, const ProgramOptions& options);
  // Bytes that its kernels keep beside these: the largest product's packed operands and the largest
  // attention's scratch. Kept by the calling thread, for all programs that it runs.
  static int64_t workspace_bytes(const Graph& graph, const ProgramOptions& options);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace signround
