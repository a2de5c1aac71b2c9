#include "signround/base/random.h"

#include <gtest/gtest.h>

#include <numeric>

namespace signround {
namespace {

TEST(PythonRandom, ShufflesAsPython) {
  // python3 -c "import random; r = random.Random(42); x = list(range(10)); r.shuffle(x); print(x,
  // r.random())"
  PythonRandom random(42);
  std::vector<int> items(10);
  std::iota(items.begin(), items.end(), 0);
  random.shuffle(items);
  EXPECT_EQ(items, (std::vector<int>{7, 3, 2, 8, 5, 6, 9, 4, 0, 1}));
  EXPECT_DOUBLE_EQ(random.uniform(), 0.5904925124490397);
}

TEST(PythonRandom, SeedsAbove32BitsAsPython) {
  // python3 -c "import random; r = random.Random(2**40 + 5); print(r.getrandbits(32),
  // r._randbelow(10**12))"
  PythonRandom random((uint64_t{1} << 40) + 5);
  EXPECT_EQ(random.next_u32(), 2166296868u);
  EXPECT_EQ(random.below(1000000000000), 294277936956u);
}

TEST(NumpyRandom, PermutesAsNumpy) {
  // numpy 2.4.6: np.random.default_rng(42).permutation(12), and the same with the seed 2**40 + 5
  // and 10 items
  EXPECT_EQ(NumpyRandom(42).permutation(12),
            (std::vector<int64_t>{0, 7, 6, 9, 11, 3, 5, 2, 4, 10, 1, 8}));
  EXPECT_EQ(NumpyRandom((uint64_t{1} << 40) + 5).permutation(10),
            (std::vector<int64_t>{8, 1, 2, 5, 3, 0, 9, 7, 4, 6}));
  NumpyRandom random(42);
  const auto items = random.permutation(100003);
  EXPECT_EQ(items[0], 28963);
  EXPECT_EQ(items[3], 14169);
  EXPECT_EQ(items[100000], 5668);
  EXPECT_EQ(items[100002], 75400);
  EXPECT_EQ(random.next_u64(), 3663811782075269062u);  // .bit_generator.random_raw()
}

TEST(NumpyRandom, DrawsIntegersAsNumpy) {
  // numpy 2.4.6: r = np.random.default_rng(7), then r.integers(10**12), r.integers(5),
  // r.integers(2**32)
  NumpyRandom random(7);
  EXPECT_EQ(random.below(1000000000000), 625095466604u);
  EXPECT_EQ(random.below(1000000000000), 897213800969u);
  EXPECT_EQ(random.below(1000000000000), 775685690245u);
  for (uint64_t want : {4, 1, 0, 1, 1, 4}) EXPECT_EQ(random.below(5), want);
  EXPECT_EQ(random.below(uint64_t{1} << 32), 3919686768u);
}

}  // namespace
}  // namespace signround
