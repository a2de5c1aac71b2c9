#include "signround/formats/packed.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/formats/bitstream.h"

namespace signround::formats {
namespace {

// The writers store words as they lie in memory; a checkpoint is little-endian.
static_assert(std::endian::native == std::endian::little);

PackedTensor empty(TensorInfo info) {
  PackedTensor tensor{std::move(info), {}};
  tensor.bytes.resize(static_cast<size_t>(tensor.info.nbytes()));
  return tensor;
}

template <class T>
T* data_of(PackedTensor& tensor) {
  return reinterpret_cast<T*>(tensor.bytes.data());
}

float rounded(float scale, DType dtype) {
  if (dtype == DType::kF16) return round_to_f16(scale);
  return dtype == DType::kBF16 ? round_to_bf16(scale) : scale;
}

void check_packable(const char* where, const FormatLayer& layer, const QuantizedLinear& linear) {
  const std::string problems = joined(packing_problems(layer.scheme, layer.out, layer.in));
  require(problems.empty(), where, layer.name, ": ", problems);
  check_linear(where, layer, linear);
}

// (out, groups) f32 -> (groups, out) f16. The values are exact: check_linear has seen to it.
PackedTensor pack_scales(TensorInfo info, const QuantizedLinear& linear) {
  PackedTensor tensor = empty(std::move(info));
  auto* to = data_of<uint16_t>(tensor);
  const int64_t groups = linear.groups();
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t g = 0; g < groups; ++g)
      to[g * linear.out + o] = to_f16(linear.scales[o * groups + g]).bits;
  }
  return tensor;
}

// Zero points (out, groups), less `minus`, as codes (groups, out).
std::vector<uint8_t> transposed_zeros(const QuantizedLinear& linear, int minus) {
  const int64_t groups = linear.groups();
  std::vector<uint8_t> zeros(static_cast<size_t>(groups * linear.out));
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t g = 0; g < groups; ++g) {
      zeros[g * linear.out + o] = static_cast<uint8_t>(linear.zeros[o * groups + g] - minus);
    }
  }
  return zeros;
}

}  // namespace

std::vector<std::string> packing_problems(const QuantScheme& scheme, int64_t out, int64_t in) {
  std::vector<std::string> problems;
  if (scheme.levels != Levels::kUniform)
    problems.push_back(describe(scheme) + ": only integers can be packed; bnb holds NF4");
  if (scheme.bits != 2 && scheme.bits != 3 && scheme.bits != 4 && scheme.bits != 8) {
    problems.push_back(std::to_string(scheme.bits) + " bits: only 2, 3, 4 and 8 can be packed");
  }
  if (scheme.group_size == 0 || scheme.group_size < -1) {
    problems.push_back("group_size " + std::to_string(scheme.group_size) +
                       ": only -1 and positive sizes have groups");
  }
  if (in <= 0 || in % 32 != 0)
    problems.push_back("in " + std::to_string(in) + " is not a multiple of 32");
  if (out <= 0 || out % 32 != 0)
    problems.push_back("out " + std::to_string(out) + " is not a multiple of 32");
  if (scheme.scale_dtype != DType::kF16) {
    problems.push_back("scales of " + std::string(name_of(scheme.scale_dtype)) +
                       ": the format stores F16");
  }
  return problems;
}

std::string joined(const std::vector<std::string>& problems) {
  std::string text;
  for (const std::string& problem : problems) text += (text.empty() ? "" : "; ") + problem;
  return text;
}

