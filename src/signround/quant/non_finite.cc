#include "signround/quant/non_finite.h"

#include <algorithm>
#include <cmath>

namespace signround {
namespace {

float value(float w) { return w; }
float value(BF16 w) { return to_f32(w); }
void assign(float& w, float v) { w = v; }
void assign(BF16& w, float v) { w = to_bf16(v); }

template <class W>
NonFinite replace(W* group, int64_t n, int64_t index) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = std::fabs(value(group[i]));
    if (std::isfinite(magnitude)) largest = std::max(largest, magnitude);
  }
  NonFinite found;
  for (int64_t i = 0; i < n; ++i) {
    const float w = value(group[i]);
    if (std::isfinite(w)) continue;
    found.merge({1, index + i});
    assign(group[i], std::isnan(w) ? 0.0f : std::copysign(largest, w));
  }
  return found;
}

}  // namespace

NonFinite replace_non_finite(float* group, int64_t n, int64_t index) {
  return replace(group, n, index);
}
NonFinite replace_non_finite(BF16* group, int64_t n, int64_t index) {
  return replace(group, n, index);
}

}  // namespace signround
