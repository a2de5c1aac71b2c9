#include "signround/quant/allocate.h"

#include <gtest/gtest.h>

#include <limits>

#include "signround/base/error.h"
#include "signround/base/random.h"

namespace signround {
namespace {

// Every combination of choices.
double best_by_trying_all(const std::vector<std::vector<SizeChoice>>& units, int64_t budget) {
  std::vector<size_t> at(units.size());
  double best = std::numeric_limits<double>::infinity();
  for (;;) {
    int64_t bytes = 0;
    double loss = 0;
    for (size_t u = 0; u < units.size(); ++u)
      bytes += units[u][at[u]].bytes, loss += units[u][at[u]].loss;
    if (bytes <= budget) best = std::min(best, loss);
    size_t u = 0;
    while (u < units.size() && ++at[u] == units[u].size()) at[u++] = 0;
    if (u == units.size()) return best;
  }
}

TEST(Allocator, IsTheBestOfAllCombinations) {
  PythonRandom random(1);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::vector<SizeChoice>> units(1 + random.below(6));
    for (auto& unit : units) {
      unit.resize(1 + random.below(4));
      for (auto& c : unit)
        c = {static_cast<int64_t>(random.below(1000)), random.uniform()};
    }
    const Allocator allocator(units);
    for (int64_t budget = allocator.smallest(); budget <= allocator.largest(); budget += 37) {
      const Allocation found = allocator.within(budget);
      EXPECT_LE(found.bytes, budget);
      EXPECT_NEAR(found.loss, best_by_trying_all(units, budget), 1e-12);
    }
  }
}

// Sizes far larger than the steps: within the budget, and at most one step of each unit from the
// best.
TEST(Allocator, NeverExceedsTheBudget) {
  PythonRandom random(2);
  std::vector<std::vector<SizeChoice>> units(200);
  for (auto& unit : units)
    for (int bits : {2, 3, 4, 8})
      unit.push_back({static_cast<int64_t>(1e6 + random.uniform() * 1e6) * bits,
                      random.uniform() / (bits * bits)});
  const Allocator allocator(units);
  double before = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= 20; ++i) {
    const int64_t budget =
        allocator.smallest() + (allocator.largest() - allocator.smallest()) * i / 20;
    const Allocation found = allocator.within(budget);
    EXPECT_LE(found.bytes, budget);
    EXPECT_LE(found.loss, before);
    before = found.loss;
  }
}

TEST(Allocator, ALargerChoiceThatIsWorseIsNotTaken) {
  const Allocator allocator(std::vector<std::vector<SizeChoice>>{{SizeChoice{10, 1.0}, SizeChoice{20, 2.0}}});
  EXPECT_EQ(allocator.within(1000).chosen[0], 0u);
}

TEST(Allocator, RefusesWhatCannotBe) {
  using Units = std::vector<std::vector<SizeChoice>>;
  EXPECT_THROW(Allocator(Units(1)), Error);
  EXPECT_THROW(Allocator(Units{{SizeChoice{10, std::numeric_limits<double>::quiet_NaN()}}}), Error);
  EXPECT_THROW(Allocator(Units{{SizeChoice{-1, 0}}}), Error);
  const Allocator allocator(Units{{SizeChoice{10, 1.0}}, {SizeChoice{5, 1.0}, SizeChoice{7, 0.5}}});
  EXPECT_THROW(allocator.within(14), Error);
  EXPECT_EQ(allocator.within(15).bytes, 15);
}

}  // namespace
}  // namespace signround
