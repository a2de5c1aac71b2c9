#include "signround/quant/opt_rtn.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/fake_quant.h"
#include "signround/kernels/cpu/scale_search.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"

namespace signround {
namespace {

kernels::ScaleCandidates candidates_of(int bits) {
  if (bits == 2) return kernels::scale_candidates(2, 0.01, 90);
  const int half = 1 << (bits - 1);
  return kernels::scale_candidates(half, half * 0.75 / 200 * 2, 100);
}

float value(float w) { return w; }
float value(BF16 w) { return to_f32(w); }

// AutoRound's rule for channels that the calibration text never moved (its _imatrix_handle_zero),
// for one group that is `full` long with its padding: padding has importance 1e-5 there, which only
// counts in the mean.
enum class Importance { kAsGiven, kFilled, kReplaced };
Importance handle_zeros(const float* given, const float* x, int64_t n, int64_t full, int bits,
                        float* importance) {
  const int64_t zeros = std::count_if(given, given + n, [](float v) { return v <= 1e-30f; });
  std::copy(given, given + n, importance);
  if (zeros == 0) return Importance::kAsGiven;
  if (zeros > full / 2) {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i)
      squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const float offset = bits <= 3 ? 0.0f : static_cast<float>(std::sqrt(squares / 32));
    for (int64_t i = 0; i < n; ++i) importance[i] = std::fabs(x[i]) + offset;
    return Importance::kReplaced;
  }
  double sum = static_cast<double>(full - n) * 1e-5;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(given[i]);
  const float mean = static_cast<float>(sum / static_cast<double>(full - zeros));
  for (int64_t i = 0; i < n; ++i)
    if (importance[i] == 0) importance[i] = mean;
  return Importance::kFilled;
}

void check_importance(const float* importance, int64_t in) {
  for (int64_t i = 0; i < in; ++i)
    require(std::isfinite(importance[i]) && importance[i] >= 0, "opt_rtn", "importance of channel ",
            i, " is ", importance[i], ", expected a finite number of at least 0");
}

template <class W>
QuantizedLinear search_rows(const W* w, int64_t out, int64_t in, const QuantScheme& scheme,
                            const float* importance, OptRtnNotes* notes) {
  OptRtnNotes all;
  if (!has_scale_search(scheme)) {
    all.plain_rtn = true;
    QuantizedLinear result = rtn(w, out, in, scheme, &all.non_finite);
    if (notes != nullptr) *notes = all;
    return result;
  }
  QuantizedLinear result = make_quantized("opt_rtn", out, in, scheme);
  // AutoRound touches zeros only where some channel is exactly zero.
  bool any_zero = false;
  if (importance != nullptr) {
    check_importance(importance, in);
    any_zero = std::find(importance, importance + in, 0.0f) != importance + in;
  }
  const auto search = kernels::scale_search_kernel().search;
  const auto& functions = kernels::fake_quant_functions<float>();
  const kernels::ScaleCandidates candidates = candidates_of(scheme.bits);
  const int64_t group = scheme.group(in), groups = scheme.groups(in);
  const float half = static_cast<float>(candidates.half);
  std::mutex mutex;
  parallel_for(out, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> x(static_cast<size_t>(group)), weights(static_cast<size_t>(group));
    OptRtnNotes found;
    for (int64_t k = begin * groups; k < end * groups; ++k) {
      const int64_t column = k % groups * group, at = k / groups * in + column,
                    n = std::min(group, in - column);
      for (int64_t i = 0; i < n; ++i) x[static_cast<size_t>(i)] = value(w[at + i]);
      if (!functions.extent(x.data(), n).finite)
        found.non_finite.merge(replace_non_finite(x.data(), n, at));
      const float* group_importance = importance == nullptr ? nullptr : importance + column;
      if (any_zero) {
        const auto how =
            handle_zeros(group_importance, x.data(), n, group, scheme.bits, weights.data());
        found.unimportant_groups += how == Importance::kReplaced;
        found.filled_groups += how == Importance::kFilled;
        group_importance = weights.data();
      }
      const float scale =
          floored_scale(search(x.data(), group_importance, n, candidates), scheme.scale_dtype);
      functions.codes(x.data(), {}, n, {scale, -half, half - 1}, half, result.codes.data() + at);
      result.scales[static_cast<size_t>(k)] = scale;
      result.zeros[static_cast<size_t>(k)] = static_cast<uint8_t>(candidates.half);
    }
    const std::lock_guard lock(mutex);
    all.non_finite.merge(found.non_finite);
    all.unimportant_groups += found.unimportant_groups;
    all.filled_groups += found.filled_groups;
  });
  if (notes != nullptr) *notes = all;
  return result;
}

}  // namespace

QuantizedLinear opt_rtn(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                        const float* importance, OptRtnNotes* notes) {
  return search_rows(w, out, in, scheme, importance, notes);
}

QuantizedLinear opt_rtn(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                        const float* importance, OptRtnNotes* notes) {
  return search_rows(w, out, in, scheme, importance, notes);
}

}  // namespace signround
