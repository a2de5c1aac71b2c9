// AWQ (arXiv 2306.00978): input channels that carry large activations are rounded more finely, by
// multiplying their weights before rounding and dividing their activations by the same factor, which
// is folded into what comes before the layer (graph/folding.h). The formats do not change.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "signround/quant/scheme.h"

namespace signround {

// One of the layers that read the same input.
struct AwqLayer {
  const float* weight = nullptr;  // (out, in), contiguous
  int64_t out = 0;
  QuantScheme scheme;
};

// What the search sees of their input.
struct AwqInput {
  int64_t in = 0, rows = 0;
  const float* x = nullptr;         // (rows, in): samples, on which errors are measured
  std::span<const double> sum_abs;  // (in): sums of |x| over all tokens
  std::span<const int64_t> channel;  // (in): input c takes the factor of this channel
  int64_t channels = 0;
};

struct AwqScales {
  std::vector<float> scales;  // (channels); all 1 where nothing was better than plain rounding
  double ratio = 0;           // the exponent that was chosen; 0: all 1
  double error = 0, plain_error = 0;  // sums of squares of the layers' output errors
};

// The paper's equation 5: s = (mean |x|)^ratio, divided by sqrt(max s * min s), of the ratio among
// 0, 1/20, ... 19/20 that gives the least squared error of the layers' outputs when the weights are
// rounded to nearest. Weights that are not finite count as 0.
AwqScales awq_search(const AwqInput& input, std::span<const AwqLayer> layers);

// Memory that a search of layers with at most this many weights takes beside them.
int64_t awq_bytes(int64_t out, int64_t in, int64_t rows);

}  // namespace signround
