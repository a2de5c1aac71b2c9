#include "signround/kernels/cpu/fake_quant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>
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

constexpr float kUnit = 0x1p-15f;

// Offsets of normal floats, as whole numbers of units.
std::vector<int16_t> units_of(const std::vector<float>& f) {
  std::vector<int16_t> v;
  for (float x : f) v.push_back(static_cast<int16_t>(std::clamp(x / kUnit, -32767.0f, 32767.0f)));
  return v;
}

template <class W>
const FakeQuantFunctions<W>& functions_of(const FakeQuantKernel& k) {
  if constexpr (sizeof(W) == 4)
    return k.f32();
  else
    return k.bf16();
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
  GroupGrad grad{}, grad_bf16{}, grad_momentum{};
  std::vector<uint8_t> codes, codes_without_offset;
  std::vector<float> f32, buffer;
  std::vector<int16_t> v, v_bf16, v_momentum;
  std::vector<uint16_t> bf16;
};

template <class W>
Outputs<W> run(const FakeQuantFunctions<W>& f, const Case& c) {
  const int64_t n = c.n, o = c.offset, size = n + o + 3;
  const auto at = [o](auto& vector) { return vector.data() + o; };
  const std::vector<W> w = weights_of<W>(pool(size, c.seed, 0.05f));
  const std::vector<int16_t> v = units_of(pool(size, c.seed + 1000, 0.3f));
  const Offsets offsets{v.data() + o, kUnit};
  const std::vector<float> d_w = pool(size, c.seed + 2000, 1);
  const std::vector<BF16> d_w_bf16 = weights_of<BF16>(d_w);
  Outputs<W> out;
  out.extent = f.extent(at(w), n);
  out.codes.assign(static_cast<size_t>(size), 77);
  f.codes(at(w), offsets, n, c.grid, -c.grid.lo, at(out.codes));
  out.codes_without_offset.assign(static_cast<size_t>(size), 77);
  f.codes(at(w), {nullptr, kUnit}, n, c.grid, -c.grid.lo, at(out.codes_without_offset));
  out.f32.assign(static_cast<size_t>(size), kGuard);
  f.write_f32(at(w), offsets, n, c.grid, at(out.f32));
  std::vector<BF16> bf16(static_cast<size_t>(size), to_bf16(kGuard));
  f.write_bf16(at(w), offsets, n, c.grid, at(bf16));
  for (BF16 x : bf16) out.bf16.push_back(x.bits);
  // In place, and to another place.
  out.v = v;
  out.grad =
      f.descend_f32(at(w), at(d_w), n, c.grid, {{at(out.v), kUnit}, {164, 0}, at(out.v), nullptr});
  out.v_bf16.assign(v.size(), 77);
  out.grad_bf16 =
      f.descend_bf16(at(w), at(d_w_bf16), n, c.grid, {offsets, {164, 0}, at(out.v_bf16), nullptr});
  out.v_momentum = v;
  out.buffer = pool(size, c.seed + 3000, 0.01f);
  out.grad_momentum =
      f.descend_f32(at(w), at(d_w), n, c.grid,
                    {{at(out.v_momentum), kUnit}, {164, 0.9f}, at(out.v_momentum), at(out.buffer)});
  return out;
}

