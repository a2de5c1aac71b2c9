#include "signround/quant/scale_start.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/fake_quant.h"
#include "signround/kernels/cpu/grid_loss.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"

namespace signround {
namespace {

// Channels that the calibration text hardly moves still count this much of the mean: their weights
// must not run away.
constexpr double kSmallestImportance = 1e-3;
constexpr int64_t kLanes = 16;

float factor(int i) {
  return kSmallestSearchFactor + (kLargestSearchFactor - kSmallestSearchFactor) *
                                     static_cast<float>(i) / (kSearchFactors - 1);
}

// One group, padded to whole lanes by weights of importance 0.
struct Group {
  std::vector<float> x, importance;
  int64_t padded = 0;

  explicit Group(int64_t n)
      : x(static_cast<size_t>((n + kLanes - 1) / kLanes * kLanes)), importance(x.size()) {}
};

struct Trial {
  float scale = 0, zero = 0;  // never 0; a whole number
};

class Search {
 public:
  explicit Search(const QuantScheme& scheme)
      : scheme_(scheme), last_(static_cast<float>(scheme.max_code())) {}

  GroupGrid<float> best(const Group& group, GroupRange<float> range) {
    GroupGrid<float> grid = group_grid_fwd<float>(scheme_, range, 1.0f, 1.0f);
    trials_.assign(1, {grid.scale, grid.zero});
    for (int i = 0; i < kSearchFactors; ++i) {
      if (scheme_.symmetry == Symmetry::kAsym) {
        const auto narrow = group_grid_fwd<float>(scheme_, range, factor(i), factor(i));
        add_trial(narrow.scale, narrow.zero);
        continue;
      }
      const float scale = grid.scale * factor(i);
      add_trial(scale, grid.zero);
      if (scheme_.symmetry == Symmetry::kFullRange) add_trial(-scale, grid.zero);
    }
    find_losses(group);
    const size_t least =
        static_cast<size_t>(std::min_element(losses_.begin(), losses_.end()) - losses_.begin());
    Trial best = trials_[least];
    float loss = losses_[least];
    for (int i = 0; i < kSearchRefits; ++i)
      if (!refit(group, best, loss)) break;
    grid.scale = best.scale;
    grid.zero = best.zero;
    return grid;
  }

 private:
  void add_trial(float scale, float zero) {
    scale = floored_scale(scale, scheme_.scale_dtype);
    if (scheme_.symmetry == Symmetry::kFullRange || scale > 0) trials_.push_back({scale, zero});
  }

  kernels::TrialGrid grid_of(const Trial& trial) const {
    return {trial.scale, -trial.zero, last_ - trial.zero};
  }

  void find_losses(const Group& group) {
    grids_.clear();
    for (const Trial& trial : trials_) grids_.push_back(grid_of(trial));
    losses_.resize(trials_.size());
    kernel_.losses(group.x.data(), group.importance.data(), group.padded, grids_, losses_.data());
  }

  bool keep_better(const Group& group, float scale, float zero, Trial& best, float& loss) {
    trials_.clear();
    add_trial(scale, zero);
    if (trials_.empty()) return false;
    find_losses(group);
    if (!(losses_[0] < loss)) return false;
    best = trials_[0];
    loss = losses_[0];
    return true;
  }

  // Least squares with the codes of `best` held: x = scale * q, or x = scale * (q - shift) where
  // the zero point is free.
  bool refit(const Group& group, Trial& best, float& loss) {
    const kernels::FitSums sums =
        kernel_.fit(group.x.data(), group.importance.data(), group.padded, grid_of(best));
    const double w = static_cast<double>(sums.w), q = static_cast<double>(sums.q),
                 qq = static_cast<double>(sums.qq), x = static_cast<double>(sums.x),
                 xq = static_cast<double>(sums.xq);
    if (scheme_.symmetry == Symmetry::kAsym) {
      const double determinant = w * qq - q * q;
      const double slope = determinant > 0 ? (w * xq - q * x) / determinant : 0;
      if (slope > 0) {
        const double shift = (q * slope - x) / (w * slope);
        const double zero = std::nearbyint(static_cast<double>(best.zero) + shift);
        if (keep_better(group, static_cast<float>(slope),
                        static_cast<float>(std::clamp(zero, 0.0, static_cast<double>(last_))), best,
                        loss))
          return true;
      }
    }
    return qq > 0 && keep_better(group, static_cast<float>(xq / qq), best.zero, best, loss);
  }

