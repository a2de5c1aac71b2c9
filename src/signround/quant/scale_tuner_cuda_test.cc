#include "signround/quant/scale_tuner_cuda.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "signround/base/error.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_tuner.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

template <class T>
Buffer on_gpu(const std::vector<T>& values) {
  Buffer there(static_cast<int64_t>(values.size() * sizeof(T)), current_device());
  copy_to_device(there.data(), values.data(), there.bytes());
  synchronize();
  return there;
}
template <class T>
std::vector<T> on_host(const Buffer& there) {
  std::vector<T> values(static_cast<size_t>(there.bytes()) / sizeof(T));
  copy_to_host(values.data(), there.data(), there.bytes());
  return values;
}

struct Case {
  int bits;
  int64_t group, out, in;
  Symmetry symmetry;
  DType scale_dtype = DType::kF32;
};

class ScaleTunerOnGpu : public ::testing::TestWithParam<Case> {};

// The logarithms differ by the last bits of Adam's quotient, 2^-24 of a step of at most 0.1 each,
// and by those of exp.
TEST_P(ScaleTunerOnGpu, TakesTheStepsOfTheHost) {
  if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  const Case& c = GetParam();
  QuantScheme scheme;
  scheme.bits = c.bits;
  scheme.group_size = c.group;
  scheme.symmetry = c.symmetry;
  scheme.scale_dtype = c.scale_dtype;
  const auto w = testing::random_normal(c.out * c.in, 3, 0.05);
  QuantizedLinear linear = rtn(w.data(), c.out, c.in, scheme);
  const DeviceScope scope({Device::Kind::kCuda, 0});
  ScaleTunerCuda there(linear);
  ScaleTuner host(linear);
  EXPECT_EQ(there.scales(), host.scales());
  EXPECT_THROW(there.write({}), Error);
  there.hold(linear);
  const float tolerance = c.scale_dtype == DType::kF32   ? 1e-6f
                          : c.scale_dtype == DType::kF16 ? 0x1p-10f  // a rounding may flip
                                                         : 0x1p-7f;
  for (int i = 0; i < 4; ++i) {
    auto d = testing::random_normal(c.out * c.in, 10 + static_cast<uint64_t>(i));
    if (i == 1) d[0] = std::numeric_limits<float>::quiet_NaN();  // changes nothing
    const double lr = 0.1 - 0.02 * i;
    host.step(linear, d.data(), c.in, lr);
    const Buffer d_there = on_gpu(d);
    there.step({d_there.data(), DType::kF32, c.in}, lr);
    const auto scales = there.scales();
    for (size_t k = 0; k < scales.size(); ++k)
      ASSERT_NEAR(scales[k], host.scales()[k], tolerance * std::abs(host.scales()[k]))
          << "scale " << k << " after step " << i;
  }
  EXPECT_NE(there.scales(), linear.scales);
  // The weight that these scales give is the host's to the bit.
  linear.scales = there.scales();
  const int64_t stride = c.in + 3;
  for (const int64_t rows_apart : {c.in, stride})
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      std::vector<char> want(static_cast<size_t>(c.out * rows_apart * size_of(dtype)), char{77});
      Buffer weight = on_gpu(want);
      there.write({weight.data(), dtype, rows_apart});
      const DeviceScope on_cpu({});
      dequantize(linear, want.data(), dtype, rows_apart);
      const DeviceScope back({Device::Kind::kCuda, 0});
      EXPECT_EQ(on_host<char>(weight), want) << name_of(dtype);
    }
  there.let_go();
  EXPECT_FALSE(there.holds());
}

INSTANTIATE_TEST_SUITE_P(Shapes, ScaleTunerOnGpu,
                         ::testing::Values(Case{4, 32, 5, 96, Symmetry::kFullRange},
                                           Case{2, 32, 3, 80, Symmetry::kAsym},  // a short group
                                           Case{3, 20, 4, 44, Symmetry::kAsym},
                                           Case{8, -1, 2, 333, Symmetry::kClassic},
                                           Case{4, 128, 3, 512, Symmetry::kFullRange, DType::kF16},
                                           Case{4, 1, 2, 24, Symmetry::kFullRange, DType::kBF16}));

TEST(ScaleTunerCuda, ReadsGradientsInBf16) {
  if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  const auto w = testing::random_normal(3 * 64, 2, 0.05);
  QuantScheme scheme;
  scheme.group_size = 32;
  const QuantizedLinear linear = rtn(w.data(), 3, 64, scheme);
  std::vector<float> wide;
  std::vector<BF16> narrow;
  for (float d : testing::random_normal(3 * 64, 4)) {
    narrow.push_back(to_bf16(d));
    wide.push_back(to_f32(narrow.back()));
  }
  const DeviceScope scope({Device::Kind::kCuda, 0});
  ScaleTunerCuda a(linear), b(linear);
  a.hold(linear), b.hold(linear);
  const Buffer wide_there = on_gpu(wide), narrow_there = on_gpu(narrow);
  a.step({wide_there.data(), DType::kF32, 64}, 0.1);
  b.step({narrow_there.data(), DType::kBF16, 64}, 0.1);
  EXPECT_EQ(a.scales(), b.scales());
  EXPECT_NE(a.scales(), linear.scales);
  EXPECT_THROW(a.step({wide_there.data(), DType::kF16, 64}, 0.1), Error);
}

TEST(FactorTunerCuda, TakesTheStepsOfTheHost) {
  if (const char* why = why_no_cuda()) GTEST_SKIP() << why;
  constexpr int64_t kCount = 300;
  const auto start = testing::random_normal(kCount, 5);
  const DeviceScope scope({Device::Kind::kCuda, 0});
  for (const float offset : {0.0f, 1.0f}) {
    FactorTunerCuda there(kCount);
    FactorTuner host(static_cast<size_t>(kCount));
    std::vector<float> value = start;
    for (int i = 0; i < 3; ++i) {
      const auto d = testing::random_normal(kCount, 20 + static_cast<uint64_t>(i));
      const Buffer d_there = on_gpu(d);
      Buffer value_there = on_gpu(start);
      const std::span<float> place(value_there.as<float>(), kCount);
      there.apply(place, offset);
      const auto applied = on_host<float>(value_there);
      for (size_t k = 0; k < applied.size(); ++k)
        ASSERT_NEAR(applied[k], value[k], 1e-6f * (std::abs(start[k]) + 2 * offset)) << k;
      std::vector<float> multiplied = value;
      for (float& v : multiplied) v += offset;
      host.step(d, multiplied, 0.05);
      there.step({d_there.as<float>(), static_cast<size_t>(kCount)}, place, offset, 0.05);
      const auto factors = host.factors(), found = there.factors();
      for (size_t k = 0; k < factors.size(); ++k) {
        ASSERT_NEAR(found[k], factors[k], 1e-6f * factors[k]) << k;
        value[k] = (start[k] + offset) * factors[k] - offset;
      }
    }
  }
}

}  // namespace
}  // namespace signround
