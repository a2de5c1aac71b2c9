#include "signround/graph/program.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "signround/base/error.h"
#include "signround/graph/arena.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/packed_matmul.h"
#include "signround/ops/activation.h"
#include "signround/ops/add.h"
#include "signround/ops/attention.h"
#include "signround/ops/bias.h"
#include "signround/ops/convert.h"
#include "signround/ops/matmul.h"
#include "signround/ops/rms_norm.h"
#include "signround/ops/rope.h"

namespace signround {

KvCache::KvCache(const Graph& graph, int64_t positions, Device device, DType type)
    : dtype(type), capacity(positions) {
  for (const Op& op : graph.ops()) {
    if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      const int64_t cols = 2 * attention->spec.kv_heads * attention->spec.head_dim;
      entries.emplace_back(positions * cols * size_of(type), device);
    }
  }
}

namespace {

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
  void run(const void* a, const void* b, const float* bias, void* c, const float* from = nullptr) {
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

}  // namespace

// Compiles the graph in two sweeps: forward in the order of recording, backward against it. Steps
// are numbered through both, which gives every buffer its lifetime.
struct Program::Impl {
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

  Impl(const Graph& g, const ProgramOptions& o) : graph(g), options(o), rows(o.batch * o.seq_len) {
    require(o.batch > 0 && o.seq_len > 0, "program", "batch ", o.batch, " and seq_len ", o.seq_len,
            " must be positive");
    require(g.input().id >= 0 && g.output().id >= 0, "program",
            "the graph has no input or no output");
    num_ops = static_cast<int>(graph.ops().size());
    value.resize(static_cast<size_t>(graph.num_values()));
    gradient.resize(value.size());
    wants_gradient.resize(value.size());
    consumers.resize(value.size());
    producer.assign(value.size(), -1);
    fused.resize(static_cast<size_t>(num_ops));
    fused_gradient = cast_input = fused;
    saved.assign(static_cast<size_t>(num_ops), -1);
    for (int i = 0; i < num_ops; ++i) {
      for (Value v : inputs_of(op(i))) consumers[at(v)].push_back(i);
      for (Value v : outputs_of(op(i))) producer[at(v)] = i;
    }
    find_wanted_gradients();
    value[at(graph.input())] = make_view(graph.cols(graph.input()), DType::kF32);
    touch(value[at(graph.input())], 0);
    input_buffer = value[at(graph.input())].buffer;
    for (int i = 0; i < num_ops; ++i)
      std::visit([&](const auto& typed) { plan_forward(i, typed); }, op(i));
    touch(value[at(graph.output())], loss_step());
    if (options.train) plan_backward_pass();
    arena.place();
  }

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

  // ---- forward ----
  void plan_forward(int i, const LinearsOp& o) {
    const int step = forward_step(i);
    const size_t index = static_cast<size_t>(i);
    const int64_t cols = columns_of(o), in_cols = o.params[0].in;
    bool bias = false;
    for (const auto& p : o.params) bias |= p.bias;
    View x = value[at(o.x)];
    touch(x, step);
    if (x.dtype != compute()) {
      cast_input[index] = make_view(in_cols, compute());
      touch(cast_input[index], step);
    }
    const View read = cast_input[index] ? cast_input[index] : x;
    if (is_tuned(op(i)) && options.train) touch(read, backward_step(i));
    const AddOp* sum = bias ? nullptr : sum_of(i);
    fused[index] = make_view(cols, rounded_outputs(o) && rounds(in_cols) ? compute() : DType::kF32);
    touch(fused[index], step);
    View from;
    if (sum) {
      from = value[at(sum->x.id == o.out[0].id ? sum->y : sum->x)];
      touch(from, step);
      value[at(sum->out)] = fused[index];
    }
    int64_t col = 0;
    for (size_t p = 0; p < o.params.size(); ++p) {
      value[at(o.out[p])] = fused[index];
      value[at(o.out[p])].col = col;
      col += o.params[p].out;
    }
    LazyMatmul* matmul = product({.m = rows,
                                  .n = cols,
                                  .k = in_cols,
                                  .in = compute(),
                                  .out = fused[index].dtype,
                                  .trans_b = true,
                                  .lda = read.stride,
                                  .ldb = row_stride(in_cols, compute(), options.device),
                                  .ldc = fused[index].stride,
                                  .accumulate = sum != nullptr,
                                  .bias = bias});
    const size_t group = count_before<LinearsOp>(i);
    forward.push_back({timing("linears.forward"),
                       Work{.flops = 2.0 * double(rows) * double(cols) * double(in_cols)},
                       [=, this](Run& run) {
                         if (read.buffer != x.buffer) convert(in_cols, any(x), out(read));
                         const LinearsOp& linears = std::get<LinearsOp>(op(i));
                         if (observer) observe(linears, read);
                         const auto& weights = run.weights->group(group);
                         if (!weights.packed.empty())
                           return packed_product(weights, read, fused[index], from);
                         matmul->run(pointer(read), weights.weight.data(), weights.bias.as<float>(),
                                     pointer(fused[index]), from ? in(from).data : nullptr);
                       }});
  }