template <class W>
void expect_same(const Outputs<W>& got, const Outputs<W>& want, const Case& c, const char* who) {
  SCOPED_TRACE(::testing::Message() << who << " n " << c.n << " offset " << c.offset << " scale "
                                    << c.grid.scale << " seed " << c.seed);
  EXPECT_EQ(got.extent.min, want.extent.min);
  EXPECT_EQ(got.extent.max, want.extent.max);
  EXPECT_EQ(got.extent.finite, want.extent.finite);
  EXPECT_EQ(got.extent.ordinary, want.extent.ordinary);
  EXPECT_EQ(got.codes, want.codes);
  EXPECT_EQ(got.codes_without_offset, want.codes_without_offset);
  EXPECT_EQ(got.f32, want.f32);
  // Values, not bits: a weight that is rounded to zero may be -0 on one side.
  ASSERT_EQ(got.bf16.size(), want.bf16.size());
  for (size_t i = 0; i < got.bf16.size(); ++i)
    EXPECT_EQ(to_f32(BF16{got.bf16[i]}), to_f32(BF16{want.bf16[i]})) << i;
  EXPECT_EQ(got.v, want.v);
  EXPECT_EQ(got.v_bf16, want.v_bf16);
  EXPECT_EQ(got.v_momentum, want.v_momentum);
  EXPECT_EQ(got.buffer, want.buffer);
  EXPECT_EQ(got.grad.scale, want.grad.scale);
  EXPECT_EQ(got.grad.clamped, want.grad.clamped);
  EXPECT_EQ(got.grad_bf16.scale, want.grad_bf16.scale);
  EXPECT_EQ(got.grad_bf16.clamped, want.grad_bf16.clamped);
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
    const auto v = units_of(pool(c.n, c.seed + 1, 0.3f));
    std::vector<int16_t> next(v.size());
    const auto d_w = pool(c.n, c.seed + 2, 1);
    double want = 0, size = 0, clamped = 0, clamped_size = 0;
    for (int64_t i = 0; i < c.n; ++i) {
      const size_t k = static_cast<size_t>(i);
      const float r = std::nearbyint(w[k] / c.grid.scale + kUnit * v[k]);
      const double q = std::clamp(r, c.grid.lo, c.grid.hi);
      const double x = q == static_cast<double>(r) ? static_cast<double>(w[k]) / c.grid.scale : 0;
      want += d_w[k] * (q - x);
      size += std::fabs(d_w[k]) * (std::fabs(q) + std::fabs(x));
      if (x == 0 && q != static_cast<double>(r)) {
        clamped += d_w[k];
        clamped_size += std::fabs(d_w[k]);
      }
    }
    const GroupGrad got = fake_quant_ref_f32().descend_f32(
        w.data(), d_w.data(), c.n, c.grid, {{v.data(), kUnit}, {300, 0}, next.data(), nullptr});
    const double eps = static_cast<double>(c.n + 4) * 0x1p-24;
    EXPECT_NEAR(got.scale, want, eps * size) << c.seed;
    EXPECT_NEAR(got.clamped, clamped, eps * clamped_size) << c.seed;
  }
}

// a / b for a and b of 24 bits next to the midpoint of two floats: a 2^e - b m = n with a small n
// and an odd m of 25 bits, e = 25 where a < b, else 24. Calls body(a, b) for all |n| < 6.
template <class Body>
void for_each_hard_quotient(uint64_t first, uint64_t step, Body body) {
  for (uint64_t b = first; b < (1u << 24); b += step) {
    const uint64_t even = b & (0 - b), odd = b / even;  // even, a power of two, divides n
    uint64_t inverse = odd;                             // of odd, modulo 2^64
    for (int i = 0; i < 5; ++i) inverse *= 2 - odd * inverse;
    for (int e = 24; e <= 25; ++e)
      for (int64_t n = -5; n <= 5; ++n) {
        if (n == 0 || n % static_cast<int64_t>(even) != 0) continue;
        // odd m = -n / even modulo 2^e / even
        const uint64_t modulus = (uint64_t{1} << e) / even;
        const auto quotient = static_cast<uint64_t>(-n / static_cast<int64_t>(even));
        for (uint64_t m = quotient * inverse & (modulus - 1); m < (1u << 25); m += modulus) {
          if (m < (1u << 24) || m % 2 == 0) continue;
          const uint64_t a = (b * m + static_cast<uint64_t>(n)) >> e;
          if (a < (1u << 23) || a >= (1u << 24) || (e == 25) != (a < b)) continue;
          body(static_cast<float>(a), static_cast<float>(b));
        }
      }
  }
}

// The proof in fake_quant_hwy.cc leaves these quotients: a few for each mantissa of the scale.
TEST(FakeQuant, OneCorrectionRoundsTheHardestQuotients) {
  int64_t cases = 0, uncorrected = 0;
  for_each_hard_quotient(1u << 23, 1, [&](float a, float b) {
    const float y = 1 / b, q = a * y, want = a / b;
    uncorrected += q != want;
    ++cases;
    ASSERT_EQ(std::fma(std::fma(-q, b, a), y, q), want) << a << " / " << b;
  });
  EXPECT_GT(cases, 10000000);
  EXPECT_GT(uncorrected, cases / 4);
}

