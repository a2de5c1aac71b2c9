#include "signround/quant/nf4.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/quant/rtn.h"

namespace signround {
namespace {

constexpr const char* kWhere = "nf4";

// What a block is divided by at least: bitsandbytes' 1e-38, a subnormal number.
constexpr float kSmallestMagnitude = 1e-38f;

// A value that lies in the middle of two levels becomes the lower one.
constexpr std::array<float, 15> midpoints() {
  std::array<float, 15> middle{};
  for (size_t i = 0; i < middle.size(); ++i) middle[i] = (kNf4Levels[i] + kNf4Levels[i + 1]) / 2;
  return middle;
}

// Codes of one block, by the largest magnitude in it.
void encode(const float* w, int64_t n, float scale, bool divide, uint8_t* codes) {
  static constexpr std::array<float, 15> kMiddle = midpoints();
  for (int64_t i = 0; i < n; ++i) {
    const float v = divide ? w[i] / scale : w[i] * scale;
    uint8_t code = 0;
    for (const float middle : kMiddle) code = static_cast<uint8_t>(code + (v > middle));
    codes[i] = code;
  }
}

float as_f32(float v) { return v; }
float as_f32(BF16 v) { return to_f32(v); }

template <class W>
Nf4Linear round_blocks(const W* w, int64_t out, int64_t in, const QuantScheme& scheme,
                       NonFinite* non_finite) {
  check_weight_size(kWhere, out, in);
  const std::string wrong = problems(scheme);
  require(wrong.empty() && scheme.levels == Levels::kNf4 && scheme.bits == 4, kWhere, "found ",
          describe(scheme), ", expected NF4", wrong.empty() ? "" : ": ", wrong);
  Nf4Linear result{.scheme = scheme,
                   .out = out,
                   .in = in,
                   .codes = std::vector<uint8_t>(static_cast<size_t>(out * in)),
                   .magnitudes = {},
                   .nested = {}};
  result.magnitudes.resize(static_cast<size_t>(result.blocks()));
  const int64_t block = scheme.group_size, total = out * in;
  std::mutex mutex;
  NonFinite all;
  parallel_for(result.blocks(), std::max<int64_t>(1, 16384 / block),
               [&](int64_t begin, int64_t end) {
                 std::vector<float> values(static_cast<size_t>(block));
                 NonFinite found;
                 for (int64_t k = begin; k < end; ++k) {
                   const int64_t at = k * block, n = std::min(block, total - at);
                   float largest = 0;
                   bool finite = true;
                   for (int64_t i = 0; i < n; ++i) {
                     values[i] = as_f32(w[at + i]);
                     finite = finite && std::isfinite(values[i]);
                     largest = std::max(largest, std::abs(values[i]));
                   }
                   if (!finite) {
                     found.merge(replace_non_finite(values.data(), n, at));
                     largest = 0;
                     for (int64_t i = 0; i < n; ++i)
                       largest = std::max(largest, std::abs(values[i]));
                   }
                   // A short last block is divided and its magnitude raised; the others are
                   // multiplied by the inverse and keep a magnitude of 0.
                   const float at_least = std::max(largest, kSmallestMagnitude);
                   const bool is_short = n < block;
                   result.magnitudes[k] = is_short ? at_least : largest;
                   encode(values.data(), n, is_short ? at_least : 1.0f / at_least, is_short,
                          result.codes.data() + at);
                 }
                 const std::lock_guard lock(mutex);
                 all.merge(found);
               });
  if (scheme.double_quant) {
    result.nested = nest_scales(result.magnitudes);
    result.magnitudes = flatten_scales(*result.nested);
  }
  if (non_finite != nullptr) *non_finite = all;
  return result;
}

// What bitsandbytes' CPU code sees of a value in [-1, 1]: the nearest of 65536 steps. Its lookup
// table has a code for each.
float in_steps(float v) {
  constexpr float kSteps = 65535;
  const float step = std::floor((std::clamp(v, -1.0f, 1.0f) + 1.0f) * 0.5f * kSteps + 0.5f);
  return -1.0f + 2.0f * step / kSteps;
}

// The sum of rows of `kLanes` values each, lane by lane, in torch's order (ATen's cascade_sum).
template <size_t kLanes>
std::array<float, kLanes> sum_rows(const float* values, int64_t rows) {
  constexpr int64_t kAtOnce = 4, kLevels = 4;
  using Lanes = std::array<float, kLanes>;
  std::array<std::array<Lanes, kAtOnce>, kLevels> sums{};
  const auto add = [](Lanes& to, const float* from) {
    for (size_t l = 0; l < kLanes; ++l) to[l] += from[l];
  };
  const int64_t size = rows / kAtOnce;
  const int64_t log2 = size > 1 ? std::bit_width(static_cast<uint64_t>(size - 1)) : 0;
  const int64_t power = std::max<int64_t>(4, log2 / kLevels), step = int64_t{1} << power;
  int64_t i = 0;
  const auto add_next = [&] {
    for (int64_t k = 0; k < kAtOnce; ++k)
      add(sums[0][k], values + (i * kAtOnce + k) * static_cast<int64_t>(kLanes));
    ++i;
  };
  while (i + step <= size) {
    for (int64_t j = 0; j < step; ++j) add_next();
    for (int64_t j = 1; j < kLevels; ++j) {
      for (int64_t k = 0; k < kAtOnce; ++k) {
        add(sums[j][k], sums[j - 1][k].data());
        sums[j - 1][k] = {};
      }
      if ((i & ((step - 1) << (j * power))) != 0) break;
    }
  }
  while (i < size) add_next();
  for (int64_t j = 1; j < kLevels; ++j)
    for (int64_t k = 0; k < kAtOnce; ++k) add(sums[0][k], sums[j][k].data());
  for (int64_t r = size * kAtOnce; r < rows; ++r)
    add(sums[0][0], values + r * static_cast<int64_t>(kLanes));
  for (int64_t k = 1; k < kAtOnce; ++k) add(sums[0][0], sums[0][k].data());
  return sums[0][0];
}

}  // namespace

float torch_mean(std::span<const float> values) {
  constexpr int64_t kLanes = 8;
  const auto n = static_cast<int64_t>(values.size());
  require(n > 0, kWhere, "internal: the mean of nothing");
  float sum = 0;
  if (n < kLanes) {
    sum = sum_rows<1>(values.data(), n)[0];
  } else {
    for (int64_t i = n / kLanes * kLanes; i < n; ++i) sum += values[i];
    for (const float lane : sum_rows<kLanes>(values.data(), n / kLanes)) sum += lane;
  }
  return sum / static_cast<float>(n);
}

// bitsandbytes.functional.create_dynamic_map with torch.linspace, which rounds once a value.
const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> kMap = [] {
    std::array<float, 256> map{};
    size_t next = 0;
    for (int i = 0; i < 7; ++i) {
      const int parts = 1 << i;
      const float step = (1.0f - 0.1f) / static_cast<float>(parts);
      const auto bound = [&](int k) {
        return k < (parts + 1) / 2 ? std::fma(step, static_cast<float>(k), 0.1f)
                                   : std::fma(-step, static_cast<float>(parts - k), 1.0f);
      };
      const auto power = static_cast<float>(std::pow(10.0, i - 6));
      for (int k = 0; k < parts; ++k) {
        const float centre = power * ((bound(k) + bound(k + 1)) / 2);
        map[next++] = centre;
        map[next++] = -centre;
      }
    }
    map[next++] = 0;
    map[next++] = 1;
    std::sort(map.begin(), map.end());
    return map;
  }();
  return kMap;
}