  // y = x W^T of weights that stay packed, plus bias, or plus `from`.
  void packed_product(const BlockWeights::Group& weights, const View& x, const View& y,
                      const View& from) {
    int64_t bytes = 0;
    for (const auto& part : weights.packed)
      bytes = std::max(bytes, kernels::packed_matmul_scratch_bytes(part.weight, rows));
    void* const scratch = packed_scratch(bytes);
    for (const auto& part : weights.packed) {
      View to = y;
      to.col += part.row;
      kernels::PackedTerms terms;
      if (weights.has_bias) terms.bias = weights.bias.as<float>() + part.row;
      if (from) terms.from = {in(from).data + part.row, from.stride};
      kernels::packed_matmul(part.weight, rows, any(x), out(to), scratch, terms);
    }
  }
  // Kept by the calling thread, as that of attention.
  static void* packed_scratch(int64_t bytes) {
    thread_local Buffer buffer;
    if (buffer.bytes() < bytes || buffer.device() != current_device()) {
      buffer = Buffer();
      buffer = Buffer(bytes, current_device());
    }
    return buffer.data();
  }

  // While training, products round what only products, gates, rotations and attention read. More
  // values along k than a CPU's kernel packs at a time leave sums in C between, which rounded ones
  // cannot hold: all of k packed at once costs more there than rounding saves.
  bool rounds(int64_t k) const {
    return (options.train || options.as_trained) && compute() == DType::kBF16 &&
           (k <= kRoundedDepth || options.device.is_cuda());
  }
  static bool reads_rounded(const Op& o) {
    return std::holds_alternative<GatedOp>(o) || std::holds_alternative<RopeOp>(o) ||
           std::holds_alternative<AttentionOp>(o);
  }
  bool rounded_outputs(const LinearsOp& o) const {
    return std::all_of(o.out.begin(), o.out.end(), [&](Value v) {
      return v.id != graph.output().id && !consumers[at(v)].empty() &&
             std::all_of(consumers[at(v)].begin(), consumers[at(v)].end(),
                         [&](int c) { return reads_rounded(op(c)); });
    });
  }

  // The addition that the product of op i makes itself, starting from the other term: that of a
  // single output that nothing else reads to what is there already. Else nullptr.
  const AddOp* sum_of(int i) const {
    const auto& o = std::get<LinearsOp>(op(i));
    const Value v = o.out[0];
    if (o.out.size() != 1 || v.id == graph.output().id || consumers[at(v)].size() != 1)
      return nullptr;
    const auto* sum = std::get_if<AddOp>(&op(consumers[at(v)][0]));
    if (!sum || sum->x.id == sum->y.id) return nullptr;
    const Value other = sum->x.id == v.id ? sum->y : sum->x;
    const View& from = value[at(other)];
    return producer[at(other)] < i && from.stride == o.params[0].out ? sum : nullptr;
  }

