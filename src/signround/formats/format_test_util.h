// Random rounded layers, and packed tensors seen as a file would show them.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "signround/base/random.h"
#include "signround/formats/decode.h"
#include "signround/formats/format.h"

namespace signround::testing {

inline QuantizedLinear random_linear(QuantScheme scheme, int64_t out, int64_t in, uint64_t seed) {
  PythonRandom random(seed);
  QuantizedLinear linear;
  linear.scheme = scheme;
  linear.out = out;
  linear.in = in;
  linear.codes.resize(static_cast<size_t>(out * in));
  for (uint8_t& c : linear.codes) c = static_cast<uint8_t>(random.next_u32() >> (32 - scheme.bits));
  const auto groups = static_cast<size_t>(out * linear.groups());
  for (size_t k = 0; k < groups; ++k) {
    const float sign =
        scheme.symmetry == Symmetry::kFullRange && random.next_u32() % 2 ? -1.0f : 1.0f;
    linear.scales.push_back(sign *
                            round_to_f16(static_cast<float>(0.001 + 0.05 * random.uniform())));
    const uint32_t zero = random.next_u32() >> (32 - scheme.bits);
    linear.zeros.push_back(
        static_cast<uint8_t>(scheme.symmetry == Symmetry::kAsym ? zero : 1u << (scheme.bits - 1)));
  }
  return linear;
}

inline FormatLayer layer_of(const std::string& name, const QuantizedLinear& linear) {
  return {name, linear.scheme, linear.out, linear.in};
}

// A model of one layer, which is what the choice of a packing looks at.
inline FormatModel model_of(const FormatLayer& layer) {
  return {layer.scheme, {layer}, {"model.layers"}, {}};
}

inline RawLayer raw_layer(const std::string& name, const std::vector<PackedTensor>& tensors) {
  RawLayer raw;
  raw.name = name;
  for (const PackedTensor& t : tensors) {
    const RawTensor view{t.info, t.bytes};
    if (t.info.name == name + ".qweight") raw.qweight = view;
    if (t.info.name == name + ".qzeros") raw.qzeros = view;
    if (t.info.name == name + ".scales") raw.scales = view;
    if (t.info.name == name + ".g_idx") raw.g_idx = view;
  }
  return raw;
}

inline std::vector<float> weights_of(const QuantizedLinear& linear) {
  std::vector<float> weights(linear.codes.size());
  dequantize({linear, {}, 0, false}, weights.data());
  return weights;
}

}  // namespace signround::testing
