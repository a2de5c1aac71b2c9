#include "signround/base/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "signround/base/error.h"

namespace signround {
namespace {

TEST(ParallelFor, VisitsEveryItemOnce) {
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (int64_t n : {0, 1, 2, 7, 100}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
      parallel_for(n, 3, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
      });
      for (const auto& count : seen) EXPECT_EQ(count, 1);
    }
  }
  set_num_threads(0);
}

TEST(ParallelFor, ThrowsInTheCaller) {
  set_num_threads(4);
  EXPECT_THROW(
      parallel_for(8, 1,
                   [](int64_t begin, int64_t) { require(begin != 2, "test", "piece at ", begin); }),
      Error);
  set_num_threads(0);
}

}  // namespace
}  // namespace signround
