#include "signround/infer/device_weights.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>

#include "signround/formats/decoded_checkpoint.h"
#include "signround/model/load.h"

namespace signround {
namespace {

// What packed_matmul.h can hold, as far as headers say it.
bool may_stay_packed(const QuantizedView* view) {
  if (view == nullptr || view->packing == Packing::kBnb ||
      view->scheme.levels != Levels::kUniform || view->scheme.scale_dtype == DType::kF32)
    return false;
  const int64_t group = view->scheme.group(view->in);
  return group == view->in || std::gcd(group, int64_t{128}) >= 16;
}

kernels::PackedSpec spec_of(const QuantizedLinear& q) {
  return {.out = q.out, .in = q.in, .bits = q.scheme.bits, .group = q.scheme.group(q.in)};
}

// The layers of one LinearsOp, decoded; nullopt: one of them cannot stay packed.
std::optional<std::vector<QuantizedLinear>> decode_layers(const QuantizedCheckpoint& checkpoint,
                                                          const LinearsOp& op) {
  for (const LinearParam& param : op.params)
    if (!may_stay_packed(checkpoint.quantized(param.name))) return std::nullopt;
  std::vector<QuantizedLinear> layers;
  for (const LinearParam& param : op.params) {
    DecodedLinear decoded = checkpoint.decode(param.name);
    if (!decoded.group_of.empty()) return std::nullopt;  // act-order
    layers.push_back(std::move(decoded.linear));
  }
  return layers;
}

void append(QuantizedLinear& to, const QuantizedLinear& from) {
  to.out += from.out;
  to.codes.insert(to.codes.end(), from.codes.begin(), from.codes.end());
  to.scales.insert(to.scales.end(), from.scales.begin(), from.scales.end());
  to.zeros.insert(to.zeros.end(), from.zeros.begin(), from.zeros.end());
}

std::vector<BlockWeights::Group::Packed> pack(std::vector<QuantizedLinear> layers, Device device) {
  const auto alike = [&](const QuantizedLinear& q) {
    return q.scheme.bits == layers[0].scheme.bits && q.groups() == layers[0].groups() &&
           q.scheme.group(q.in) == layers[0].scheme.group(q.in) &&
           q.scheme.scale_dtype == layers[0].scheme.scale_dtype;
  };
  if (std::all_of(layers.begin(), layers.end(), alike)) {
    for (size_t i = 1; i < layers.size(); ++i) append(layers[0], layers[i]);
    layers.resize(1);
  }
  const DeviceScope scope(device);
  std::vector<BlockWeights::Group::Packed> packed;
  int64_t row = 0;
  for (const QuantizedLinear& q : layers) {
    packed.push_back(
        {row, kernels::PackedWeight(spec_of(q), q.codes.data(), q.scales.data(), q.zeros.data())});
    row += q.out;
  }
  return packed;
}

}  // namespace

std::unique_ptr<BlockWeights> GenerationWeights::load(const Graph& graph) {
  const auto release = [&] {
    for (const auto& param : graph.linear_params()) checkpoint_.release(param.name + ".weight");
  };
  if (!device_.is_cuda()) {
    auto weights = std::make_unique<BlockWeights>(graph, compute_);
    load_weights(checkpoint_, graph, *weights);
    release();
    return weights;
  }

  check_weights(checkpoint_, graph);
  const QuantizedCheckpoint* quantized =
      compute_ == DType::kBF16 ? as_quantized(checkpoint_) : nullptr;
  std::vector<std::vector<BlockWeights::Group::Packed>> groups;  // of each LinearsOp
  std::vector<bool> packed;
  std::set<std::string> names;  // of packed layers
  for (const Op& op : graph.ops()) {
    const auto* linears = std::get_if<LinearsOp>(&op);
    if (linears == nullptr) continue;
    groups.emplace_back();
    if (quantized != nullptr)
      if (auto layers = decode_layers(*quantized, *linears))
        groups.back() = pack(std::move(*layers), device_);
    packed.push_back(!groups.back().empty());
    if (packed.back())
      for (const LinearParam& param : linears->params) names.insert(param.name);
  }
  auto weights = std::make_unique<BlockWeights>(graph, compute_, device_, names);
  stage(graph, packed, names);
  {
    const DeviceScope scope(device_);
    weights->upload(*staging_);
    synchronize();
  }
  for (size_t i = 0; i < groups.size(); ++i) weights->group(i).packed = std::move(groups[i]);
  release();
  return weights;
}

void GenerationWeights::stage(const Graph& graph, const std::vector<bool>& packed,
                              const std::set<std::string>& names) {
  if (staging_ && packed == packed_ && same_shape(graph_, graph)) {
    staging_->rename(graph);
  } else {
    staging_.reset();
    staging_ =
        std::make_unique<BlockWeights>(graph, compute_, Device{Device::Kind::kPinned, 0}, names);
    graph_ = graph;
    packed_ = packed;
  }
  load_weights(checkpoint_, graph, *staging_, names);
}

}  // namespace signround
