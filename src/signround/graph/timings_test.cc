#include "signround/graph/timings.h"

#include <gtest/gtest.h>

#include <thread>

namespace signround {
namespace {

TEST(Timings, SumsByNameInTheOrderOfFirstUse) {
  Timings timings;
  timings.add("b", 1, 10, 0);
  timings.add("a", 2, 0, 5);
  timings.add(
      std::vector<OpTiming>{{.name = "b", .seconds = 3, .flops = 30, .bytes = 0, .calls = 2}});
  ASSERT_EQ(timings.all().size(), 2u);
  EXPECT_EQ(timings.all()[0].name, "b");
  EXPECT_EQ(timings.all()[0].seconds, 4);
  EXPECT_EQ(timings.all()[0].flops, 40);
  EXPECT_EQ(timings.all()[0].calls, 3);
  EXPECT_EQ(timings.all()[1].bytes, 5);
  EXPECT_EQ(timings.seconds(), 6);
}

TEST(Timings, ASpanGivesTheResultOfItsFunctionAndItsTime) {
  Timings timings;
  EXPECT_EQ(timings.timed("wait", 7,
                          [] {
                            std::this_thread::sleep_for(std::chrono::milliseconds(5));
                            return 3;
                          }),
            3);
  timings.timed("wait", 7, [] {});
  EXPECT_GE(timings.seconds(), 0.005);
  EXPECT_EQ(timings.all()[0].bytes, 14);
  EXPECT_EQ(timings.all()[0].calls, 2);
}

TEST(Timings, TheTableHasEveryPartItsRateAndWhatIsLeft) {
  Timings timings;
  timings.add("products", 2, 4e9);
  timings.add("copies", 1, 0, 3e9);
  const std::string text = describe(timings, 4, {.flops = 4e9, .bytes = 12e9});
  EXPECT_EQ(text,
            "  products                         2.000 s   50.0%       2.0 GFLOP/s  50.0% of 4.0\n"
            "  copies                           1.000 s   25.0%       3.0 GB/s     25.0% of 12.0\n"
            "  other                            1.000 s   25.0%\n"
            "  whole                            4.000 s  100.0%\n");
}

}  // namespace
}  // namespace signround
