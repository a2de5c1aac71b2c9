#include <algorithm>

#include "signround/base/error.h"
#include "signround/graph/program_impl.h"
#include "signround/ops/activation.h"
#include "signround/ops/add.h"
#include "signround/ops/bias.h"
#include "signround/ops/convert.h"

namespace signround {

void Program::Impl::plan_backward_pass() {
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
bool Program::Impl::receive(int i, Value v, bool narrow) {
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
  require(narrow || d.dtype == DType::kF32, "program", "internal: a gradient in ", name_of(d.dtype),
          " cannot be added to");
  touch(d, backward_step(i));
  return accumulate;
}

// Can it give a gradient in the compute dtype?
bool Program::Impl::writes_narrow(int i) const {
  if (std::holds_alternative<LinearsOp>(op(i)))
    return rounds(columns_of(std::get<LinearsOp>(op(i))));
  return !std::holds_alternative<AddOp>(op(i));
}

// All outputs' gradients side by side, in the compute dtype if every one is written once by an op
// that can do so.
Program::Impl::View Program::Impl::slice_of_fused_gradient(int made_by, const LinearsOp& linears,
                                                           Value v) {
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

void Program::Impl::plan_backward(int i, const LinearsOp& o) {
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

void Program::Impl::plan_backward(int i, const NormOp& o) {
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

void Program::Impl::plan_backward(int i, const RopeOp& o) {
  const View d_x = gradient[at(o.out)];  // that of o.x too: see receive
  touch(d_x, backward_step(i));
  const size_t table = count_before<RopeOp>(i);
  const HeadShape shape{rows, o.heads, o.head_dim};
  backward.push_back({timing("rope.backward"), moves(shape.cols(), {d_x, d_x}),
                      [=, this](Run&) { rotate(table, i, shape, 0, any(d_x), out(d_x), true); }});
}

void Program::Impl::plan_backward(int i, const AttentionOp& o) {
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
                        attention_bwd(shape, any(q), any(k), any(v), any(y), floats(lse), any(d_y),
                                      wanted(d_q), wanted(d_k), wanted(d_v));
                      }});
}

void Program::Impl::plan_backward(int i, const GatedOp& o) {
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
void Program::Impl::plan_backward(int i, const AddOp& o) {
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

}  // namespace signround
