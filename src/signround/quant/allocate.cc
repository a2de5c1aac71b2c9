#include "signround/quant/allocate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "signround/base/error.h"

namespace signround {
namespace {

constexpr int64_t kSteps = int64_t{1} << 16;

int64_t least_bytes(const std::vector<SizeChoice>& unit) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const SizeChoice& c : unit) least = std::min(least, c.bytes);
  return least;
}

}  // namespace

Allocator::Allocator(std::vector<std::vector<SizeChoice>> units) : units_(std::move(units)) {
  for (const auto& unit : units_) {
    require(!unit.empty() && unit.size() < 256, "allocate", "a unit has ", unit.size(),
            " choices, expected 1 to 255");
    int64_t most = 0;
    for (const SizeChoice& c : unit) {
      require(c.bytes >= 0 && std::isfinite(c.loss) && c.loss >= 0, "allocate", "a choice of ",
              c.bytes, " bytes and loss ", c.loss);
      most = std::max(most, c.bytes);
    }
    smallest_ += least_bytes(unit);
    largest_ += most;
  }
  step_ = std::max<int64_t>(1, (largest_ - smallest_ + kSteps - 1) / kSteps);
  // Rounding up may cost each unit a step.
  steps_ = static_cast<size_t>((largest_ - smallest_) / step_) + units_.size();
  std::vector<double> best(steps_ + 1, 0.0), next(steps_ + 1);
  for (const auto& unit : units_) {
    const int64_t base = least_bytes(unit);
    auto& choice = choice_.emplace_back(steps_ + 1);
    std::fill(next.begin(), next.end(), std::numeric_limits<double>::infinity());
    for (size_t c = 0; c < unit.size(); ++c) {
      const auto size = static_cast<size_t>((unit[c].bytes - base + step_ - 1) / step_);
      for (size_t s = size; s <= steps_; ++s) {
        const double loss = best[s - size] + unit[c].loss;
        if (loss < next[s]) next[s] = loss, choice[s] = static_cast<uint8_t>(c);
      }
    }
    best.swap(next);
  }
}

Allocation Allocator::within(int64_t bytes) const {
  require(bytes >= smallest_, "allocate", "a budget of ", bytes,
          " bytes; the smallest choices take ", smallest_);
  // What rounding up wastes may leave the largest allocation out of reach of its own size.
  size_t s = bytes >= largest_ ? steps_ : static_cast<size_t>((bytes - smallest_) / step_);
  Allocation result;
  result.chosen.resize(units_.size());
  for (size_t u = units_.size(); u-- > 0;) {
    const size_t c = choice_[u][s];
    const SizeChoice& chosen = units_[u][c];
    result.chosen[u] = c;
    result.bytes += chosen.bytes;
    result.loss += chosen.loss;
    s -= static_cast<size_t>((chosen.bytes - least_bytes(units_[u]) + step_ - 1) / step_);
  }
  return result;
}

}  // namespace signround