  QuantScheme scheme_;
  float last_;
  const kernels::GridLossKernel& kernel_ = kernels::grid_loss_kernel();
  std::vector<Trial> trials_;  // of the group in work; what follows is of these
  std::vector<kernels::TrialGrid> grids_;
  std::vector<float> losses_;
};

float value(float w) { return w; }
float value(BF16 w) { return to_f32(w); }

template <class W>
QuantizedLinear search_rows(const W* w, int64_t out, int64_t in, const QuantScheme& scheme,
                            const float* given, NonFinite* non_finite) {
  QuantizedLinear result = make_quantized("search_start", out, in, scheme);
  const std::vector<float> importance = channel_importance(given, in);
  const auto& functions = kernels::fake_quant_functions<float>();
  const int64_t size = scheme.group(in), groups = scheme.groups(in);
  std::mutex mutex;
  NonFinite all;
  parallel_for(out, 1, [&](int64_t begin, int64_t end) {
    Group group(size);
    Search search(scheme);
    NonFinite found;
    for (int64_t k = begin * groups; k < end * groups; ++k) {
      const int64_t column = k % groups * size, at = k / groups * in + column;
      const int64_t n = std::min(size, in - column);
      group.padded = (n + kLanes - 1) / kLanes * kLanes;
      std::fill(group.x.begin(), group.x.end(), 0.0f);
      std::fill(group.importance.begin(), group.importance.end(), 0.0f);
      for (int64_t i = 0; i < n; ++i) group.x[static_cast<size_t>(i)] = value(w[at + i]);
      std::copy_n(importance.data() + column, n, group.importance.data());
      kernels::Extent extent = functions.extent(group.x.data(), n);
      if (!extent.finite) {
        found.merge(replace_non_finite(group.x.data(), n, at));
        extent = functions.extent(group.x.data(), n);
      }
      const GroupGrid<float> grid = search.best(group, {extent.min, extent.max});
      functions.codes(group.x.data(), {}, n, code_grid(grid, scheme.max_code()), grid.zero,
                      result.codes.data() + at);
      result.scales[static_cast<size_t>(k)] = grid.scale;
      result.zeros[static_cast<size_t>(k)] = static_cast<uint8_t>(grid.zero);
    }
    const std::lock_guard lock(mutex);
    all.merge(found);
  });
  if (non_finite != nullptr) *non_finite = all;
  return result;
}

}  // namespace

std::vector<float> channel_importance(const float* given, int64_t in) {
  std::vector<float> importance(static_cast<size_t>(in), 1.0f);
  if (given == nullptr) return importance;
  double sum = 0;
  for (int64_t i = 0; i < in; ++i) {
    require(std::isfinite(given[i]) && given[i] >= 0, "search_start", "importance of channel ", i,
            " is ", given[i], ", expected a finite number of at least 0");
    sum += static_cast<double>(given[i]);
  }
  if (sum == 0) return importance;
  // Mean 1: the sums stay far from the ends of f32.
  const double scale = static_cast<double>(in) / sum;
  for (int64_t i = 0; i < in; ++i)
    importance[static_cast<size_t>(i)] =
        static_cast<float>(static_cast<double>(given[i]) * scale + kSmallestImportance);
  return importance;
}

QuantizedLinear search_start(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const float* importance, NonFinite* non_finite) {
  return search_rows(w, out, in, scheme, importance, non_finite);
}

QuantizedLinear search_start(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                             const float* importance, NonFinite* non_finite) {
  return search_rows(w, out, in, scheme, importance, non_finite);
}

}  // namespace signround