  void observe(const LinearsOp& linears, const View& x) {
    const auto start = std::chrono::steady_clock::now();
    observer(linears, pointer(x), x.dtype, rows, x.stride);
    observer_seconds +=
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // How many operations of kind O were recorded before op i.
  template <class O>
  size_t count_before(int i) const {
    return static_cast<size_t>(
        std::count_if(graph.ops().begin(), graph.ops().begin() + i,
                      [](const Op& o) { return std::holds_alternative<O>(o); }));
  }

  void convert(int64_t cols, RowsAny x, RowsOut y) { signround::convert(rows, cols, x, y); }

  void plan_forward(int i, const NormOp& o) {
    const int step = forward_step(i);
    const View x = value[at(o.x)],
               y = value[at(o.out)] = make_view(graph.cols(o.out), dtype_of_output(o.out));
    const int rstd = saved[static_cast<size_t>(i)] = arena.add(rows * o.heads * 4);
    touch(x, step), touch(y, step), arena.touch(rstd, step);
    if (options.train && (wants_gradient[at(o.x)] || options.norm_gradients))
      touch(x, backward_step(i)), arena.touch(rstd, backward_step(i));
    const HeadShape shape{rows, o.heads, o.weight.size};
    const size_t index = count_before<NormOp>(i);
    forward.push_back(
        {timing("rms_norm.forward"), moves(shape.cols(), {x, y}), [=, this](Run& run) {
           rms_norm_fwd(shape, in(x), run.weights->norm(index), options_of(std::get<NormOp>(op(i))),
                        out(y), {floats(rstd), static_cast<size_t>(shape.rows())});
         }});
  }

  static RmsNormOptions options_of(const NormOp& norm) {
    return {.eps = norm.eps, .weight_offset = norm.weight_offset};
  }

  // In place: no backward pass reads a rotation's input.
  void plan_forward(int i, const RopeOp& o) {
    const View x = value[at(o.out)] = value[at(o.x)];
    require(consumers[at(o.x)].size() == 1, "rope",
            "a value that others read cannot be rotated in place");
    touch(x, forward_step(i));
    const size_t table = rope_tables.size();
    rope_tables.emplace_back();
    if (const RopeOp* before = rope_beside(i)) {
      rope_with(i - 1, table - 1, value[at(before->out)], before->heads + o.heads, o.head_dim);
      return;
    }
    rope_with(i, table, x, o.heads, o.head_dim);
  }

  void rope_with(int i, size_t table, const View& x, int64_t heads, int64_t head_dim) {
    const HeadShape shape{rows, heads, head_dim};
    forward.push_back({timing("rope.forward"), moves(shape.cols(), {x, x}), [=, this](Run& run) {
                         const int64_t offset = run.cache ? run.cache->length : 0;
                         rotate(table, i, shape, offset, any(x), out(x), false);
                       }});
  }

  // On a GPU a rotation turns the heads that lie behind its own as well, in one launch: the
  // rotation before op i, if it is the same, of such neighbours; its step is taken back.
  const RopeOp* rope_beside(int i) {
    if (!options.device.is_cuda() || options.train || i == 0) return nullptr;
    const auto& o = std::get<RopeOp>(op(i));
    const auto* before = std::get_if<RopeOp>(&op(i - 1));
    if (before == nullptr || before->head_dim != o.head_dim) return nullptr;
    if (i > 1 && std::holds_alternative<RopeOp>(op(i - 2))) return nullptr;  // that took this one
    const RopeSpec &a = before->spec, &b = o.spec;
    const View &x = value[at(before->out)], &y = value[at(o.out)];
    if (a.inv_freq != b.inv_freq || a.factor != b.factor || a.interleaved != b.interleaved ||
        x.buffer != y.buffer || y.col != x.col + before->heads * o.head_dim)
      return nullptr;
    forward.pop_back();
    return before;
  }

  void rotate(size_t table, int i, const HeadShape& shape, int64_t offset, RowsAny x, RowsOut y,
              bool inverse) {
    const RopeOp& o = std::get<RopeOp>(op(i));
    if (o.spec.inv_freq.empty()) return;
    RopeTable& angles = rope_tables[table];
    if (angles.positions() <
        offset + options.seq_len) {  // grows by doubling while text is generated
      const std::vector<float> inv_freq(o.spec.inv_freq.begin(), o.spec.inv_freq.end());
      angles = rope_table(inv_freq, o.spec.factor,
                          std::max(offset + options.seq_len, 2 * angles.positions()));
    }
    const RopeOptions where{
        .style = o.spec.interleaved ? RopeStyle::kInterleaved : RopeStyle::kHalfSplit,
        .offset = offset,
        .seq_len = options.seq_len};
    if (inverse)
      rope_bwd(shape, x, angles, where, y, false);
    else
      rope_fwd(shape, x, angles, where, y);
  }

  AttentionShape attention_shape(const AttentionOp& o) const {
    return {.batch = options.batch,
            .q_len = options.seq_len,
            .kv_len = options.seq_len,
            .heads = o.spec.heads,
            .kv_heads = o.spec.kv_heads,
            .head_dim = o.spec.head_dim,
            .scale = o.spec.scale,
            .causal = true,
            .window = o.spec.window,
            .softcap = o.spec.softcap,
            .bf16_products = compute() == DType::kBF16};
  }

  void plan_forward(int i, const AttentionOp& o) {
    const int step = forward_step(i);
    const View q = value[at(o.q)], k = value[at(o.k)], v = value[at(o.v)];
    const View y = value[at(o.out)] = make_view(graph.cols(o.out), dtype_of_output(o.out));
    for (const View& view : {q, k, v, y}) touch(view, step);
    const bool keep = options.train && wants_gradient[at(o.out)];
    int lse = -1;
    if (keep) {
      lse = saved[static_cast<size_t>(i)] = arena.add(rows * o.spec.heads * 4);
      arena.touch(lse, step), arena.touch(lse, backward_step(i));
      for (const View& view : {q, k, v, y}) touch(view, backward_step(i));
    }
    const AttentionShape shape = attention_shape(o);
    const size_t entry = count_before<AttentionOp>(i);
    const double flops = 4.0 * double(rows) * double(options.seq_len + 1) / 2 *
                         double(o.spec.heads * o.spec.head_dim);
    forward.push_back({timing("attention.forward"), Work{.flops = flops}, [=, this](Run& run) {
                         if (run.cache)
                           attend_with_cache(shape, run.cache, entry, q, k, v, y);
                         else
                           attention_fwd(shape, any(q), any(k), any(v), out(y),
                                         lse >= 0 ? floats(lse) : nullptr);
                       }});
  }

  void attend_with_cache(AttentionShape shape, KvCache* cache, size_t entry, const View& q,
                         const View& k, const View& v, const View& y) {
    require(options.batch == 1, "attention", "a cache serves one sequence, found a batch of ",
            options.batch);
    require(cache->length + rows <= cache->capacity, "attention", "the cache holds ",
            cache->capacity, " positions, position ", cache->length + rows, " was asked for");
    const int64_t cols = shape.kv_heads * shape.head_dim, size = size_of(cache->dtype);
    char* const keys = cache->entries.at(entry).as<char>();
    char *const values = keys + cols * size, *const next = keys + cache->length * 2 * cols * size;
    if (v.buffer == k.buffer && v.col == k.col + cols) {
      convert(2 * cols, any(k), {next, cache->dtype, 2 * cols});
    } else {
      convert(cols, any(k), {next, cache->dtype, 2 * cols});
      convert(cols, any(v), {next + cols * size, cache->dtype, 2 * cols});
    }
    shape.kv_len = cache->length + rows;
    attention_fwd(shape, any(q), RowsAny{keys, cache->dtype, 2 * cols},
                  RowsAny{values, cache->dtype, 2 * cols}, out(y), nullptr);
  }

  void plan_forward(int i, const GatedOp& o) {
    const int step = forward_step(i);
    const View gate = value[at(o.gate)], up = value[at(o.up)];
    const View y = value[at(o.out)] = make_view(graph.cols(o.out), dtype_of_output(o.out));
    for (const View& view : {gate, up, y}) touch(view, step);
    if (options.train && wants_gradient[at(o.out)])
      touch(gate, backward_step(i)), touch(up, backward_step(i));
    const int64_t cols = graph.cols(o.out);
    forward.push_back({timing("gated.forward"), moves(cols, {gate, up, y}), [=, this](Run&) {
                         glu_fwd(std::get<GatedOp>(op(i)).activation, rows, cols, any(gate),
                                 any(up), out(y));
                       }});
  }

  void plan_forward(int i, const AddOp& o) {
    const int step = forward_step(i);
    if (value[at(o.out)]) return touch_value(o.out, step);  // a product made it
    const View x = value[at(o.x)], y = value[at(o.y)],
               z = value[at(o.out)] = make_view(graph.cols(o.out), DType::kF32);
    for (const View& view : {x, y, z}) touch(view, step);
    const int64_t cols = graph.cols(o.out);
    forward.push_back({timing("add.forward"), moves(cols, {x, y, z}),
                       [=, this](Run&) { add(rows, cols, in(x), in(y), out(z)); }});
  }

  // ---- backward ----
  void plan_backward_pass() {
    View& d_out = gradient[at(graph.output())];
    d_out = make_view(graph.cols(graph.output()), DType::kF32);
    touch(d_out, loss_step());
    for (int i = num_ops - 1; i >= 0; --i) {
      const auto outs = outputs_of(op(i));
      const bool reached =
          std::any_of(outs.begin(), outs.end(), [&](Value v) { return bool(gradient[at(v)]); });
      if (reached && wants_gradient[at(outs[0])])
        std::visit([&](const auto& typed) { plan_backward(i, typed); }, op(i));
    }
    if (options.input_gradient) touch(gradient[at(graph.input())], backward_step(0));
  }

  // Prepares the gradient of `v`, which op `i` is about to give. True: add to what is there; false:
  // overwrite. With `narrow` the op can write the compute dtype, which is used where only a matrix
  // product, a gate or attention will read it. A rotation's gradient is turned back in place.
  bool receive(int i, Value v, bool narrow) {
    View& d = gradient[at(v)];
    const bool accumulate = bool(d);
    if (!d) {
      const int made_by = producer[at(v)];
      const auto* linears = made_by >= 0 ? std::get_if<LinearsOp>(&op(made_by)) : nullptr;
      const auto* rope = made_by >= 0 ? std::get_if<RopeOp>(&op(made_by)) : nullptr;
      if (linears) {
        d = slice_of_fused_gradient(made_by, *linears, v);
      } else if (rope) {
        receive(i, rope->x, narrow);
        d = gradient[at(rope->x)];
      } else {
        d = make_view(graph.cols(v), narrow && made_by >= 0 && consumers[at(v)].size() == 1 &&
                                             reads_rounded(op(made_by))
                                         ? compute()
                                         : DType::kF32);
      }
    }
    require(narrow || d.dtype == DType::kF32, "program", "internal: a gradient in ",
            name_of(d.dtype), " cannot be added to");
    touch(d, backward_step(i));
    return accumulate;
  }

  // Can it give a gradient in the compute dtype?
  bool writes_narrow(int i) const {
    if (std::holds_alternative<LinearsOp>(op(i)))
      return rounds(columns_of(std::get<LinearsOp>(op(i))));
    return !std::holds_alternative<AddOp>(op(i));
  }

  // All outputs' gradients side by side, in the compute dtype if every one is written once by an op
  // that can do so.
  View slice_of_fused_gradient(int made_by, const LinearsOp& linears, Value v) {
    View& all = fused_gradient[static_cast<size_t>(made_by)];
    if (!all) {
      const bool narrow = std::all_of(linears.out.begin(), linears.out.end(), [&](Value o) {
        const auto& readers = consumers[at(o)];
        return readers.size() == 1 && writes_narrow(readers[0]) && o.id != graph.output().id;
      });
      all = make_view(columns_of(linears), narrow ? compute() : DType::kF32);
    }
    View slice = all;
    slice.col = value[at(v)].col;
    return slice;
  }

  void plan_backward(int i, const LinearsOp& o) {
    const int step = backward_step(i);
    const size_t index = static_cast<size_t>(i), group = count_before<LinearsOp>(i);
    const int64_t cols = columns_of(o), in_cols = o.params[0].in;
    View d_y = fused_gradient[index];
    if (!d_y) {  // a single output whose gradient is shared with an add
      require(o.out.size() == 1, "program", "internal: gradients of ", o.params[0].name,
              " are not side by side");
      d_y = gradient[at(o.out[0])];
    }
    for (Value v : o.out)
      require(bool(gradient[at(v)]), "program", "internal: an output of ", o.params[0].name,
              " has no gradient");
    touch(d_y, step);
    View d_y_read = d_y;
    if (d_y.dtype != compute()) {
      d_y_read = make_view(cols, compute());
      touch(d_y_read, step);
    }
    const Work work{.flops = 2.0 * double(rows) * double(cols) * double(in_cols)};
    if (d_y_read.buffer != d_y.buffer)
      backward.push_back({timing("convert.backward"), moves(cols, {d_y, d_y_read}),
                          [=, this](Run&) { convert(cols, any(d_y), out(d_y_read)); }});
    if (is_tuned(op(i))) {
      const View x = cast_input[index] ? cast_input[index] : value[at(o.x)];
      MatmulSpec spec{.m = cols,
                      .n = in_cols,
                      .k = rows,
                      .in = compute(),
                      .trans_a = true,
                      .lda = d_y_read.stride,
                      .ldb = x.stride,
                      .ldc = in_cols,
                      .int8 = options.int8_gradients,
                      .cold = true};
      LazyMatmul* overwrite = product(spec);
      spec.accumulate = true;
      LazyMatmul* accumulate = product(spec);
      spec.accumulate = false;
      spec.out = gradient_dtype(options, false);
      LazyMatmul* rounded = spec.out == DType::kBF16 ? product(spec) : nullptr;
      backward.push_back({timing("linears.weight_gradient"), work, [=, this](Run& run) {
                            auto& weights = run.weights->group(group);
                            require(weights.gradient.data() != nullptr, "program",
                                    "no gradient buffers were allocated");
                            const bool narrow = run.weights->gradient_dtype() == DType::kBF16;
                            require(!narrow || (rounded && !run.accumulate), "program",
                                    "weight gradients in BF16 cannot be ",
                                    run.accumulate ? "added to" : "made here");
                            (narrow           ? rounded
                             : run.accumulate ? accumulate
                                              : overwrite)
                                ->run(pointer(d_y_read), pointer(x), nullptr,
                                      weights.gradient.data());
                          }});
    }
    if (options.bias_gradients && is_tuned(op(i)) &&
        std::any_of(o.params.begin(), o.params.end(), [](const LinearParam& p) { return p.bias; }))
      backward.push_back({timing("linears.bias_gradient"), moves(cols, {d_y}), [=, this](Run& run) {
                            bias_bwd(rows, cols, any(d_y), run.weights->bias_gradient(group));
                          }});
    if (!wants_gradient[at(o.x)]) return;
    const bool accumulate = receive(i, o.x, writes_narrow(i));
    const View d_x = gradient[at(o.x)];
    LazyMatmul* matmul = product({.m = rows,
                                  .n = in_cols,
                                  .k = cols,
                                  .in = compute(),
                                  .out = d_x.dtype,
                                  .lda = d_y_read.stride,
                                  .ldb = row_stride(in_cols, compute(), options.device),
                                  .ldc = d_x.stride,
                                  .accumulate = accumulate,
                                  .int8 = options.int8_gradients});
    backward.push_back({timing("linears.input_gradient"), work, [=, this](Run& run) {
                          matmul->run(pointer(d_y_read), run.weights->group(group).weight.data(),
                                      nullptr, pointer(d_x));
                        }});
  }

  void plan_backward(int i, const NormOp& o) {
    const View d_y = gradient[at(o.out)];
    touch(d_y, backward_step(i));
    const bool accumulate = receive(i, o.x, true);
    const View d_x = gradient[at(o.x)], x = value[at(o.x)];
    const int rstd = saved[static_cast<size_t>(i)];
    const HeadShape shape{rows, o.heads, o.weight.size};
    const size_t index = count_before<NormOp>(i);
    backward.push_back(
        {timing("rms_norm.backward"), moves(shape.cols(), {x, d_y, d_x}), [=, this](Run& run) {
           rms_norm_bwd(
               shape, in(x), run.weights->norm(index),
               {floats(rstd), static_cast<size_t>(shape.rows())}, in(d_y),
               options_of(std::get<NormOp>(op(i))), out(d_x), accumulate,
               options.norm_gradients ? run.weights->norm_gradient(index) : std::span<float>());
         }});
  }

  void plan_backward(int i, const RopeOp& o) {
    const View d_x = gradient[at(o.out)];  // that of o.x too: see receive
    touch(d_x, backward_step(i));
    const size_t table = count_before<RopeOp>(i);
    const HeadShape shape{rows, o.heads, o.head_dim};
    backward.push_back({timing("rope.backward"), moves(shape.cols(), {d_x, d_x}),
                        [=, this](Run&) { rotate(table, i, shape, 0, any(d_x), out(d_x), true); }});
  }

  void plan_backward(int i, const AttentionOp& o) {
    const int step = backward_step(i);
    const View q = value[at(o.q)], k = value[at(o.k)], v = value[at(o.v)], y = value[at(o.out)],
               d_y = gradient[at(o.out)];
    touch(d_y, step);
    for (Value input : {o.q, o.k, o.v}) {
      if (!wants_gradient[at(input)]) continue;
      require(!receive(i, input, true), "program",
              "internal: attention shares an input with another operation");
    }
    const View d_q = gradient[at(o.q)], d_k = gradient[at(o.k)], d_v = gradient[at(o.v)];
    const int lse = saved[static_cast<size_t>(i)];
    const AttentionShape shape = attention_shape(o);
    const double flops = 10.0 * double(rows) * double(options.seq_len + 1) / 2 *
                         double(o.spec.heads * o.spec.head_dim);
    backward.push_back({timing("attention.backward"), Work{.flops = flops}, [=, this](Run&) {
                          const auto wanted = [&](const View& d) { return d ? out(d) : RowsOut{}; };
                          attention_bwd(shape, any(q), any(k), any(v), any(y), floats(lse),
                                        any(d_y), wanted(d_q), wanted(d_k), wanted(d_v));
                        }});
  }

  void plan_backward(int i, const GatedOp& o) {
    const View d_y = gradient[at(o.out)];
    touch(d_y, backward_step(i));
    const bool add_gate = receive(i, o.gate, true), add_up = receive(i, o.up, true);
    require(!add_gate && !add_up, "program",
            "internal: a gate shares an input with another operation");
    const View gate = value[at(o.gate)], up = value[at(o.up)], d_gate = gradient[at(o.gate)],
               d_up = gradient[at(o.up)];
    const int64_t cols = graph.cols(o.out);
    backward.push_back(
        {timing("gated.backward"), moves(cols, {gate, up, d_y, d_gate, d_up}), [=, this](Run&) {
           glu_bwd(std::get<GatedOp>(op(i)).activation, rows, cols, any(gate), any(up), any(d_y),
                   out(d_gate), out(d_up), false);
         }});
  }

  // d_x = d_y = d_out. Where nothing was given to an input yet, it shares d_out's memory: what is
  // added to one of the two later must not be seen by the other, so the second shares only if its
  // producer runs before those additions.
  void plan_backward(int i, const AddOp& o) {
    const View d_z = gradient[at(o.out)];
    const int step = backward_step(i);
    touch(d_z, step);
    bool shared = false;
    const Value first = producer[at(o.x)] < producer[at(o.y)] ? o.x : o.y,
                second = first.id == o.x.id ? o.y : o.x;
    for (Value v : {first, second}) {
      if (!wants_gradient[at(v)]) continue;
      const bool linear_output =
          producer[at(v)] >= 0 && std::holds_alternative<LinearsOp>(op(producer[at(v)]));
      const bool slice = linear_output && std::get<LinearsOp>(op(producer[at(v)])).out.size() > 1;
      bool can_share = !gradient[at(v)] && !slice && first.id != second.id;
      if (v.id == second.id && shared) {
        for (int c : consumers[at(first)])
          can_share = can_share && (c >= i || c < producer[at(second)]);
        can_share = can_share && consumers[at(second)].size() == 1;
      }
      if (can_share) {
        gradient[at(v)] = d_z;
        shared = true;
        continue;
      }
      const bool accumulate = receive(i, v, false);
      const View d = gradient[at(v)];
      const int64_t cols = graph.cols(v);
      backward.push_back({timing("add.backward"), moves(cols, {d_z, d}), [=, this](Run&) {
                            if (accumulate)
                              add(rows, cols, in(d), in(d_z), out(d));
                            else
                              convert(cols, any(d_z), out(d));
                          }});
    }
  }

  void run_steps(std::vector<Step>& steps, Run& run) {
    const DeviceScope scope(options.device);
    if (!options.timed) {
      for (Step& step : steps) step.run(run);
      return;
    }
    using Clock = std::chrono::steady_clock;
    const bool queued = options.device.is_cuda();
    if (queued) synchronize();
    auto start = Clock::now();
    for (Step& step : steps) {
      step.run(run);
      if (queued) synchronize();
      const auto end = Clock::now();
      if (observer) timings[timing("observer")].seconds += observer_seconds;
      OpTiming& t = timings[step.timing];
      t.seconds += std::chrono::duration<double>(end - start).count() - observer_seconds;
      observer_seconds = 0;
      t.flops += step.work.flops;
      t.bytes += step.work.bytes;
      ++t.calls;
      start = end;
    }
  }
};

Program::Program(const Graph& graph, const ProgramOptions& options)
    : impl_(std::make_unique<Impl>(graph, options)) {
  impl_->arena.allocate(options.device);
}
Program::~Program() = default;
Program::Program(Program&&) noexcept = default;

int64_t Program::rows() const { return impl_->rows; }
float* Program::input() {
  return static_cast<float*>(impl_->pointer(impl_->value[Impl::at(impl_->graph.input())]));
}
void Program::read_input_from(const float* rows) {
  require(!impl_->options.train, "program", "internal: a training program's input lies elsewhere");
  impl_->outer_input = const_cast<float*>(rows);
}
const float* Program::output() const {
  return static_cast<float*>(impl_->pointer(impl_->value[Impl::at(impl_->graph.output())]));
}
float* Program::output() { return const_cast<float*>(std::as_const(*this).output()); }
float* Program::output_gradient() {
  require(impl_->options.train, "program", "was planned without backward()");
  return static_cast<float*>(impl_->pointer(impl_->gradient[Impl::at(impl_->graph.output())]));
}
const float* Program::input_gradient() const {
  require(impl_->options.train && impl_->options.input_gradient, "program",
          "was planned without the input's gradient");
  return static_cast<float*>(impl_->pointer(impl_->gradient[Impl::at(impl_->graph.input())]));
}

void Program::forward(const BlockWeights& weights, KvCache* cache) {
  require(weights.compute() == impl_->options.compute, "program", "weights are in ",
          name_of(weights.compute()), ", products in ", name_of(impl_->options.compute));
  Run run{.weights = const_cast<BlockWeights*>(&weights), .cache = cache};
  impl_->run_steps(impl_->forward, run);
  if (cache) cache->length += impl_->rows;
}

void Program::backward(BlockWeights& weights, bool accumulate) {
  require(impl_->options.train, "program", "was planned without backward()");
  Run run{.weights = &weights, .accumulate = accumulate};
  impl_->run_steps(impl_->backward, run);
}

void Program::set_linear_input_observer(LinearInputObserver observer) {
  impl_->observer = std::move(observer);
}
DType Program::gradient_dtype(const ProgramOptions& options, bool accumulates) {
  const bool narrow = options.compute == DType::kBF16 && !accumulates &&
                      (options.batch * options.seq_len <= Impl::kRoundedDepth ||
                       options.device.is_cuda());
  return narrow ? DType::kBF16 : DType::kF32;
}
DType Program::gradient_dtype(bool accumulates) const {
  return gradient_dtype(impl_->options, accumulates);
}
void Program::rename(const Graph& graph) {
  require(same_shape(graph, impl_->graph), "program", "internal: a block of another shape");
  impl_->graph = graph;
}
void Program::clear_timings() {
  for (OpTiming& t : impl_->timings) t.seconds = t.flops = t.bytes = 0, t.calls = 0;
}
Device Program::device() const { return impl_->options.device; }
int64_t Program::bytes() const { return impl_->arena.bytes(); }
const std::vector<OpTiming>& Program::timings() const { return impl_->timings; }
int64_t Program::bytes_needed(const Graph& graph, const ProgramOptions& options) {
  return Impl(graph, options).arena.bytes();
}

int64_t Program::workspace_bytes(const Graph& graph, const ProgramOptions& options) {
  const DeviceScope scope(options.device);
  const Impl program(graph, options);
  int64_t product = 0, attention = 0;
  for (const auto& p : program.products)
    product = std::max(product, options.device.is_cuda() ? kernels::cuda::kProductWorkspace
                                                         : matmul_workspace_bytes(p->spec));
  for (const Op& op : graph.ops())
    if (const auto* o = std::get_if<AttentionOp>(&op))
      for (const bool backward : {false, options.train})
        attention =
            std::max(attention, attention_scratch_bytes(program.attention_shape(*o), backward));
  return product + attention;
}

}  // namespace signround
