#include "signround/kernels/cpu/fake_quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

constexpr float kGuard = 12345.0f;

template <class W>
std::vector<W> weights_of(const std::vector<float>& f);
template <>
std::vector<float> weights_of(const std::vector<float>& f) {
  return f;
}
template <>
std::vector<BF16> weights_of(const std::vector<float>& f) {
  std::vector<BF16> w;
  for (float v : f) w.push_back(to_bf16(v));
  return w;
}

template <class W>
const FakeQuantFunctions<W>& functions_of(const FakeQuantKernel& k) {
  if constexpr (sizeof(W) == 4)
    return k.f32();
  else
    return k.bf16();
}

std::vector<uint32_t> bits_of(const std::vector<float>& v) {
  std::vector<uint32_t> bits;
  for (float x : v) bits.push_back(std::bit_cast<uint32_t>(x));
  return bits;
}

// Slices of one pool: Python's generator is slow, and there are thousands of cases.
std::vector<float> pool(int64_t n, uint64_t seed, float sigma) {
  static const std::vector<float> values = testing::random_normal(4096, 1);
  std::vector<float> slice;
  for (int64_t i = 0; i < n; ++i)
    slice.push_back(sigma * values[(seed * 97 + static_cast<uint64_t>(i)) % values.size()]);
  return slice;
}

struct Case {
  int64_t n, offset;
  CodeGrid grid;
  uint64_t seed;
};

std::vector<Case> all_cases() {
  const CodeGrid grids[] = {{0.0137f, -8, 7},     {-0.02f, -8, 7}, {0.03f, -2, 1},
                            {0.0007f, -128, 127}, {0.01f, 0, 15},  {0.01f, -15, 0}};
  std::vector<Case> cases;
  uint64_t seed = 1;
  for (int64_t n : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 64, 65, 127, 128, 300})
    for (int64_t offset = 0; offset < 3; ++offset)
      for (const CodeGrid& grid : grids) cases.push_back({n, offset, grid, seed++});
  return cases;
}

// What one kernel makes of one case, with guards before and after every output.
template <class W>
struct Outputs {
  Extent extent{};
  GroupGrad grad{}, grad_momentum{};
  std::vector<uint8_t> codes, codes_without_offset;
  std::vector<float> f32, v, v_momentum, buffer;
  std::vector<uint16_t> bf16;
};

template <class W>
Outputs<W> run(const FakeQuantFunctions<W>& f, const Case& c) {
  const int64_t n = c.n, o = c.offset, size = n + o + 3;
  const auto at = [o](auto& vector) { return vector.data() + o; };
  const std::vector<W> w = weights_of<W>(pool(size, c.seed, 0.05f));
  std::vector<float> v = pool(size, c.seed + 1000, 0.3f);
  const std::vector<float> d_w = pool(size, c.seed + 2000, 1);
  Outputs<W> out;
  out.extent = f.extent(at(w), n);
  out.codes.assign(static_cast<size_t>(size), 77);
  f.codes(at(w), at(v), n, c.grid, -c.grid.lo, at(out.codes));
  out.codes_without_offset.assign(static_cast<size_t>(size), 77);
  f.codes(at(w), nullptr, n, c.grid, -c.grid.lo, at(out.codes_without_offset));
  out.f32.assign(static_cast<size_t>(size), kGuard);
  f.write_f32(at(w), at(v), n, c.grid, at(out.f32));
  std::vector<BF16> bf16(static_cast<size_t>(size), to_bf16(kGuard));
  f.write_bf16(at(w), at(v), n, c.grid, at(bf16));
  for (BF16 x : bf16) out.bf16.push_back(x.bits);
  out.v = v;
  out.grad = f.descend(at(w), at(d_w), n, c.grid, {0.005f, 0}, at(out.v), nullptr);
  out.v_momentum = v;
  out.buffer = pool(size, c.seed + 3000, 0.01f);
  out.grad_momentum =
      f.descend(at(w), at(d_w), n, c.grid, {0.005f, 0.9f}, at(out.v_momentum), at(out.buffer));
  return out;
}

template <class W>
void expect_same(const Outputs<W>& got, const Outputs<W>& want, const Case& c, const char* who) {
  SCOPED_TRACE(::testing::Message() << who << " n " << c.n << " offset " << c.offset << " scale "
                                    << c.grid.scale << " seed " << c.seed);
  EXPECT_EQ(got.extent.min, want.extent.min);
  EXPECT_EQ(got.extent.max, want.extent.max);
  EXPECT_EQ(got.extent.finite, want.extent.finite);
  EXPECT_EQ(got.codes, want.codes);
  EXPECT_EQ(got.codes_without_offset, want.codes_without_offset);
  EXPECT_EQ(got.f32, want.f32);
  // Values, not bits: a weight that is rounded to zero may be -0 on one side.
  ASSERT_EQ(got.bf16.size(), want.bf16.size());
  for (size_t i = 0; i < got.bf16.size(); ++i)
    EXPECT_EQ(to_f32(BF16{got.bf16[i]}), to_f32(BF16{want.bf16[i]})) << i;
  EXPECT_EQ(bits_of(got.v), bits_of(want.v));
  EXPECT_EQ(bits_of(got.v_momentum), bits_of(want.v_momentum));
  EXPECT_EQ(got.buffer, want.buffer);
  EXPECT_EQ(got.grad.scale, want.grad.scale);
  EXPECT_EQ(got.grad.clamped, want.grad.clamped);
  EXPECT_EQ(got.grad_momentum.scale, want.grad_momentum.scale);
}

