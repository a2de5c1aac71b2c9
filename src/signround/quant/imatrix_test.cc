#include "signround/quant/imatrix.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

TEST(Imatrix, AddsSquaresOfEachColumnOnAnyNumberOfThreads) {
  const auto x = testing::random_normal(300 * 130, 1);
  std::vector<double> one(100, 1.0), three(100, 1.0);
  set_num_threads(1);
  add_second_moments(x.data(), 300, 100, 130, one.data());
  set_num_threads(3);
  add_second_moments(x.data(), 300, 100, 130, three.data());
  set_num_threads(0);
  EXPECT_EQ(one, three);
  for (size_t c = 0; c < 100; ++c) {
    double want = 1;
    for (size_t r = 0; r < 300; ++r)
      want += static_cast<double>(x[r * 130 + c]) * static_cast<double>(x[r * 130 + c]);
    EXPECT_NEAR(one[c], want, 17 * 0x1p-24 * want) << c;
  }
}

TEST(Imatrix, ImportanceIsTheMeanSquare) {
  EXPECT_EQ(importance_of({2.0, 0.0, 5.0}, 4), (std::vector<float>{0.5f, 0.0f, 1.25f}));
  EXPECT_THROW(importance_of({1.0}, 0), Error);
}

}  // namespace
}  // namespace signround
