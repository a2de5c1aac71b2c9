#include "signround/kernels/cpu/scale_step.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

struct Scales {
  std::vector<double> gradient;
  std::vector<ScaleMoments> moments;
  std::vector<float> t, start, scale;

  explicit Scales(int64_t n) : moments(static_cast<size_t>(n)), t(moments.size()), scale(t.size()) {
    for (float v : testing::random_normal(n, 1)) gradient.push_back(static_cast<double>(v));
    for (float v : testing::random_normal(n, 2, 0.01)) start.push_back(round_to_f16(v));
  }
  void step(const ScaleStepKernel& kernel, const ScaleLimits& limits) {
    const auto n = static_cast<int64_t>(t.size());
    kernel.move(n, gradient.data(), 0.1, moments.data(), t.data());
    kernel.scales(n, t.data(), start.data(), limits, scale.data());
  }
};

// Steps of ever the same gradient are lr long, by its sign.
TEST(ScaleStep, ReferenceMovesByTheRateAgainstTheGradient) {
  ScaleMoments moments;
  for (int i = 0; i < 200; ++i) adam_change(moments, 2.5, 0.01);
  EXPECT_NEAR(adam_change(moments, 2.5, 0.01), -0.01, 1e-6);
  EXPECT_NEAR(moments.mean, 2.5, 1e-5);
  EXPECT_NEAR(moments.size, 2.5, 1e-3);
  EXPECT_EQ(adam_change(moments, std::numeric_limits<double>::infinity(), 0.01), 0.0f);
  EXPECT_NEAR(moments.mean, 2.5, 1e-5);
  ScaleMoments none;
  EXPECT_EQ(adam_change(none, 0, 0.01), 0.0f);
}

void expect_the_reference(const ScaleStepKernel& kernel, const char* target) {
  for (DType dtype : {DType::kF16, DType::kBF16, DType::kF32})
    for (int64_t n : {1, 7, 16, 33}) {
      SCOPED_TRACE(std::string(kernel.name) + " on " + target + ", " + std::string(name_of(dtype)) +
                   " " + std::to_string(n));
      Scales want(n);
      want.gradient[0] = 0;
      if (n > 3) {
        want.gradient[1] = std::numeric_limits<double>::quiet_NaN();
        want.gradient[2] = -std::numeric_limits<double>::infinity();
        want.gradient[3] = -1, want.start[3] = 65504.0f;
        want.gradient[4] = 1, want.start[4] = -0x1.5p-17f;
      }
      Scales got = want;
      const ScaleLimits how{dtype, dtype == DType::kF32 ? 1e-8f : 0x1.5p-17f};
      for (int i = 0; i < 5; ++i) {
        want.step({"ref", nullptr, move_ref, scales_ref}, how);
        got.step(kernel, how);
        for (size_t k = 0; k < want.t.size(); ++k) {
          EXPECT_EQ(std::bit_cast<uint32_t>(got.t[k]), std::bit_cast<uint32_t>(want.t[k])) << k;
          EXPECT_EQ(got.moments[k].mean, want.moments[k].mean) << k;
          EXPECT_EQ(got.moments[k].size, want.moments[k].size) << k;
          // One step of the type where the two exps round apart; F16 has subnormal numbers there.
          const float ulp = dtype == DType::kF16    ? 0x1p-10f
                            : dtype == DType::kBF16 ? 0x1p-7f
                                                    : 0x1p-21f;
          EXPECT_NEAR(got.scale[k], want.scale[k],
                      std::max(std::fabs(want.scale[k]) * ulp, 0x1p-24f * (dtype == DType::kF16)))
              << k;
          EXPECT_EQ(std::signbit(got.scale[k]), std::signbit(want.scale[k])) << k;
        }
      }
      if (n > 3) {
        EXPECT_EQ(got.scale[0], got.start[0]);
        EXPECT_EQ(got.scale[1], got.start[1]);
        EXPECT_EQ(got.scale[2], got.start[2]);
        if (dtype == DType::kF16) {
          EXPECT_EQ(got.scale[3], 65504.0f);
        } else {
          EXPECT_GT(got.scale[3], 70000.0f);
        }
        if (dtype == DType::kF32) {
          EXPECT_GT(got.scale[4], -0x1.5p-17f);
        } else {
          EXPECT_EQ(got.scale[4], -0x1.5p-17f);
        }
      }
    }
}

// Lengths that leave a rest; gradients that move nothing; scales at the floor and beyond the
// largest number of their type.
TEST(ScaleStep, AllKernelsAgree) {
  for (const ScaleStepKernel& kernel : scale_step_kernels())
    for_each_hwy_target([&](const char* target) { expect_the_reference(kernel, target); });
}

}  // namespace
}  // namespace signround::kernels
