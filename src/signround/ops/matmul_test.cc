#include "signround/ops/matmul.h"

#include <gtest/gtest.h>

#include <cmath>

#include "signround/base/error.h"
#include "signround/kernels/cuda.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

struct Operand {
  std::vector<float> f32;
  std::vector<BF16> bf16;
  Operand(int64_t n, uint64_t seed) : f32(testing::random_normal(n, seed)) {
    for (float& v : f32) {
      bf16.push_back(to_bf16(v));
      v = to_f32(bf16.back());
    }
  }
  const void* data(DType dtype) const {
    return dtype == DType::kBF16 ? static_cast<const void*>(bf16.data())
                                 : static_cast<const void*>(f32.data());
  }
};

TEST(Matmul, OnednnMatchesTheDefinitionForAllLayouts) {
  int cases = 0;
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t m : {1, 7, 33})
      for (int64_t n : {1, 16, 40})
        for (int64_t k : {1, 31, 64})
          for (int flags = 0; flags < 16; ++flags) {
            MatmulSpec s{.m = m, .n = n, .k = k, .in = dtype};
            s.trans_a = flags & 1, s.trans_b = flags & 2, s.accumulate = flags & 4,
            s.bias = flags & 8;
            s.lda = (s.trans_a ? m : k) + 3, s.ldb = (s.trans_b ? k : n) + 5, s.ldc = n + 2;
            const Operand a((s.trans_a ? k : m) * s.lda, 1), b((s.trans_b ? n : k) * s.ldb, 2);
            const auto bias = testing::random_normal(n, 3);
            auto want = testing::random_normal(m * s.ldc, 4), got = want;
            kernels::matmul_ref(s)->run(a.data(dtype), b.data(dtype), bias.data(), want.data());
            kernels::matmul_onednn(s)->run(a.data(dtype), b.data(dtype), bias.data(), got.data());
            // Products of bf16 values are exact in f32, so in both types only the k + 2 sums round,
            // each by eps/2 of a partial sum that is below k * max|a| * max|b| + 10 (values here
            // are below 5).
            const double tolerance = 6e-8 * double(k + 2) * (25.0 * double(k) + 10);
            for (size_t i = 0; i < got.size(); ++i)
              ASSERT_NEAR(got[i], want[i], tolerance)
                  << "m " << m << " n " << n << " k " << k << " flags " << flags;
            ++cases;
          }
  EXPECT_EQ(cases, 2 * 27 * 16);
}

TEST(Matmul, GivesTheSameBitsEveryTime) {
  const MatmulSpec s{.m = 64,
                     .n = 96,
                     .k = 300,
                     .in = DType::kBF16,
                     .trans_b = true,
                     .lda = 300,
                     .ldb = 300,
                     .ldc = 96};
  const Operand a(64 * 300, 1), b(96 * 300, 2);
  std::vector<float> first(64 * 96), again(64 * 96);
  make_matmul(s)->run(a.data(s.in), b.data(s.in), nullptr, first.data());
  make_matmul(s)->run(a.data(s.in), b.data(s.in), nullptr, again.data());
  EXPECT_EQ(first, again);
}

TEST(Matmul, RefusesStridesThatAreTooShort) {
  EXPECT_THROW(make_matmul({.m = 4, .n = 4, .k = 8, .lda = 4, .ldb = 4, .ldc = 4}), Error);
}

TEST(Matmul, RefusesADeviceThatWasNotBuilt) {
  if (kernels::why_no_cuda() == nullptr) return;  // built with CUDA: kernels/cuda has its own tests
  MatmulSpec spec{.m = 1, .n = 1, .k = 1, .lda = 1, .ldb = 1, .ldc = 1};
  spec.device.kind = Device::Kind::kCuda;
  try {
    make_matmul(spec);
    FAIL() << "a product on a GPU was made";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDevice);
  }
  EXPECT_THROW(Buffer(64, spec.device), Error);
}

TEST(ComputeRates, ArePositive) {
  EXPECT_GT(compute_rates().f32, 1e8);
  EXPECT_GT(compute_rates().bf16, 1e6);
}

}  // namespace
}  // namespace signround
