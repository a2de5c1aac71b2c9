#include "signround/graph/folding.h"

#include <numeric>
#include <optional>

namespace signround {
namespace {

// Readers of each value; the block's output has one more.
std::vector<int> count_readers(const Graph& graph) {
  std::vector<int> readers(static_cast<size_t>(graph.num_values()));
  for (const Op& op : graph.ops())
    for (const Value& value : inputs_of(op)) ++readers[static_cast<size_t>(value.id)];
  ++readers[static_cast<size_t>(graph.output().id)];
  return readers;
}

const Op* producer_of(const Graph& graph, Value value) {
  for (const Op& op : graph.ops())
    for (const Value& out : outputs_of(op))
      if (out.id == value.id) return &op;
  return nullptr;
}

// The layer whose rows scale `value` alone. Empty: there is none.
std::optional<LinearParam> layer_of(const Graph& graph, Value value) {
  const Op* op = producer_of(graph, value);
  const auto* linears = op == nullptr ? nullptr : std::get_if<LinearsOp>(op);
  if (linears == nullptr) return std::nullopt;
  for (size_t i = 0; i < linears->out.size(); ++i)
    if (linears->out[i].id == value.id) return linears->params[i];
  return std::nullopt;
}

}  // namespace

std::vector<Folding> foldings(const Graph& graph) {
  const std::vector<int> readers = count_readers(graph);
  const auto only_here = [&](Value value) { return readers[static_cast<size_t>(value.id)] == 1; };
  std::vector<Folding> all;
  for (const Op& op : graph.ops()) {
    const auto* linears = std::get_if<LinearsOp>(&op);
    if (linears == nullptr) continue;
    Folding f;
    for (const auto& param : linears->params) f.readers.push_back(param.name);
    f.in = linears->params[0].in;
    const auto through = [&](Value value, const char* what) {
      const auto layer = layer_of(graph, value);
      if (!layer || !only_here(value)) {
        f.why_not = std::string(what) + " is no linear layer's output, or is read elsewhere too";
        return;
      }
      f.producer = layer->name, f.has_bias = layer->bias, f.channels = layer->out;
    };
    const Op* made = producer_of(graph, linears->x);
    if (made == nullptr || !only_here(linears->x)) {
      f.why_not = made == nullptr ? "its input is the block's" : "its input is read elsewhere too";
    } else if (const auto* norm = std::get_if<NormOp>(made)) {
      if (norm->heads != 1) f.why_not = "the norm in front of it has one weight for several heads";
      f.producer = norm->weight.name, f.is_norm = true, f.offset = norm->weight_offset;
      f.channels = norm->weight.size;
    } else if (const auto* attention = std::get_if<AttentionOp>(made)) {
      through(attention->v, "the attention's value");
      // Column d of query head h is column d of value head h / (heads / kv_heads).
      const AttentionSpec& spec = attention->spec;
      for (int64_t c = 0; c < f.in && f.why_not.empty(); ++c)
        f.channel.push_back(c / spec.head_dim / (spec.heads / spec.kv_heads) * spec.head_dim +
                            c % spec.head_dim);
    } else if (const auto* gated = std::get_if<GatedOp>(made)) {
      through(gated->up, "the gated product's factor");
    } else {
      f.why_not = "its input comes from " + name_of(*made);
    }
    if (f.why_not.empty() && f.channel.empty()) {
      f.channel.resize(static_cast<size_t>(f.in));
      std::iota(f.channel.begin(), f.channel.end(), int64_t{0});
    }
    all.push_back(std::move(f));
  }
  return all;
}

}  // namespace signround
