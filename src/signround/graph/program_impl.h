// What a Program is made of. Forward and backward are planned in files of their own.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "signround/graph/arena.h"
#include "signround/graph/program.h"
#include "signround/ops/attention.h"
#include "signround/ops/convert.h"
#include "signround/ops/matmul.h"
#include "signround/ops/rms_norm.h"
#include "signround/ops/rope.h"

namespace signround {

// Compiles the graph in two sweeps: forward in the order of recording, backward against it. Steps
// are numbered through both, which gives every buffer its lifetime.
struct Program::Impl {
  // Where a matrix lies: a column range of a planned buffer.
  struct View {
    int buffer = -1;
    int64_t col = 0, stride = 0;
    DType dtype = DType::kF32;
    explicit operator bool() const { return buffer >= 0; }
  };

  struct Run {
    BlockWeights* weights = nullptr;
    KvCache* cache = nullptr;
    bool accumulate = false;
  };

  // A product that is made when it first runs: planning alone stays cheap.
  struct LazyMatmul {
    MatmulSpec spec;
    std::unique_ptr<MatmulPlan> plan;
    void run(const void* a, const void* b, const float* bias, void* c,
             const float* from = nullptr) {
      if (!plan) plan = make_matmul(spec);
      plan->run(a, b, bias, c, from);
    }
  };

  // What a step cannot do without: operations, or where those are few, bytes that it reads and
  // writes.
  struct Work {
    double flops = 0, bytes = 0;
  };

  struct Step {
    size_t timing;
    Work work;
    std::function<void(Run&)> run;
  };

  Graph graph;
  ProgramOptions options;
  int64_t rows;
  static constexpr int64_t kRoundedDepth = 4096;
  int num_ops;
  Arena arena;
  std::vector<View> value;     // of each value
  std::vector<View> gradient;  // of each value; empty where none is wanted
  std::vector<bool> wants_gradient;
  std::vector<std::vector<int>> consumers;  // ops that read the value
  std::vector<int> producer;                // op that makes it; -1: the input
  std::vector<View> fused;                  // of each LinearsOp: all its outputs side by side
  std::vector<View> fused_gradient;
  std::vector<View>
      cast_input;          // of each LinearsOp: x in the compute dtype, where x is kept in f32
  std::vector<int> saved;  // of each op: rstd or lse
  std::vector<Step> forward, backward;
  std::vector<OpTiming> timings;
  std::vector<std::unique_ptr<LazyMatmul>> products;
  std::vector<RopeTable> rope_tables;  // of each RopeOp; made at its first run
  int input_buffer = -1;
  float* outer_input = nullptr;  // that is read instead of the input's buffer
  LinearInputObserver observer;
  double observer_seconds = 0;  // of the step in work

  Impl(const Graph& g, const ProgramOptions& o);

  static size_t at(Value v) { return static_cast<size_t>(v.id); }
  const Op& op(int i) const { return graph.ops()[static_cast<size_t>(i)]; }
  int forward_step(int i) const { return i + 1; }
  int loss_step() const { return num_ops + 1; }
  int backward_step(int i) const { return num_ops + 2 + (num_ops - 1 - i); }
  DType compute() const { return options.compute; }

  // ---- buffers ----
  // Callers know that those in f32 have no gaps between rows.
  View make_view(int64_t cols, DType dtype) {
    const int64_t stride = dtype == DType::kF32 ? cols : row_stride(cols, dtype, options.device);
    return {arena.add(rows * stride * size_of(dtype)), 0, stride, dtype};
  }
  void touch(const View& view, int step) { arena.touch(view.buffer, step); }
  void touch_value(Value v, int step) { touch(value[at(v)], step); }
  void* pointer(const View& v) {
    if (v.buffer == input_buffer && outer_input) return outer_input;
    return static_cast<char*>(arena.at(v.buffer)) + v.col * size_of(v.dtype);
  }
  RowsIn in(const View& v) {
    require(v.dtype == DType::kF32, "program", "internal: rows in ", name_of(v.dtype));
    return {static_cast<const float*>(pointer(v)), v.stride};
  }
  RowsAny any(const View& v) { return {pointer(v), v.dtype, v.stride}; }
  RowsOut out(const View& v) { return {pointer(v), v.dtype, v.stride}; }
  // All rows of views of so many columns, each once.
  Work moves(int64_t cols, std::initializer_list<View> views) const {
    Work work;
    for (const View& v : views) work.bytes += double(rows * cols * size_of(v.dtype));
    return work;
  }
  float* floats(int buffer) { return static_cast<float*>(arena.at(buffer)); }

