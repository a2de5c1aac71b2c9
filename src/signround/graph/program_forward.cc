#include <algorithm>
#include <chrono>
#include <utility>

#include "signround/base/error.h"
#include "signround/graph/program_impl.h"
#include "signround/kernels/packed_matmul.h"
#include "signround/ops/activation.h"
#include "signround/ops/add.h"
#include "signround/ops/convert.h"

namespace signround {

void Program::Impl::plan_forward(int i, const LinearsOp& o) {
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
void Program::Impl::packed_product(const BlockWeights::Group& weights, const View& x, const View& y,
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
void* Program::Impl::packed_scratch(int64_t bytes) {
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
bool Program::Impl::rounds(int64_t k) const {
  return (options.train || options.as_trained) && compute() == DType::kBF16 &&
         (k <= kRoundedDepth || options.device.is_cuda());
}

bool Program::Impl::reads_rounded(const Op& o) {
  return std::holds_alternative<GatedOp>(o) || std::holds_alternative<RopeOp>(o) ||
         std::holds_alternative<AttentionOp>(o);
}

bool Program::Impl::rounded_outputs(const LinearsOp& o) const {
  return std::all_of(o.out.begin(), o.out.end(), [&](Value v) {
    return v.id != graph.output().id && !consumers[at(v)].empty() &&
           std::all_of(consumers[at(v)].begin(), consumers[at(v)].end(),
                       [&](int c) { return reads_rounded(op(c)); });
  });
}

// The addition that the product of op i makes itself, starting from the other term: that of a
// single output that nothing else reads to what is there already. Else nullptr.
const AddOp* Program::Impl::sum_of(int i) const {
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

void Program::Impl::observe(const LinearsOp& linears, const View& x) {
  const auto start = std::chrono::steady_clock::now();
  observer(linears, pointer(x), x.dtype, rows, x.stride);
  observer_seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void Program::Impl::plan_forward(int i, const NormOp& o) {
  const int step = forward_step(i);
  const View x = value[at(o.x)],
             y = value[at(o.out)] = make_view(graph.cols(o.out), dtype_of_output(o.out));
  const int rstd = saved[static_cast<size_t>(i)] = arena.add(rows * o.heads * 4);
  touch(x, step), touch(y, step), arena.touch(rstd, step);
  if (options.train && (wants_gradient[at(o.x)] || options.norm_gradients))
    touch(x, backward_step(i)), arena.touch(rstd, backward_step(i));
  const HeadShape shape{rows, o.heads, o.weight.size};
  const size_t index = count_before<NormOp>(i);
  forward.push_back({timing("rms_norm.forward"), moves(shape.cols(), {x, y}), [=, this](Run& run) {
                       rms_norm_fwd(shape, in(x), run.weights->norm(index),
                                    options_of(std::get<NormOp>(op(i))), out(y),
                                    {floats(rstd), static_cast<size_t>(shape.rows())});
                     }});
}

RmsNormOptions Program::Impl::options_of(const NormOp& norm) {
  return {.eps = norm.eps, .weight_offset = norm.weight_offset};
}

// In place: no backward pass reads a rotation's input.
void Program::Impl::plan_forward(int i, const RopeOp& o) {
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

void Program::Impl::rope_with(int i, size_t table, const View& x, int64_t heads, int64_t head_dim) {
  const HeadShape shape{rows, heads, head_dim};
  forward.push_back({timing("rope.forward"), moves(shape.cols(), {x, x}), [=, this](Run& run) {
                       const int64_t offset = run.cache ? run.cache->length : 0;
                       rotate(table, i, shape, offset, any(x), out(x), false);
                     }});
}

// On a GPU a rotation turns the heads that lie behind its own as well, in one launch: the
// rotation before op i, if it is the same, of such neighbours; its step is taken back.
const RopeOp* Program::Impl::rope_beside(int i) {
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

void Program::Impl::rotate(size_t table, int i, const HeadShape& shape, int64_t offset, RowsAny x,
                           RowsOut y, bool inverse) {
  const RopeOp& o = std::get<RopeOp>(op(i));
  if (o.spec.inv_freq.empty()) return;
  RopeTable& angles = rope_tables[table];
  if (angles.positions() < offset + options.seq_len) {  // grows by doubling while text is generated
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

AttentionShape Program::Impl::attention_shape(const AttentionOp& o) const {
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

void Program::Impl::plan_forward(int i, const AttentionOp& o) {
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
  const double flops =
      4.0 * double(rows) * double(options.seq_len + 1) / 2 * double(o.spec.heads * o.spec.head_dim);
  forward.push_back({timing("attention.forward"), Work{.flops = flops}, [=, this](Run& run) {
                       if (run.cache)
                         attend_with_cache(shape, run.cache, entry, q, k, v, y);
                       else
                         attention_fwd(shape, any(q), any(k), any(v), out(y),
                                       lse >= 0 ? floats(lse) : nullptr);
                     }});
}

void Program::Impl::attend_with_cache(AttentionShape shape, KvCache* cache, size_t entry,
                                      const View& q, const View& k, const View& v, const View& y) {
  require(options.batch == 1, "attention", "a cache serves one sequence, found a batch of ",
          options.batch);
  require(cache->length + rows <= cache->capacity, "attention", "the cache holds ", cache->capacity,
          " positions, position ", cache->length + rows, " was asked for");
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

void Program::Impl::plan_forward(int i, const GatedOp& o) {
  const int step = forward_step(i);
  const View gate = value[at(o.gate)], up = value[at(o.up)];
  const View y = value[at(o.out)] = make_view(graph.cols(o.out), dtype_of_output(o.out));
  for (const View& view : {gate, up, y}) touch(view, step);
  if (options.train && wants_gradient[at(o.out)])
    touch(gate, backward_step(i)), touch(up, backward_step(i));
  const int64_t cols = graph.cols(o.out);
  forward.push_back({timing("gated.forward"), moves(cols, {gate, up, y}), [=, this](Run&) {
                       glu_fwd(std::get<GatedOp>(op(i)).activation, rows, cols, any(gate), any(up),
                               out(y));
                     }});
}

void Program::Impl::plan_forward(int i, const AddOp& o) {
  const int step = forward_step(i);
  if (value[at(o.out)]) return touch_value(o.out, step);  // a product made it
  const View x = value[at(o.x)], y = value[at(o.y)],
             z = value[at(o.out)] = make_view(graph.cols(o.out), DType::kF32);
  for (const View& view : {x, y, z}) touch(view, step);
  const int64_t cols = graph.cols(o.out);
  forward.push_back({timing("add.forward"), moves(cols, {x, y, z}),
                     [=, this](Run&) { add(rows, cols, in(x), in(y), out(z)); }});
}

}  // namespace signround
