// How a weight matrix is rounded: bits, groups and grid. Knows no file format.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "signround/tensor/dtype.h"

namespace signround {

// docs/glossary.md has the formulas; they are those of AutoRound's int_sym, int_asym and int_sym_gptq.
enum class Symmetry : uint8_t {
  kFullRange,  // signed scale, codes -2^(b-1) .. 2^(b-1)-1; the largest magnitude of a group sits on -2^(b-1)
  kAsym,       // positive scale and an integer zero point
  kClassic,    // positive scale, zero point 2^(b-1): what GPTQ calls symmetric
};

// What codes stand for, before they are multiplied by a scale.
enum class Levels : uint8_t {
  kUniform,  // code - zero point
  kNf4,      // 16 quantiles of a normal distribution (quant/nf4.h)
};

struct QuantScheme {
  int bits = 4;              // 2, 3, 4 or 8; 16 means that the layer is left as it is
  int64_t group_size = 128;  // weights along the input that share one scale; -1: a whole row
  Symmetry symmetry = Symmetry::kFullRange;
  DType scale_dtype = DType::kF16;  // scales are rounded to it before they are used; kF16, kBF16 or kF32
  // kNf4: 4 bits; groups ("blocks") run over the flattened matrix, not along rows; no zero points.
  Levels levels = Levels::kUniform;
  bool double_quant = false;  // kNf4: scales are stored in 8 bits, with scales of their own

  // Weights per group in a row of `in` weights: group_size, or `in` where group_size is -1 or larger than the row.
  int64_t group(int64_t in) const { return group_size <= 0 || group_size > in ? in : group_size; }
  int64_t groups(int64_t in) const { return (in + group(in) - 1) / group(in); }  // the last one may be short
  int max_code() const { return (1 << bits) - 1; }
  // Smallest magnitude of a scale after rounding to scale_dtype: 1e-5, or 1e-8 for f32.
  float scale_floor() const { return scale_dtype == DType::kF32 ? 1e-8f : 1e-5f; }
  bool operator==(const QuantScheme&) const = default;
};

// Every reason why weights cannot be rounded so, one per line; "" if there is none.
std::string problems(const QuantScheme& scheme);

// For people: "W4 g128 sym", "W8 per-row asym", "W4 g32 sym-classic scales=BF16", "NF4 b64 double", "W16" for a layer that is left alone.
std::string describe(const QuantScheme& scheme);

// A scheme by the name that its users know, in any case: "W4A16". Fails with kInvalidArgument and the list of names.
QuantScheme scheme_preset(std::string_view name);
std::vector<std::string> scheme_preset_names();

// One linear layer after rounding: weight[o, i] = scale[o, g] * (code[o, i] - zero[o, g]) with g = i / group(in).
struct QuantizedLinear {
  QuantScheme scheme;
  int64_t out = 0, in = 0;
  std::vector<uint8_t> codes;   // (out, in), 0 .. max_code()
  std::vector<float> scales;    // (out, groups); values that scale_dtype holds exactly; may be negative (kFullRange)
  std::vector<uint8_t> zeros;   // (out, groups), 0 .. max_code() (kClassic, kFullRange: 2^(bits-1))

  int64_t groups() const { return scheme.groups(in); }
};

}  // namespace signround