void check_linear(const char* where, const FormatLayer& layer, const QuantizedLinear& linear) {
  require(linear.scheme == layer.scheme && linear.out == layer.out && linear.in == layer.in, where,
          layer.name, ": a rounded layer of ", linear.scheme.bits, " bits, group size ",
          linear.scheme.group_size, ", [", linear.out, ", ", linear.in, "], the plan says ",
          layer.scheme.bits, " bits, group size ", layer.scheme.group_size, ", [", layer.out, ", ",
          layer.in, "]");
  const int64_t groups = linear.groups();
  const auto size = [](const auto& v) { return static_cast<int64_t>(v.size()); };
  require(size(linear.codes) == layer.out * layer.in && size(linear.scales) == layer.out * groups &&
              size(linear.zeros) == layer.out * groups,
          where, layer.name, ": ", linear.codes.size(), " codes, ", linear.scales.size(),
          " scales and ", linear.zeros.size(), " zero points, expected ", layer.out * layer.in,
          " and twice ", layer.out * groups);
  require(all_codes_fit(linear.codes.data(), size(linear.codes), linear.scheme.max_code()), where,
          layer.name, ": a code is above ", linear.scheme.max_code());
  for (int64_t k = 0; k < layer.out * groups; ++k) {
    const float scale = linear.scales[k];
    require(std::isfinite(scale) && rounded(scale, linear.scheme.scale_dtype) == scale, where,
            layer.name, ": scale ", scale, " of row ", k / groups, ", group ", k % groups,
            " is not a finite ", name_of(linear.scheme.scale_dtype), " value");
    require(linear.zeros[k] <= linear.scheme.max_code(), where, layer.name, ": zero point ",
            int{linear.zeros[k]}, " of row ", k / groups, ", group ", k % groups, " is above ",
            linear.scheme.max_code());
    // Readers of symmetric checkpoints know this value and do not look.
    require(!is_symmetric(linear.scheme) || linear.zeros[k] == 1 << (linear.scheme.bits - 1), where,
            layer.name, ": zero point ", int{linear.zeros[k]}, " of row ", k / groups, ", group ",
            k % groups, ", a symmetric layer has ", 1 << (linear.scheme.bits - 1));
  }
}

void check_nf4(const char* where, const FormatLayer& layer, const Nf4Linear& linear) {
  require(linear.scheme == layer.scheme && linear.out == layer.out && linear.in == layer.in, where,
          layer.name, ": a rounded layer of ", describe(linear.scheme), ", [", linear.out, ", ",
          linear.in, "], the plan says ", describe(layer.scheme), ", [", layer.out, ", ", layer.in,
          "]");
  const auto size = [](const auto& v) { return static_cast<int64_t>(v.size()); };
  const int64_t blocks = linear.blocks();
  require(size(linear.codes) == layer.out * layer.in && size(linear.magnitudes) == blocks &&
              linear.nested.has_value() == linear.scheme.double_quant,
          where, layer.name, ": ", linear.codes.size(), " codes and ", linear.magnitudes.size(),
          " magnitudes, expected ", layer.out * layer.in, " and ", blocks,
          linear.scheme.double_quant ? ", these in 8 bits" : "");
  require(!linear.nested ||
              (size(linear.nested->codes) == blocks &&
               size(linear.nested->scales) == (blocks + kNf4NestedBlock - 1) / kNf4NestedBlock),
          where, layer.name, ": nested scales that do not fit ", blocks, " blocks");
  require(all_codes_fit(linear.codes.data(), size(linear.codes), 15), where, layer.name,
          ": a code is above 15");
  for (int64_t k = 0; k < blocks; ++k)
    require(std::isfinite(linear.magnitudes[k]), where, layer.name, ": the magnitude of block ", k,
            " is ", linear.magnitudes[k]);
}

DType weight_dtype(DType source) {
  return source == DType::kF32 || source == DType::kF16 ? source : DType::kBF16;
}

std::vector<TensorInfo> gptq_tensors(const FormatLayer& layer, GptqLayout layout) {
  const int bits = layer.scheme.bits;
  const int64_t groups = layer.scheme.groups(layer.in);
  std::vector<TensorInfo> tensors = {
      {layer.name + ".qweight", DType::kI32, {words_of(layer.in, bits), layer.out}},
      {layer.name + ".qzeros", DType::kI32, {groups, words_of(layer.out, bits)}},
      {layer.name + ".scales", DType::kF16, {groups, layer.out}},
  };
  if (layout.g_idx) tensors.push_back({layer.name + ".g_idx", DType::kI32, {layer.in}});
  return tensors;
}

std::vector<PackedTensor> gptq_pack(const char* where, const FormatLayer& layer,
                                    const QuantizedLinear& linear, GptqLayout layout) {
  check_packable(where, layer, linear);
  const int bits = layer.scheme.bits;
  const int64_t groups = linear.groups();
  const int minus = layout.zeros_minus_one ? 1 : 0;
  for (size_t k = 0; k < linear.zeros.size(); ++k) {
    require(linear.zeros[k] >= minus, where, layer.name, ": zero point 0 of row ", k / groups,
            ", group ", k % groups,
            "; GPTQ v1 stores zero - 1 and needs at least 1 (prepare() makes it so)");
  }
  const std::vector<TensorInfo> infos = gptq_tensors(layer, layout);
  std::vector<PackedTensor> tensors;
  tensors.push_back(empty(infos[0]));
  pack_columns(linear.codes.data(), layer.out, layer.in, bits, data_of<uint32_t>(tensors[0]));
  tensors.push_back(empty(infos[1]));
  const std::vector<uint8_t> zeros = transposed_zeros(linear, minus);
  for (int64_t g = 0; g < groups; ++g) {
    pack_row(zeros.data() + g * layer.out, layer.out, bits,
             data_of<uint32_t>(tensors[1]) + g * words_of(layer.out, bits));
  }
  tensors.push_back(pack_scales(infos[2], linear));
  if (layout.g_idx) {
    tensors.push_back(empty(infos[3]));
    const int64_t group = layer.scheme.group(layer.in);
    for (int64_t i = 0; i < layer.in; ++i)
      data_of<int32_t>(tensors[3])[i] = static_cast<int32_t>(i / group);
  }
  return tensors;
}