  size_t timing(const std::string& name) {
    for (size_t i = 0; i < timings.size(); ++i)
      if (timings[i].name == name) return i;
    timings.push_back({.name = name});
    return timings.size() - 1;
  }
  LazyMatmul* product(const MatmulSpec& spec) {
    products.push_back(std::make_unique<LazyMatmul>(LazyMatmul{spec, nullptr}));
    return products.back().get();
  }

  // ---- which gradients are wanted: those of values behind a tuned weight ----
  void find_wanted_gradients() {
    if (!options.train) return;
    wants_gradient[at(graph.input())] = options.input_gradient;
    for (int i = 0; i < num_ops; ++i) {
      bool wanted =
          is_tuned(op(i)) || (options.norm_gradients && std::holds_alternative<NormOp>(op(i)));
      for (Value v : inputs_of(op(i))) wanted = wanted || wants_gradient[at(v)];
      for (Value v : outputs_of(op(i))) wants_gradient[at(v)] = wanted;
    }
  }
  bool is_tuned(const Op& o) const {
    const auto* linears = std::get_if<LinearsOp>(&o);
    return linears &&
           std::any_of(linears->params.begin(), linears->params.end(),
                       [&](const LinearParam& p) { return !options.untuned.count(p.name); });
  }

  // Of all its outputs side by side.
  static int64_t columns_of(const LinearsOp& o) {
    int64_t cols = 0;
    for (const auto& p : o.params) cols += p.out;
    return cols;
  }

  // A value that only matrix products read is kept in their precision.
  DType dtype_of_output(Value v) const {
    if (v.id == graph.output().id || consumers[at(v)].empty()) return DType::kF32;
    for (int c : consumers[at(v)])
      if (!std::holds_alternative<LinearsOp>(op(c))) return DType::kF32;
    return compute();
  }

  // ---- program_forward.cc ----
  void plan_forward(int i, const LinearsOp& o);
  void packed_product(const BlockWeights::Group& weights, const View& x, const View& y,
                      const View& from);
  static void* packed_scratch(int64_t bytes);
  bool rounds(int64_t k) const;
  static bool reads_rounded(const Op& o);
  bool rounded_outputs(const LinearsOp& o) const;
  const AddOp* sum_of(int i) const;
  void observe(const LinearsOp& linears, const View& x);
  // How many operations of kind O were recorded before op i.
  template <class O>
  size_t count_before(int i) const {
    return static_cast<size_t>(
        std::count_if(graph.ops().begin(), graph.ops().begin() + i,
                      [](const Op& o) { return std::holds_alternative<O>(o); }));
  }
  void convert(int64_t cols, RowsAny x, RowsOut y) { signround::convert(rows, cols, x, y); }
  void plan_forward(int i, const NormOp& o);
  static RmsNormOptions options_of(const NormOp& norm);
  void plan_forward(int i, const RopeOp& o);
  void rope_with(int i, size_t table, const View& x, int64_t heads, int64_t head_dim);
  const RopeOp* rope_beside(int i);
  void rotate(size_t table, int i, const HeadShape& shape, int64_t offset, RowsAny x, RowsOut y,
              bool inverse);
  AttentionShape attention_shape(const AttentionOp& o) const;
  void plan_forward(int i, const AttentionOp& o);
  void attend_with_cache(AttentionShape shape, KvCache* cache, size_t entry, const View& q,
                         const View& k, const View& v, const View& y);
  void plan_forward(int i, const GatedOp& o);
  void plan_forward(int i, const AddOp& o);

  // ---- program_backward.cc ----
  void plan_backward_pass();
  bool receive(int i, Value v, bool narrow);
  bool writes_narrow(int i) const;
  View slice_of_fused_gradient(int made_by, const LinearsOp& linears, Value v);
  void plan_backward(int i, const LinearsOp& o);
  void plan_backward(int i, const NormOp& o);
  void plan_backward(int i, const RopeOp& o);
  void plan_backward(int i, const AttentionOp& o);
  void plan_backward(int i, const GatedOp& o);
  void plan_backward(int i, const AddOp& o);

  void run_steps(std::vector<Step>& steps, Run& run);
};

}  // namespace signround
