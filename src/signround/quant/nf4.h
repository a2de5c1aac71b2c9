// NF4 (QLoRA, arXiv 2305.14314): every block of the flattened matrix is divided by its largest
// magnitude, and each weight becomes the nearest of 16 levels, which are quantiles of a normal
// distribution. Double quantization then rounds those magnitudes to 8 bits. Nothing reads text and
// nothing is tuned. Bit for bit what bitsandbytes 0.50.2 computes on a CPU with one thread; its
// CUDA kernels differ in ways that docs/formats/bnb.md lists.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "signround/quant/non_finite.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/dtype.h"

namespace signround {

inline constexpr int64_t kNf4Block = 64;         // weights that share one magnitude
inline constexpr int64_t kNf4NestedBlock = 256;  // magnitudes that share one of their own

// What the codes 0 .. 15 stand for, ascending.
inline constexpr std::array<float, 16> kNf4Levels = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

// What the 8-bit codes of magnitudes stand for, ascending (arXiv 1511.04561): 0, 1, and for every
// i from 0 to 6 and both signs 10^(i-6) times the centres of 2^i equal parts of [0.1, 1].
const std::array<float, 256>& dynamic_map();

// Magnitudes of blocks, less their mean, in 8 bits: magnitude = dynamic_map()[code] * scale[k /
// kNf4NestedBlock] + offset, each operation rounded to f32.
struct NestedScales {
  std::vector<uint8_t> codes;  // (blocks)
  std::vector<float> scales;   // (blocks / kNf4NestedBlock), the last block may be short
  float offset = 0;
  bool operator==(const NestedScales&) const = default;
};

// One linear layer after rounding: weight[k] = kNf4Levels[codes[k]] * magnitudes[k / group_size], k
// counting through all rows; the last block may be short.
struct Nf4Linear {
  QuantScheme scheme;  // levels is kNf4
  int64_t out = 0, in = 0;
  std::vector<uint8_t> codes;          // (out, in)
  std::vector<float> magnitudes;       // (blocks), as they are multiplied by
  std::optional<NestedScales> nested;  // with scheme.double_quant: what they are stored as

  int64_t blocks() const { return (out * in + scheme.group_size - 1) / scheme.group_size; }
};

// w: (out, in), contiguous. non_finite (may be null) receives what was found; see non_finite.h for
// what is done. kInvalidArgument for sizes that cannot be rounded or a scheme that is not NF4's.
Nf4Linear nf4(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
              NonFinite* non_finite = nullptr);
Nf4Linear nf4(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
              NonFinite* non_finite = nullptr);

NestedScales nest_scales(std::span<const float> magnitudes);
std::vector<float> flatten_scales(const NestedScales& nested);

// The weights that a result stands for. row: (in); weight: (out, in), contiguous.
void dequantize_row(const Nf4Linear& linear, int64_t o, float* row);
void dequantize(const Nf4Linear& linear, float* weight);

// torch's mean of contiguous f32 values on one CPU thread: sums in eight lanes and four
// accumulators each, which are folded into higher ones every so often. A plain sum differs in the
// last bits, and all weights of a layer with it.
float torch_mean(std::span<const float> values);

}  // namespace signround
