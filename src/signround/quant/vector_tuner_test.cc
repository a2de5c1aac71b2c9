#include "signround/quant/vector_tuner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "signround/testing/complex_step.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

using Complex = std::complex<double>;

// -1 .. 2 in steps of 0.2, which f16 holds only nearly.
TEST(VectorTuner, GridSpansTheVectorAndZero) {
  const std::vector<float> both = {-1, 0.5f, 2}, above = {1, 3}, zeros = {0, 0};
  EXPECT_EQ(vector_grid(both).lo, -1);
  EXPECT_NEAR(vector_grid(both).step, 0.2, 0.2 / 2048);
  EXPECT_EQ(vector_grid(above).lo, 0);
  EXPECT_NEAR(vector_grid(above).step, 0.2, 0.2 / 2048);
  EXPECT_EQ(vector_grid(zeros).step, 1e-5f);
}

TEST(VectorTuner, BackwardMatchesComplexStep) {
  const auto w = testing::random_normal(1000, 1), v = testing::random_normal(1000, 2, 3.0),
             d = testing::random_normal(1000, 3);
  const VectorGrid grid = vector_grid(w);
  int clamped = 0;
  for (size_t i = 0; i < w.size(); ++i) {
    Complex offset(v[i]);
    const auto want = testing::complex_step_grad({&offset, 1, 1}, [&] {
      return vector_value<Complex>(w[i], offset, grid) * static_cast<double>(d[i]);
    });
    const double found = vector_value_bwd<double>(w[i], v[i], grid, d[i]);
    EXPECT_NEAR(found, want[0], 1e-12) << i;
    clamped += found == 0;
  }
  EXPECT_GT(clamped, 10);
  EXPECT_LT(clamped, 900);
}

// Each value goes a step against its gradient's sign, whatever its size.
TEST(VectorTuner, StepsAgainstTheSignAndKeepsTheBest) {
  const std::vector<float> w = {-1, 0.5f, 1, 2};
  VectorTuner tuner(w, 0.25, 0);
  const float step = vector_grid(w).step;
  tuner.step(std::vector<float>{-3, 1e-6f, 0, std::nanf("")}, 0.5);
  EXPECT_EQ(tuner.offsets(), (std::vector<float>{0.125f, -0.125f, 0, 0}));
  std::vector<float> value(4);
  tuner.write(value);
  EXPECT_NEAR(value[0], -1 + 0.125 * static_cast<double>(step), 1e-6);
  EXPECT_NEAR(value[1], 0.5 - 0.125 * static_cast<double>(step), 1e-6);
  EXPECT_EQ(value[2], 1);
  EXPECT_NEAR(value[3], 2, 1e-3);  // the grid's end, which is rounded
  tuner.keep_best();
  tuner.step(std::vector<float>(4, 1.0f), 1);
  EXPECT_EQ(tuner.finish(), value);
}

TEST(VectorTuner, MomentumRemembersOlderGradients) {
  const std::vector<float> w = {-1, 0, 1};
  VectorTuner tuner(w, 1e-3, 0.5);
  tuner.step(std::vector<float>{0, 4, 0}, 1);
  tuner.step(std::vector<float>{0, -1, 0}, 1);  // 0.5 * 4 - 1 > 0
  EXPECT_FLOAT_EQ(tuner.offsets()[1], -2e-3f);
}

TEST(VectorTuner, RestartForgetsAllSteps) {
  const std::vector<float> w = {-1, 0.5f, 2}, up = {-1, -1, -1}, down = {1, 1, 1};
  VectorTuner again(w, 0.1, 0.9), fresh(w, 0.1, 0.9);
  for (int i = 0; i < 3; ++i) again.step(up, 1);
  again.restart();
  EXPECT_EQ(again.offsets(), fresh.offsets());
  again.step(down, 1), fresh.step(down, 1);
  EXPECT_EQ(again.offsets(), fresh.offsets());
}

TEST(VectorTuner, StaysInTheVectorsRange) {
  const std::vector<float> w = {-1, 0.9f, 1};
  VectorTuner tuner(w, 1, 0);
  for (int i = 0; i < 100; ++i) tuner.step(std::vector<float>(3, i < 50 ? -1.0f : 1.0f), 1);
  tuner.keep_best();
  const VectorGrid grid = vector_grid(w);
  for (float v : tuner.finish()) EXPECT_TRUE(v >= grid.lo && v <= grid.hi()) << v;
}

TEST(VectorTuner, RefusesAGradientOfAnotherSize) {
  VectorTuner tuner(std::vector<float>{1, 2}, 0.1, 0);
  testing::expect_error(ErrorKind::kInvalidArgument, "gradients of 3 values, expected 2",
                        [&] { tuner.step(std::vector<float>(3), 1); });
}

}  // namespace
}  // namespace signround