int64_t flip_zero_points_of_zero(QuantizedLinear& linear) {
  const int64_t groups = linear.groups(), group = linear.scheme.group(linear.in);
  const int max = linear.scheme.max_code();
  int64_t flipped = 0;
  for (int64_t k = 0; k < linear.out * groups; ++k) {
    if (linear.zeros[k] != 0) continue;
    ++flipped;
    linear.zeros[k] = static_cast<uint8_t>(max);
    linear.scales[k] = -linear.scales[k];
    const int64_t first = k % groups * group, last = std::min(linear.in, first + group);
    uint8_t* row = linear.codes.data() + k / groups * linear.in;
    for (int64_t i = first; i < last; ++i) row[i] = static_cast<uint8_t>(max - row[i]);
  }
  return flipped;
}

std::vector<TensorInfo> awq_tensors(const FormatLayer& layer) {
  const int64_t groups = layer.scheme.groups(layer.in);
  return {{layer.name + ".qweight", DType::kI32, {layer.in, layer.out / 8}},
          {layer.name + ".qzeros", DType::kI32, {groups, layer.out / 8}},
          {layer.name + ".scales", DType::kF16, {groups, layer.out}}};
}

std::vector<PackedTensor> awq_pack(const char* where, const FormatLayer& layer,
                                   const QuantizedLinear& linear) {
  check_packable(where, layer, linear);
  const std::vector<TensorInfo> infos = awq_tensors(layer);
  std::vector<PackedTensor> tensors;
  tensors.push_back(empty(infos[0]));
  pack_awq(linear.codes.data(), layer.out, layer.in, data_of<uint32_t>(tensors[0]));
  tensors.push_back(empty(infos[1]));
  pack_awq(linear.zeros.data(), layer.out, linear.groups(), data_of<uint32_t>(tensors[1]));
  tensors.push_back(pack_scales(infos[2], linear));
  return tensors;
}

bool is_symmetric(const QuantScheme& scheme) { return scheme.symmetry != Symmetry::kAsym; }

bool all_symmetric(const FormatModel& model) {
  return is_symmetric(model.scheme) &&
         std::all_of(model.layers.begin(), model.layers.end(), [](const FormatLayer& layer) {
           return is_symmetric(layer.scheme) || layer.scheme.bits >= 16 ||
                  !packing_problems(layer.scheme, layer.out, layer.in).empty();
         });
}

void add_tuning(const TuningInfo& tuning, nlohmann::ordered_json& config) {
  const TuningInfo defaults;
  const double default_lr = tuning.iters > 0 ? 1.0 / static_cast<double>(tuning.iters) : 5e-3;
  const auto add = [&](const char* key, auto value, auto standard) {
    if (value != standard) config[key] = value;
  };
  add("batch_size", tuning.batch_size, defaults.batch_size);
  add("enable_minmax_tuning", tuning.enable_minmax_tuning, true);
  add("enable_norm_bias_tuning", tuning.enable_norm_bias_tuning, false);
  add("enable_quanted_input", tuning.enable_quanted_input, true);
  add("gradient_accumulate_steps", tuning.gradient_accumulate_steps,
      defaults.gradient_accumulate_steps);
  add("iters", tuning.iters, defaults.iters);
  if (tuning.lr != 0) add("lr", tuning.lr, default_lr);
  if (tuning.minmax_lr != 0) add("minmax_lr", tuning.minmax_lr, default_lr);
  add("nsamples", tuning.nsamples, defaults.nsamples);
  add("seqlen", tuning.seqlen, defaults.seqlen);
}

std::string json_text(const nlohmann::ordered_json& config) { return config.dump(2) + "\n"; }

std::string regex_of(std::string_view name) {
  std::string text;
  for (char c : name) {
    if (std::string_view(".^$*+?()[]{}|\\").find(c) != std::string_view::npos) text += '\\';
    text += c;
  }
  return text;
}

}  // namespace signround::formats