template <class W>
void expect_kernels_agree() {
  int64_t clamped = 0;
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    ASSERT_EQ(kernel.why_not(), nullptr) << kernel.name;
    for_each_hwy_target([&](const char* target) {
      for (const Case& c : all_cases()) {
        const Outputs<W> want = run<W>(functions_of<W>(fake_quant_kernels().back()), c);
        const Outputs<W> got = run<W>(functions_of<W>(kernel), c);
        const std::string who = std::string(kernel.name) + " on " + target;
        expect_same(got, want, c, who.c_str());
        clamped += want.grad.clamped != 0;
      }
    });
  }
  EXPECT_GT(clamped, 100);
}

TEST(FakeQuant, AllKernelsGiveTheBitsOfTheReferenceForF32) { expect_kernels_agree<float>(); }
TEST(FakeQuant, AllKernelsGiveTheBitsOfTheReferenceForBf16) { expect_kernels_agree<BF16>(); }

TEST(FakeQuant, ReferenceGradientMatchesDoubleArithmetic) {
  // Each of the n terms of d_scale has at most 4 roundings and the sum n more: relative to the sum
  // of magnitudes, (n + 4) * 2^-24; q itself is checked not to change, which the seed guarantees
  // here.
  for (const Case& c : all_cases()) {
    const auto w = pool(c.n, c.seed, 0.05f);
    auto v = pool(c.n, c.seed + 1, 0.3f);
    const auto d_w = pool(c.n, c.seed + 2, 1);
    double want = 0, size = 0, clamped = 0, clamped_size = 0;
    for (int64_t i = 0; i < c.n; ++i) {
      const size_t k = static_cast<size_t>(i);
      const float r = std::nearbyint(w[k] / c.grid.scale + v[k]);
      const double q = std::clamp(r, c.grid.lo, c.grid.hi);
      const double x = q == static_cast<double>(r) ? static_cast<double>(w[k]) / c.grid.scale : 0;
      want += d_w[k] * (q - x);
      size += std::fabs(d_w[k]) * (std::fabs(q) + std::fabs(x));
      if (x == 0 && q != static_cast<double>(r)) {
        clamped += d_w[k];
        clamped_size += std::fabs(d_w[k]);
      }
    }
    const GroupGrad got = fake_quant_ref_f32().descend(w.data(), d_w.data(), c.n, c.grid,
                                                       {0.01f, 0}, v.data(), nullptr);
    const double eps = static_cast<double>(c.n + 4) * 0x1p-24;
    EXPECT_NEAR(got.scale, want, eps * size) << c.seed;
    EXPECT_NEAR(got.clamped, clamped, eps * clamped_size) << c.seed;
  }
}

TEST(FakeQuant, OffsetsMoveAgainstTheSignOfTheGradientAndStayWhereItIsZero) {
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    // In order: up, down, zero gradient, clamped, not a number.
    const std::vector<float> w = {0.1f, 0.1f, 0.1f, 5.0f, 0.1f};
    const std::vector<float> d_w = {-2, 3, 0, 4, std::numeric_limits<float>::quiet_NaN()};
    for (const float scale : {0.1f, -0.1f}) {
      std::vector<float> v(5, 0.25f);
      kernel.f32().descend(w.data(), d_w.data(), 5, {scale, -8, 7}, {0.125f, 0}, v.data(), nullptr);
      const float up = scale > 0 ? 0.375f : 0.125f, down = scale > 0 ? 0.125f : 0.375f;
      EXPECT_EQ(v, (std::vector<float>{up, down, 0.25f, 0.25f, 0.25f})) << kernel.name << scale;
    }
  }
}

TEST(FakeQuant, ExtentSeesEveryWeightThatIsNotFinite) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    for_each_hwy_target([&](const char* target) {
      for (int64_t n : {1, 5, 16, 37, 128}) {
        for (int64_t i = 0; i < n; ++i) {
          for (const float bad : {inf, -inf, std::numeric_limits<float>::quiet_NaN()}) {
            auto w = pool(n, 9, 1);
            EXPECT_TRUE(kernel.f32().extent(w.data(), n).finite);
            w[static_cast<size_t>(i)] = bad;
            EXPECT_FALSE(kernel.f32().extent(w.data(), n).finite) << target << n << " " << i << bad;
            const auto b = weights_of<BF16>(w);
            EXPECT_FALSE(kernel.bf16().extent(b.data(), n).finite)
                << target << n << " " << i << bad;
          }
        }
      }
    });
  }
}

TEST(FakeQuant, RunsTheKernelThatTheEnvironmentForces) {
  const char* value = std::getenv("SIGNROUND_FORCE_KERNEL");
  const std::string old = value == nullptr ? "" : value;
  for (const char* name : {"ref", "hwy"}) {
    setenv("SIGNROUND_FORCE_KERNEL", name, 1);
    EXPECT_EQ(fake_quant_kernel().name, name);
  }
  setenv("SIGNROUND_FORCE_KERNEL", old.c_str(), 1);
  if (old.empty()) {
    EXPECT_EQ(fake_quant_kernel().name, "hwy");
  }
}

}  // namespace
}  // namespace signround::kernels