// Of one weight with q = 0, the gradient by the scale is minus the quotient.
float minus_quotient(const FakeQuantKernel& kernel, float w, float scale, size_t lane) {
  std::vector<float> weights(16, 0), d_w(16, 0);
  std::vector<int16_t> v(16, 0);
  weights[lane] = w;
  d_w[lane] = 1;
  return kernel.f32()
      .descend_f32(weights.data(), d_w.data(), 16, {scale, 0, 0},
                   {{v.data(), kUnit}, {0, 0}, v.data(), nullptr})
      .scale;
}

TEST(FakeQuant, KernelsRoundTheHardestQuotients) {
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    for_each_hwy_target([&](const char* target) {
      size_t lane = 0;
      for_each_hard_quotient((1u << 23) + 1, 998, [&](float a, float b) {
        const float w = a * 0x1p-4f;
        ASSERT_EQ(minus_quotient(kernel, w, b, ++lane % 16), 0 - w / b) << kernel.name << target;
      });
    });
  }
}

// The gradient by the scale of a single weight with q = 0 shows the quotient itself: -w / scale.
// Over mantissas of all kinds, those next to a power of two among them, and exponents to both ends.
TEST(FakeQuant, EveryQuotientIsRoundedAsADivision) {
  std::vector<uint32_t> mantissas = {0, 1, 2, 3, 0x7fffff, 0x7ffffe, 0x7ffffd, 0x400000, 0x3fffff};
  uint32_t state = 1;
  while (mantissas.size() < 400) {
    state = state * 1664525 + 1013904223;
    mantissas.push_back(mantissas.size() % 2 == 0 ? state >> 9 : state >> 9 & 0x7fe000);
  }
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    for_each_hwy_target([&](const char* target) {
      for (const auto& [scale_exponent, w_exponent] : {std::pair{120, 117},
                                                       {113, 110},
                                                       {113, 60},
                                                       {100, 30},
                                                       {100, 26},
                                                       {113, 1},
                                                       {113, 0},
                                                       {226, 220},
                                                       {228, 226},
                                                       {250, 240},
                                                       {254, 1}}) {
        for (size_t i = 0; i < mantissas.size() * 40; ++i) {
          const uint32_t b = mantissas[i * 7 % mantissas.size()];
          const uint32_t a = mantissas[(i * 7 + i / mantissas.size()) % mantissas.size()];
          const float scale = std::bit_cast<float>(uint32_t(scale_exponent) << 23 | b);
          const float x = std::bit_cast<float>(uint32_t(w_exponent) << 23 | a);
          const float got = minus_quotient(kernel, x, scale, i % 16);
          ASSERT_EQ(got, 0 - x / scale) << kernel.name << target << " " << x << " / " << scale;
        }
      }
    });
  }
}

TEST(FakeQuant, OffsetsMoveAgainstTheSignOfTheGradientAndStayWhereItIsZero) {
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    // In order: up, down, zero gradient, clamped, not a number.
    const std::vector<float> w = {0.1f, 0.1f, 0.1f, 5.0f, 0.1f};
    const std::vector<float> d_w = {-2, 3, 0, 4, std::numeric_limits<float>::quiet_NaN()};
    for (const float scale : {0.1f, -0.1f}) {
      std::vector<int16_t> v(5, 100);
      kernel.f32().descend_f32(w.data(), d_w.data(), 5, {scale, -8, 7},
                               {{v.data(), kUnit}, {50, 0}, v.data(), nullptr});
      const int16_t up = scale > 0 ? 150 : 50, down = scale > 0 ? 50 : 150;
      EXPECT_EQ(v, (std::vector<int16_t>{up, down, 100, 100, 100})) << kernel.name << scale;
    }
  }
}

TEST(FakeQuant, OffsetsStopAtTheEndsOfTheirType) {
  for (const FakeQuantKernel& kernel : fake_quant_kernels()) {
    for_each_hwy_target([&](const char* target) {
      const std::vector<float> w(20, 0.1f);
      std::vector<float> d_w(20, -1);
      std::fill(d_w.begin() + 10, d_w.end(), 1.0f);
      std::vector<int16_t> v(20, 32700);
      std::fill(v.begin() + 10, v.end(), int16_t{-32700});
      for (int i = 0; i < 3; ++i)
        kernel.f32().descend_f32(w.data(), d_w.data(), 20, {0.1f, -8, 7},
                                 {{v.data(), kUnit}, {50, 0}, v.data(), nullptr});
      for (size_t i = 0; i < 20; ++i)
        EXPECT_EQ(v[i], i < 10 ? 32767 : -32768) << kernel.name << target << i;
    });
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
