#include "signround/graph/graph.h"

#include <algorithm>
#include <type_traits>

#include "signround/base/error.h"

namespace signround {

Value Graph::make(int64_t cols) {
  cols_.push_back(cols);
  return {static_cast<int>(cols_.size()) - 1};
}

void Graph::check(Value value, const char* op) const {
  require(value.id >= 0 && value.id < num_values(), op, "value ", value.id,
          " was not recorded in this graph");
}

Value Graph::input(int64_t cols) {
  require(input_.id < 0, "graph", "a block has one input");
  return input_ = make(cols);
}

std::vector<Value> Graph::linears(Value x, std::vector<LinearParam> params) {
  check(x, "linears");
  LinearsOp op{.x = x, .params = std::move(params), .out = {}};
  for (const auto& p : op.params) {
    require(p.in == cols(x), "linears", p.name, " reads ", p.in, " columns, its input has ",
            cols(x));
    op.out.push_back(make(p.out));
  }
  ops_.push_back(op);
  return op.out;
}

Value Graph::rms_norm(Value x, VectorParam weight, float eps, int64_t heads, float weight_offset) {
  check(x, "rms_norm");
  require(weight.size * heads == cols(x), "rms_norm", weight.name, " has ", weight.size,
          " values for ", heads, " parts of ", cols(x), " columns");
  const Value out = make(cols(x));
  ops_.push_back(NormOp{x, std::move(weight), eps, weight_offset, heads, out});
  return out;
}

Value Graph::rope(Value x, int64_t heads, int64_t head_dim, const RopeSpec& spec) {
  check(x, "rope");
  require(heads * head_dim == cols(x), "rope", heads, " heads of ", head_dim, " in ", cols(x),
          " columns");
  require(2 * static_cast<int64_t>(spec.inv_freq.size()) <= head_dim, "rope", spec.inv_freq.size(),
          " frequencies for heads of ", head_dim);
  const Value out = make(cols(x));
  ops_.push_back(RopeOp{x, heads, head_dim, spec, out});
  return out;
}

Value Graph::attention(Value q, Value k, Value v, const AttentionSpec& spec) {
  for (Value value : {q, k, v}) check(value, "attention");
  require(cols(q) == spec.heads * spec.head_dim && cols(k) == spec.kv_heads * spec.head_dim &&
              cols(v) == cols(k),
          "attention", "q, k, v have ", cols(q), ", ", cols(k), ", ", cols(v), " columns for ",
          spec.heads, " and ", spec.kv_heads, " heads of ", spec.head_dim);
  require(spec.kv_heads > 0 && spec.heads % spec.kv_heads == 0, "attention", spec.heads,
          " heads cannot share ", spec.kv_heads, " key heads evenly");
  const Value out = make(cols(q));
  ops_.push_back(AttentionOp{q, k, v, spec, out});
  return out;
}

Value Graph::gated(Activation activation, Value gate, Value up) {
  check(gate, "gated"), check(up, "gated");
  require(cols(gate) == cols(up), "gated", "gate has ", cols(gate), " columns, up has ", cols(up));
  const Value out = make(cols(gate));
  ops_.push_back(GatedOp{gate, up, activation, out});
  return out;
}

Value Graph::add(Value x, Value y) {
  check(x, "add"), check(y, "add");
  require(cols(x) == cols(y), "add", cols(x), " and ", cols(y), " columns");
  const Value out = make(cols(x));
  ops_.push_back(AddOp{x, y, out});
  return out;
}

void Graph::output(Value value) {
  check(value, "graph");
  require(output_.id < 0, "graph", "a block has one output");
  output_ = value;
}

std::vector<LinearParam> Graph::linear_params() const {
  std::vector<LinearParam> params;
  for (const Op& op : ops_)
    if (const auto* linears = std::get_if<LinearsOp>(&op))
      params.insert(params.end(), linears->params.begin(), linears->params.end());
  return params;
}

std::vector<VectorParam> Graph::vector_params() const {
  std::vector<VectorParam> params;
  for (const Op& op : ops_) {
    if (const auto* norm = std::get_if<NormOp>(&op)) params.push_back(norm->weight);
    if (const auto* linears = std::get_if<LinearsOp>(&op))
      for (const auto& p : linears->params)
        if (p.bias) params.push_back({p.name + ".bias", p.out});
  }
  return params;
}

int64_t Graph::num_weights() const {
  int64_t n = 0;
  for (const auto& p : linear_params()) n += p.out * p.in;
  return n;
}

namespace {

bool same(Value a, Value b) { return a.id == b.id; }
bool same(const RopeSpec& a, const RopeSpec& b) {
  return a.inv_freq == b.inv_freq && a.factor == b.factor && a.interleaved == b.interleaved;
}
bool same(const AttentionSpec& a, const AttentionSpec& b) {
  return a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
         a.scale == b.scale && a.window == b.window && a.softcap == b.softcap;
}

bool same(const LinearsOp& a, const LinearsOp& b) {
  const auto alike = [](const LinearParam& p, const LinearParam& q) {
    return p.out == q.out && p.in == q.in && p.bias == q.bias;
  };
  return same(a.x, b.x) && std::equal(a.params.begin(), a.params.end(), b.params.begin(),
                                      b.params.end(), alike);
}
bool same(const NormOp& a, const NormOp& b) {
  return same(a.x, b.x) && a.weight.size == b.weight.size && a.eps == b.eps &&
         a.weight_offset == b.weight_offset && a.heads == b.heads;
}
bool same(const RopeOp& a, const RopeOp& b) {
  return same(a.x, b.x) && a.heads == b.heads && a.head_dim == b.head_dim && same(a.spec, b.spec);
}
bool same(const AttentionOp& a, const AttentionOp& b) {
  return same(a.q, b.q) && same(a.k, b.k) && same(a.v, b.v) && same(a.spec, b.spec);
}
bool same(const GatedOp& a, const GatedOp& b) {
  return same(a.gate, b.gate) && same(a.up, b.up) && a.activation == b.activation;
}
bool same(const AddOp& a, const AddOp& b) { return same(a.x, b.x) && same(a.y, b.y); }

}  // namespace

// Outputs are numbered in the order of recording, so that equal inputs mean equal values.
bool same_shape(const Graph& a, const Graph& b) {
  const auto alike = [](const Op& x, const Op& y) {
    return x.index() == y.index() &&
           std::visit(
               [&](const auto& typed) { return same(typed, std::get<std::decay_t<decltype(typed)>>(y)); },
               x);
  };
  return a.num_values() == b.num_values() && same(a.input(), b.input()) &&
         same(a.output(), b.output()) && a.cols(a.input()) == b.cols(b.input()) &&
         std::equal(a.ops().begin(), a.ops().end(), b.ops().begin(), b.ops().end(), alike);
}

std::vector<Value> inputs_of(const Op& op) {
  struct Visitor {
    std::vector<Value> operator()(const LinearsOp& o) { return {o.x}; }
    std::vector<Value> operator()(const NormOp& o) { return {o.x}; }
    std::vector<Value> operator()(const RopeOp& o) { return {o.x}; }
    std::vector<Value> operator()(const AttentionOp& o) { return {o.q, o.k, o.v}; }
    std::vector<Value> operator()(const GatedOp& o) { return {o.gate, o.up}; }
    std::vector<Value> operator()(const AddOp& o) { return {o.x, o.y}; }
  };
  return std::visit(Visitor{}, op);
}

std::vector<Value> outputs_of(const Op& op) {
  return std::visit(
      [](const auto& o) -> std::vector<Value> {
        if constexpr (requires { o.out.size(); })
          return o.out;
        else
          return {o.out};
      },
      op);
}

std::string name_of(const Op& op) {
  static constexpr const char* kNames[] = {"linears",   "rms_norm", "rope",
                                           "attention", "gated",    "add"};
  return kNames[op.index()];
}

}  // namespace signround
