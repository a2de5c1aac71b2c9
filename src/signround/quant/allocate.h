// Bits for each unit of a model under a budget: the multiple-choice knapsack.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace signround {

struct SizeChoice {
  int64_t bytes = 0;
  double loss = 0;
};

struct Allocation {
  std::vector<size_t> chosen;  // of each unit, which of its choices
  int64_t bytes = 0;
  double loss = 0;
};

// Answers for every budget at once, by dynamic programming over sizes in steps of the span between
// the smallest and the largest allocation divided by 2^16: exact but for rounding each choice's
// size up to a step, so that a budget is never exceeded.
class Allocator {
 public:
  // Each unit takes one of its choices. Error{kInvalidArgument} for a unit without choices, and for
  // sizes or losses that are negative or not finite.
  explicit Allocator(std::vector<std::vector<SizeChoice>> units);

  // The least summed loss within a budget; Error{kInvalidArgument} naming the smallest possible
  // size if none fits.
  Allocation within(int64_t bytes) const;
  int64_t smallest() const { return smallest_; }  // sums over units
  int64_t largest() const { return largest_; }

 private:
  std::vector<std::vector<SizeChoice>> units_;
  int64_t smallest_ = 0, largest_ = 0, step_ = 1;
  size_t steps_ = 0;                          // sizes 0 .. steps_ beyond the smallest allocation
  std::vector<std::vector<uint8_t>> choice_;  // [unit][size]: the choice of the best solution
};

}  // namespace signround
