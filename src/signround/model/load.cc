#include "signround/model/load.h"

#include <algorithm>
#include <cstring>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/ops/convert.h"

namespace signround {
namespace {

void check_shape(const Checkpoint& checkpoint, const std::string& name,
                 const std::vector<int64_t>& expected) {
  const TensorInfo& info = checkpoint.at(name);
  if (info.shape != expected)
    fail(ErrorKind::kCorruptFile, "load", name, " in ", checkpoint.source(), " has shape ",
         shape_text(info.shape), ", config.json asks for ", shape_text(expected));
  if (!is_float(info.dtype))
    fail(ErrorKind::kUnsupported, "load", name, " in ", checkpoint.source(), " is ",
         name_of(info.dtype), ", expected floats");
}

void load_linear(const Checkpoint& checkpoint, const LinearParam& param, const WeightView& place) {
  const std::string name = param.name + ".weight";
  if (place.dtype == DType::kF32) {
    parallel_for(param.out, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        checkpoint.read_f32(name, r, 1, static_cast<float*>(place.data) + r * place.stride);
    });
    return;
  }
  constexpr int64_t kRows = 16;
  parallel_for(param.out, kRows, [&](int64_t begin, int64_t end) {
    std::vector<float> rows(static_cast<size_t>(kRows * param.in));
    for (int64_t r = begin; r < end; r += kRows) {
      const int64_t n = std::min(kRows, end - r);
      checkpoint.read_f32(name, r, n, rows.data());
      convert(n, param.in, {rows.data(), DType::kF32, param.in},
              {static_cast<BF16*>(place.data) + r * place.stride, place.dtype, place.stride});
    }
  });
}

}  // namespace

void check_weights(const Checkpoint& checkpoint, const Graph& graph) {
  for (const LinearParam& param : graph.linear_params()) {
    check_linear(checkpoint, param);
    if (!param.bias && checkpoint.find(param.name + ".bias"))
      fail(ErrorKind::kUnsupported, "load", param.name, ".bias is in ", checkpoint.source(),
           " but config.json says that this layer has no bias");
  }
  for (const VectorParam& param : graph.vector_params())
    check_shape(checkpoint, param.name, {param.size});
}

void load_weights(const Checkpoint& checkpoint, const Graph& graph, BlockWeights& weights,
                  const std::set<std::string>& filled) {
  check_weights(checkpoint, graph);
  for (const LinearParam& param : graph.linear_params())
    if (!filled.count(param.name)) load_linear(checkpoint, param, weights.weight(param.name));
  for (const VectorParam& param : graph.vector_params())
    checkpoint.read_f32(param.name, 0, param.size, weights.vector(param.name).data());
}

void check_linear(const Checkpoint& checkpoint, const LinearParam& param) {
  check_shape(checkpoint, param.name + ".weight", {param.out, param.in});
}

std::vector<float> read_linear(const Checkpoint& checkpoint, const LinearParam& param) {
  const std::string name = param.name + ".weight";
  check_shape(checkpoint, name, {param.out, param.in});
  std::vector<float> rows(static_cast<size_t>(param.out * param.in));
  parallel_for(param.out, 16, [&](int64_t begin, int64_t end) {
    checkpoint.read_f32(name, begin, end - begin, rows.data() + begin * param.in);
  });
  return rows;
}

}  // namespace signround
