#include "signround/graph/weights.h"

#include <algorithm>

#include "signround/base/error.h"

namespace signround {

BlockWeights::BlockWeights(const Graph& graph, DType compute, Device device,
                           const std::set<std::string>& packed)
    : device_(device), compute_(compute) {
  for (const Op& op : graph.ops()) {
    if (const auto* linears = std::get_if<LinearsOp>(&op)) {
      Group group;
      group.in = linears->params[0].in;
      for (const auto& p : linears->params) group.out += p.out, group.has_bias |= p.bias;
      group.stride = row_stride(group.in, compute, device);
      const bool dense = std::any_of(linears->params.begin(), linears->params.end(),
                                     [&](const LinearParam& p) { return !packed.count(p.name); });
      if (dense) group.weight = Buffer(group.out * group.stride * size_of(compute), device);
      if (group.has_bias) group.bias = Buffer(group.out * 4, device);
      groups_.push_back(std::move(group));
    } else if (const auto* norm = std::get_if<NormOp>(&op)) {
      norms_.emplace_back(norm->weight.size * 4, device);
    }
  }
  rename(graph);
}

void BlockWeights::upload(const BlockWeights& from) {
  require(device_.is_cuda() && from.groups_.size() == groups_.size() &&
              from.norms_.size() == norms_.size(),
          "block weights", "internal: an upload from another block");
  const auto copy = [](Buffer& to, const Buffer& source) {
    require(to.bytes() == source.bytes(), "block weights", "internal: an upload of another layout");
    if (to.bytes() > 0) copy_to_device(to.data(), source.data(), to.bytes());
  };
  for (size_t g = 0; g < groups_.size(); ++g) {
    copy(groups_[g].weight, from.groups_[g].weight);
    copy(groups_[g].bias, from.groups_[g].bias);
  }
  for (size_t n = 0; n < norms_.size(); ++n) copy(norms_[n], from.norms_[n]);
}

void BlockWeights::rename(const Graph& graph) {
  linears_.clear();
  vectors_.clear();
  size_t group = 0, norm = 0;
  for (const Op& op : graph.ops()) {
    if (const auto* linears = std::get_if<LinearsOp>(&op)) {
      int64_t row = 0;
      for (const auto& p : linears->params) {
        linears_[p.name] = {group, row, p};
        if (p.bias)
          vectors_[p.name + ".bias"] = {.norm = false, .index = group, .row = row, .size = p.out};
        row += p.out;
      }
      ++group;
    } else if (const auto* o = std::get_if<NormOp>(&op)) {
      vectors_[o->weight.name] = {
          .norm = true, .index = norm++, .row = 0, .size = o->weight.size};
    }
  }
}

void BlockWeights::allocate_gradients(DType dtype) {
  gradient_dtype_ = dtype;
  for (Group& group : groups_) {
    const int64_t bytes = group.out * group.in * size_of(dtype);
    if (group.gradient.bytes() == bytes) continue;
    group.gradient = Buffer();
    group.gradient = Buffer(bytes, device_);
  }
}

void BlockWeights::allocate_norm_gradients() {
  if (norm_gradients_.empty())
    for (const Buffer& norm : norms_)
      norm_gradients_.emplace_back(norm.bytes(), device_);
}

void BlockWeights::allocate_bias_gradients() {
  for (Group& group : groups_)
    if (group.has_bias && !group.bias_gradient.data()) group.bias_gradient = Buffer(group.out * 4, device_);
}

WeightView BlockWeights::weight(std::string_view linear_name) {
  const auto found = linears_.find(std::string(linear_name));
  require(found != linears_.end(), "block weights", "no linear layer ", linear_name,
          " in this block");
  const Place& place = found->second;
  Group& group = groups_[place.group];
  const int64_t offset = place.row * group.stride;
  RowsAny gradient;
  if (group.gradient.data())
    gradient = {group.gradient.as<char>() + place.row * group.in * size_of(gradient_dtype_),
                gradient_dtype_, group.in};
  return {.data = group.weight.as<char>() + offset * size_of(compute_),
          .dtype = compute_,
          .out = place.param.out,
          .in = group.in,
          .stride = group.stride,
          .gradient = gradient};
}

const BlockWeights::VectorPlace& BlockWeights::place_of(std::string_view vector) const {
  const auto found = vectors_.find(std::string(vector));
  require(found != vectors_.end(), "block weights", "no parameter ", vector, " in this block");
  return found->second;
}

std::span<float> BlockWeights::vector(std::string_view name) {
  const VectorPlace& place = place_of(name);
  Buffer& all = place.norm ? norms_[place.index] : groups_[place.index].bias;
  return floats(all).subspan(static_cast<size_t>(place.row), static_cast<size_t>(place.size));
}

std::span<float> BlockWeights::vector_gradient(std::string_view name) {
  const VectorPlace& place = place_of(name);
  const auto all = place.norm ? norm_gradient(place.index) : bias_gradient(place.index);
  return all.empty() ? all
                     : all.subspan(static_cast<size_t>(place.row), static_cast<size_t>(place.size));
}

void BlockWeights::zero_vector_gradients() {
  const auto zero = [&](Buffer& gradient) {
    if (device_.is_cuda() && gradient.bytes() > 0)
      zero_on_device(gradient.data(), gradient.bytes());
    else
      std::ranges::fill(floats(gradient), 0.0f);
  };
  for (Buffer& gradient : norm_gradients_) zero(gradient);
  for (Group& group : groups_) zero(group.bias_gradient);
}

int64_t BlockWeights::bytes_needed(const Graph& graph, DType compute,
                                   std::optional<DType> gradients, Device device) {
  int64_t bytes = gradients ? graph.num_weights() * size_of(*gradients) : 0;
  for (const auto& p : graph.linear_params())
    bytes += p.out * row_stride(p.in, compute, device) * size_of(compute);
  for (const auto& v : graph.vector_params()) bytes += v.size * 4;
  return bytes;
}

}  // namespace signround