NestedScales nest_scales(std::span<const float> magnitudes) {
  const std::array<float, 256>& map = dynamic_map();
  std::array<float, 255> middle;
  for (size_t i = 0; i < middle.size(); ++i) middle[i] = 0.5f * (map[i] + map[i + 1]);
  NestedScales nested{.codes = std::vector<uint8_t>(magnitudes.size()),
                      .scales = {},
                      .offset = torch_mean(magnitudes)};
  const auto n = static_cast<int64_t>(magnitudes.size());
  for (int64_t first = 0; first < n; first += kNf4NestedBlock) {
    const int64_t last = std::min(n, first + kNf4NestedBlock);
    float largest = 0;
    for (int64_t k = first; k < last; ++k)
      largest = std::max(largest, std::abs(magnitudes[k] - nested.offset));
    nested.scales.push_back(largest);
    if (largest == 0) continue;  // all are the offset, and code 0 of scale 0 says so
    const float inverse = 1.0f / largest;
    for (int64_t k = first; k < last; ++k) {
      const float v = in_steps((magnitudes[k] - nested.offset) * inverse);
      nested.codes[k] =
          static_cast<uint8_t>(std::lower_bound(middle.begin(), middle.end(), v) - middle.begin());
    }
  }
  return nested;
}

std::vector<float> flatten_scales(const NestedScales& nested) {
  const std::array<float, 256>& map = dynamic_map();
  std::vector<float> magnitudes(nested.codes.size());
  for (size_t k = 0; k < magnitudes.size(); ++k)
    magnitudes[k] = map[nested.codes[k]] * nested.scales[k / kNf4NestedBlock] + nested.offset;
  return magnitudes;
}

Nf4Linear nf4(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
              NonFinite* non_finite) {
  return round_blocks(w, out, in, scheme, non_finite);
}

Nf4Linear nf4(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
              NonFinite* non_finite) {
  return round_blocks(w, out, in, scheme, non_finite);
}

void dequantize_row(const Nf4Linear& linear, int64_t o, float* row) {
  const int64_t block = linear.scheme.group_size, end = (o + 1) * linear.in;
  for (int64_t k = o * linear.in; k < end;) {
    const float magnitude = linear.magnitudes[k / block];
    for (const int64_t stop = std::min(end, (k / block + 1) * block); k < stop; ++k)
      *row++ = kNf4Levels[linear.codes[k]] * magnitude;
  }
}

void dequantize(const Nf4Linear& linear, float* weight) {
  parallel_for(linear.out, rows_per_thread(linear.in), [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) dequantize_row(linear, o, weight + o * linear.in);
  });
}

}  // namespace signround
