#include "signround/graph/join.h"

#include "signround/base/error.h"

namespace signround {
namespace {

// Records the operations of one graph into another.
class Recorder {
 public:
  Recorder(const Graph& from, Value input, Graph& into)
      : into_(into), values_(static_cast<size_t>(from.num_values())) {
    at(from.input()) = input;
    for (const Op& op : from.ops()) std::visit([this](const auto& o) { record(o); }, op);
  }
  Value operator()(Value value) { return at(value); }

 private:
  Value& at(Value value) { return values_[static_cast<size_t>(value.id)]; }
  void record(const LinearsOp& o) {
    const auto out = into_.linears(at(o.x), o.params);
    for (size_t i = 0; i < out.size(); ++i) at(o.out[i]) = out[i];
  }
  void record(const NormOp& o) {
    at(o.out) = into_.rms_norm(at(o.x), o.weight, o.eps, o.heads, o.weight_offset);
  }
  void record(const RopeOp& o) { at(o.out) = into_.rope(at(o.x), o.heads, o.head_dim, o.spec); }
  void record(const AttentionOp& o) {
    at(o.out) = into_.attention(at(o.q), at(o.k), at(o.v), o.spec);
  }
  void record(const GatedOp& o) { at(o.out) = into_.gated(o.activation, at(o.gate), at(o.up)); }
  void record(const AddOp& o) { at(o.out) = into_.add(at(o.x), at(o.y)); }

  Graph& into_;
  std::vector<Value> values_;  // of `into`, by the numbers of `from`
};

}  // namespace

Graph join(std::span<const Graph> parts) {
  require(!parts.empty(), "graph", "no blocks to join");
  Graph all;
  Value last = all.input(parts[0].cols(parts[0].input()));
  for (const Graph& part : parts) {
    require(part.cols(part.input()) == all.cols(last), "graph", "a block gives ", all.cols(last),
            " columns, the next one takes ", part.cols(part.input()));
    Recorder recorder(part, last, all);
    last = recorder(part.output());
  }
  all.output(last);
  return all;
}

}  // namespace signround
