#include "signround/base/random.h"

#include <gtest/gtest.h>

#include <numeric>

namespace signround {
namespace {

TEST(PythonRandom, ShufflesAsPython) {
  // python3 -c "import random; r = random.Random(42); x = list(range(10)); r.shuffle(x); print(x, r.random())"
  PythonRandom random(42);
  std::vector<int> items(10);
  std::iota(items.begin(), items.end(), 0);
  random.shuffle(items);
  EXPECT_EQ(items, (std::vector<int>{7, 3, 2, 8, 5, 6, 9, 4, 0, 1}));
  EXPECT_DOUBLE_EQ(random.uniform(), 0.5904925124490397);
}

TEST(PythonRandom, SeedsAbove32BitsAsPython) {
  // python3 -c "import random; r = random.Random(2**40 + 5); print(r.getrandbits(32), r._randbelow(10**12))"
  PythonRandom random((uint64_t{1} << 40) + 5);
  EXPECT_EQ(random.next_u32(), 2166296868u);
  EXPECT_EQ(random.below(1000000000000), 294277936956u);
}

}  // namespace
}  // namespace signround
