#include "signround/quant/awq.h"

#include <algorithm>
#include <cmath>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/ops/matmul.h"
#include "signround/quant/rtn.h"

namespace signround {
namespace {

constexpr int kRatios = 20;
constexpr double kLeast = 1e-4;  // of a mean |x|: a channel that is never active

std::vector<float> scales_of(const std::vector<double>& magnitudes, double ratio) {
  std::vector<float> scales;
  for (const double m : magnitudes)
    scales.push_back(static_cast<float>(std::pow(std::max(m, kLeast), ratio)));
  const auto [least, most] = std::minmax_element(scales.begin(), scales.end());
  const float middle = std::sqrt(*least * *most);
  for (float& s : scales) s /= middle;
  return scales;
}

// x * (rounded(W diag(s)) diag(1/s) - W)^T: its sum of squares.
double output_error(const AwqInput& input, const AwqLayer& layer, const std::vector<float>& scales,
                    std::vector<float>& change, std::vector<float>& outputs) {
  const int64_t in = input.in, rows_at_once = rows_per_thread(in);
  const auto s = [&](int64_t c) {
    return scales[static_cast<size_t>(input.channel[static_cast<size_t>(c)])];
  };
  const auto finite = [](float w) { return std::isfinite(w) ? w : 0.0f; };
  change.resize(static_cast<size_t>(layer.out * in));
  parallel_for(layer.out, rows_at_once, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < in; ++c) {
        const size_t at = static_cast<size_t>(r * in + c);
        change[at] = finite(layer.weight[at]) * s(c);
      }
  });
  const QuantizedLinear rounded = rtn(change.data(), layer.out, in, layer.scheme);
  dequantize(rounded, change.data());
  parallel_for(layer.out, rows_at_once, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < in; ++c) {
        const size_t at = static_cast<size_t>(r * in + c);
        change[at] = change[at] / s(c) - finite(layer.weight[at]);
      }
  });
  outputs.resize(static_cast<size_t>(input.rows * layer.out));
  make_matmul({.m = input.rows,
               .n = layer.out,
               .k = in,
               .trans_b = true,
               .lda = in,
               .ldb = in,
               .ldc = layer.out})
      ->run(input.x, change.data(), nullptr, outputs.data());
  double error = 0;
  for (const float y : outputs) error += double(y) * y;
  return error;
}

}  // namespace

AwqScales awq_search(const AwqInput& input, std::span<const AwqLayer> layers) {
  require(input.rows > 0 && input.in > 0 && input.channels > 0, "awq", "found ", input.rows,
          " samples of ", input.in, " inputs, expected at least one");
  require(static_cast<int64_t>(input.sum_abs.size()) == input.in &&
              static_cast<int64_t>(input.channel.size()) == input.in,
          "awq", "found ", input.sum_abs.size(), " magnitudes and ", input.channel.size(),
          " channels for ", input.in, " inputs");
  std::vector<double> magnitudes(static_cast<size_t>(input.channels));
  double sum = 0;
  for (int64_t c = 0; c < input.in; ++c) {
    const int64_t channel = input.channel[static_cast<size_t>(c)];
    require(channel >= 0 && channel < input.channels, "awq", "input ", c, " has channel ", channel,
            " of ", input.channels);
    magnitudes[static_cast<size_t>(channel)] += input.sum_abs[static_cast<size_t>(c)];
    sum += input.sum_abs[static_cast<size_t>(c)];
  }
  // In units of the mean, so that the least magnitude means the same for all layers.
  for (double& m : magnitudes) m *= sum > 0 ? static_cast<double>(input.channels) / sum : 0;

  AwqScales best{.scales = std::vector<float>(static_cast<size_t>(input.channels), 1.0f)};
  std::vector<float> change, outputs;
  for (int i = 0; i < kRatios; ++i) {
    const double ratio = double(i) / kRatios;
    const auto scales = i == 0 ? best.scales : scales_of(magnitudes, ratio);
    double error = 0;
    for (const AwqLayer& layer : layers) error += output_error(input, layer, scales, change, outputs);
    if (i == 0) best.error = best.plain_error = error;
    if (error < best.error) best.scales = scales, best.ratio = ratio, best.error = error;
  }
  return best;
}

int64_t awq_bytes(int64_t out, int64_t in, int64_t rows) {
  return out * in * (4 + 4 + 1) + rows * (in + out) * 4;  // weights, change, codes; x, outputs
}

}  // namespace signround
