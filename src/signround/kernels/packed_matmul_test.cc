#include "signround/kernels/packed_matmul.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <optional>

#include "signround/base/random.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround::kernels {
namespace {

const Device kGpu{Device::Kind::kCuda, 0};

struct HostWeight {
  PackedSpec spec;
  std::vector<uint8_t> codes, zeros;
  std::vector<float> scales;
  double value(int64_t o, int64_t i) const {
    const auto g = static_cast<size_t>(o * spec.groups() + i / spec.weights_per_scale());
    return double(scales[g]) * (int(codes[static_cast<size_t>(o * spec.in + i)]) - int(zeros[g]));
  }
  PackedWeight pack() const {
    return PackedWeight(spec, codes.data(), scales.data(), zeros.data());
  }
};

// kExact: powers of two, so that sums with whole numbers are exact in f32.
enum class Scales { kExact, kF16, kBF16 };

HostWeight random_weight(const PackedSpec& spec, bool zeros, Scales scales, uint64_t seed) {
  PythonRandom random(seed);
  HostWeight w{spec};
  const auto count = static_cast<size_t>(spec.out * spec.groups());
  w.codes.resize(static_cast<size_t>(spec.out * spec.in));
  for (auto& c : w.codes) c = static_cast<uint8_t>(random.next_u32() >> (32 - spec.bits));
  w.zeros.assign(count, static_cast<uint8_t>(1 << (spec.bits - 1)));
  if (zeros)
    for (auto& z : w.zeros) z = static_cast<uint8_t>(random.next_u32() >> (32 - spec.bits));
  w.scales.resize(count);
  for (auto& s : w.scales) {
    const float sign = random.next_u32() % 2 == 0 ? 1.0f : -1.0f;
    if (scales == Scales::kExact)
      s = sign * std::ldexp(1.0f, -static_cast<int>(random.below(3)));
    else if (scales == Scales::kF16)
      s = sign * round_to_f16(0.01f + 0.02f * static_cast<float>(random.uniform()));
    else  // beyond what f16 holds
      s = sign * round_to_bf16(1e-9f * static_cast<float>(1 + random.uniform()));
  }
  return w;
}

// Rows as they lie on the device: stride further apart than they are long, NaN between them.
struct Rows {
  DType dtype;
  int64_t n, cols, stride, skip;
  Buffer buffer;
  Rows(DType type, int64_t rows, int64_t width, int64_t gap, int64_t offset = 0)
      : dtype(type), n(rows), cols(width), stride(width + gap), skip(offset) {
    buffer = Buffer((rows * stride + offset) * size_of(type) + 16, kGpu);
  }
  RowsOut out() { return {buffer.as<char>() + skip * size_of(dtype), dtype, stride}; }
  RowsAny in() const { return {buffer.as<char>() + skip * size_of(dtype), dtype, stride}; }
};

// Rounded to the type, as the device sees them.
void upload(Rows& rows, const std::vector<float>& values) {
  std::vector<char> bytes(static_cast<size_t>(rows.buffer.bytes()), char{-1});  // NaN in all types
  for (int64_t i = 0; i < rows.n; ++i)
    for (int64_t j = 0; j < rows.cols; ++j) {
      const float v = values[static_cast<size_t>(i * rows.cols + j)];
      const int64_t at = rows.skip + i * rows.stride + j;
      if (rows.dtype == DType::kF32) std::memcpy(bytes.data() + at * 4, &v, 4);
      const uint16_t bits = rows.dtype == DType::kF16 ? to_f16(v).bits : to_bf16(v).bits;
      if (rows.dtype != DType::kF32) std::memcpy(bytes.data() + at * 2, &bits, 2);
    }
  copy_to_device(rows.buffer.data(), bytes.data(), rows.buffer.bytes());
  synchronize();
}

std::vector<float> download(const Rows& rows) {
  std::vector<char> bytes(static_cast<size_t>(rows.buffer.bytes()));
  copy_to_host(bytes.data(), rows.buffer.data(), rows.buffer.bytes());
  std::vector<float> values;
  for (int64_t i = 0; i < rows.n; ++i)
    for (int64_t j = 0; j < rows.cols; ++j) {
      const int64_t at = rows.skip + i * rows.stride + j;
      float v;
      BF16 b;
      if (rows.dtype == DType::kF32) std::memcpy(&v, bytes.data() + at * 4, 4);
      std::memcpy(&b.bits, bytes.data() + at * 2, 2);
      values.push_back(rows.dtype == DType::kF32 ? v : to_f32(b));
    }
  return values;
}

struct Case {
  int64_t n;
  DType x = DType::kBF16, y = DType::kF32;
  int64_t gap = 8, offset = 0;
};

std::vector<float> product(const PackedWeight& w, const PackedPlan* plan, const Case& c,
                           const std::vector<float>& x) {
  Rows rows(c.x, c.n, w.spec().in, c.gap, c.offset), y(c.y, c.n, w.spec().out, c.gap);
  upload(rows, x);
  upload(y, std::vector<float>(static_cast<size_t>(c.n * w.spec().out), NAN));
  const int64_t bytes = plan != nullptr ? packed_matmul_scratch_bytes(w, *plan, c.n)
                                        : packed_matmul_scratch_bytes(w, c.n);
  Buffer scratch;
  if (bytes > 0) scratch = Buffer(bytes, kGpu);
  if (plan != nullptr)
    packed_matmul(w, *plan, c.n, rows.in(), y.out(), scratch.data());
  else
    packed_matmul(w, c.n, rows.in(), y.out(), scratch.data());
  synchronize();
  return download(y);
}

// x: n rows of whole numbers from -4 to 4. Every sum is exact, in any order: at most in * 4 *
// 255 < 2^22, in steps of 2^-2.
void expect_exact(const HostWeight& host, const Case& c, const PackedPlan* plan = nullptr) {
  const PackedSpec& s = host.spec;
  ASSERT_LE(s.in * 4 * ((1 << s.bits) - 1), 1 << 22);
  PythonRandom random(17);
  std::vector<float> x(static_cast<size_t>(c.n * s.in));
  for (float& v : x) v = static_cast<float>(random.below(9)) - 4;
  const PackedWeight w = host.pack();
  const std::vector<float> got = product(w, plan, c, x);
  for (int64_t i = 0; i < c.n; ++i)
    for (int64_t o = 0; o < s.out; ++o) {
      double want = 0;
      for (int64_t k = 0; k < s.in; ++k)
        want += host.value(o, k) * double(x[static_cast<size_t>(i * s.in + k)]);
      if (c.y == DType::kBF16) want = double(round_to_bf16(static_cast<float>(want)));
      ASSERT_EQ(double(got[static_cast<size_t>(i * s.out + o)]), want)
          << "row " << i << " of " << c.n << ", output " << o << "; " << s.bits << " bits, group "
          << s.group << ", " << s.out << " x " << s.in;
    }
  if (c.n <= 16) {
    EXPECT_EQ(product(w, plan, c, x), got);
  }
}

class PackedMatmul : public ::testing::Test {
 protected:
  void SetUp() override {
    if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
    scope_.emplace(kGpu);
  }
  std::optional<DeviceScope> scope_;
};

TEST_F(PackedMatmul, IsExactForAllBitsAndGroups) {
  for (const int bits : {2, 3, 4, 8})
    for (const int64_t group : {16, 32, 48, 64, 128, 256, -1})
      for (const bool zeros : {false, true}) {
        const PackedSpec spec{.out = 48, .in = 384, .bits = bits, .group = group};
        const HostWeight w = random_weight(spec, zeros, Scales::kExact, 3);
        for (const int64_t n : {1, 3, 33}) {
          SCOPED_TRACE(n);
          expect_exact(w, {n});
          if (HasFatalFailure()) return;
        }
      }
}

TEST_F(PackedMatmul, IsExactForOddSizes) {
  const int64_t sizes[][2] = {{1, 1}, {7, 33}, {17, 130}, {130, 1000}, {300, 513}};
  for (const auto& size : sizes)
    for (const int bits : {2, 3, 4, 8})
      for (const int64_t group : {32, 128, -1}) {
        const PackedSpec spec{.out = size[0], .in = size[1], .bits = bits, .group = group};
        const HostWeight w = random_weight(spec, true, Scales::kExact, 5);
        for (const int64_t n : {1, 2, 9}) {
          expect_exact(w, {n, DType::kBF16, DType::kF32, 5, 1});
          if (HasFatalFailure()) return;
        }
      }
}

TEST_F(PackedMatmul, IsExactForAllNumbersOfRows) {
  const PackedSpec spec{.out = 272, .in = 640, .bits = 4, .group = 128};
  const HostWeight w = random_weight(spec, true, Scales::kExact, 7);
  for (const int64_t n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 32, 33, 63, 64, 65, 130}) {
    expect_exact(w, {n});
    if (HasFatalFailure()) return;
  }
}

TEST_F(PackedMatmul, IsExactForAllTypes) {
  const PackedSpec spec{.out = 40, .in = 264, .bits = 4, .group = 64};
  const HostWeight w = random_weight(spec, true, Scales::kExact, 8);
  for (const DType x : {DType::kF32, DType::kF16, DType::kBF16})
    for (const DType y : {DType::kF32, DType::kBF16})
      for (const int64_t n : {1, 8, 20})
        for (const int64_t offset : {0, 1}) {
          expect_exact(w, {n, x, y, 8, offset});
          if (HasFatalFailure()) return;
        }
}

TEST_F(PackedMatmul, IsExactForAllPlans) {
  for (const int bits : {3, 8}) {
    const PackedSpec spec{.out = 144, .in = 1160, .bits = bits, .group = 32};
    const HostWeight w = random_weight(spec, true, Scales::kExact, 9);
    const PackedWeight packed = w.pack();
    for (const int64_t n : {1, 13, 34}) {
      size_t decode = 0, batch = 0;
      for (const PackedPlan& plan : packed_matmul_plans(packed, n)) {
        (plan.kernel == PackedPlan::Kernel::kDecode ? decode : batch) += 1;
        if (plan.splits > 2 && plan.splits < 8) continue;
        expect_exact(w, {n}, &plan);
        if (HasFatalFailure()) return;
      }
      EXPECT_EQ(decode > 0, n <= 16);
      EXPECT_GT(batch, 0u);
    }
  }
}

// A bias of its own for each output, rows that are added, both, on every plan: whole numbers, so
// that sums stay exact.
TEST_F(PackedMatmul, AddsItsTermsExactly) {
  const PackedSpec spec{.out = 144, .in = 1160, .bits = 4, .group = 32};
  const HostWeight host = random_weight(spec, true, Scales::kExact, 9);
  const PackedWeight w = host.pack();
  PythonRandom random(23);
  const auto numbers = [&](int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = static_cast<float>(random.below(2001)) - 1000;
    return values;
  };
  for (const int64_t n : {1, 13, 34}) {
    const Case plain{n};
    std::vector<float> x(static_cast<size_t>(n * spec.in));
    for (float& v : x) v = static_cast<float>(random.below(9)) - 4;
    const std::vector<float> bias = numbers(spec.out), from = numbers(n * spec.out),
                             without = product(w, nullptr, plain, x);
    Rows x_rows(DType::kBF16, n, spec.in, 8), bias_row(DType::kF32, 1, spec.out, 0),
        from_rows(DType::kF32, n, spec.out, 5);
    upload(x_rows, x), upload(bias_row, bias), upload(from_rows, from);
    std::vector<PackedPlan> plans = packed_matmul_plans(w, n);
    plans.push_back(plan_packed_matmul(w, n));
    for (const PackedPlan& plan : plans) {
      if (plan.splits > 2) continue;
      Buffer scratch(packed_matmul_scratch_bytes(w, plan, n) + 16, kGpu);
      for (int which = 1; which < 4; ++which) {
        PackedTerms terms;
        if (which & 1) terms.bias = bias_row.buffer.as<float>();
        if (which & 2) terms.from = {from_rows.buffer.as<float>(), from_rows.stride};
        Rows y(DType::kF32, n, spec.out, 3);
        packed_matmul(w, plan, n, x_rows.in(), y.out(), scratch.data(), terms);
        const std::vector<float> got = download(y);
        for (size_t i = 0; i < got.size(); ++i)
          ASSERT_EQ(got[i], without[i] + (which & 1 ? bias[i % static_cast<size_t>(spec.out)] : 0) +
                                (which & 2 ? from[i] : 0))
              << i << " of " << n << " rows, terms " << which;
      }
    }
  }
}

// x has 8 bits, code - zero too: their products are exact. A sum of `in` of them in f32, in any
// order, is off by at most in * 2^-23 * sum |x w| (twice what rounding to nearest gives, since the
// tensor cores cut off), a few more operations for scales and splits; bf16 adds half of its last
// place.
TEST_F(PackedMatmul, IsNearTheReferenceForOrdinaryValues) {
  for (const int bits : {2, 3, 4, 8})
    for (const Scales scales : {Scales::kF16, Scales::kBF16})
      for (const int64_t n : {1, 8, 16, 64})
        for (const DType y : {DType::kF32, DType::kBF16}) {
          const PackedSpec spec{.out = 96, .in = 512, .bits = bits, .group = 128};
          const HostWeight host = random_weight(spec, true, scales, 11);
          const PackedWeight w = host.pack();
          EXPECT_EQ(w.layout().f16, scales == Scales::kF16);
          const auto x = testing::random_normal(n * spec.in, 13);
          const Case c{n, DType::kF32, y};
          const auto got = product(w, nullptr, c, x);
          EXPECT_EQ(product(w, nullptr, c, x), got);  // to the bit
          for (int64_t i = 0; i < n; ++i)
            for (int64_t o = 0; o < spec.out; ++o) {
              double want = 0, sum = 0;
              for (int64_t k = 0; k < spec.in; ++k) {
                const double xw = host.value(o, k) *
                                  double(round_to_bf16(x[static_cast<size_t>(i * spec.in + k)]));
                want += xw, sum += std::abs(xw);
              }
              const double tolerance = double(spec.in + 16) * std::ldexp(sum, -23) +
                                       (y == DType::kBF16 ? std::ldexp(std::abs(want), -8) : 0);
              ASSERT_NEAR(double(got[static_cast<size_t>(i * spec.out + o)]), want, tolerance)
                  << bits << " bits, row " << i << " of " << n << ", output " << o;
            }
        }
}

TEST_F(PackedMatmul, SaysWhatItCannotHold) {
  const PackedSpec spec{.out = 4, .in = 64, .bits = 4, .group = 32};
  HostWeight w = random_weight(spec, true, Scales::kF16, 1);
  w.scales[3] = 1.00001f;
  testing::expect_error(ErrorKind::kUnsupported, "scales", [&] { w.pack(); });
  w = random_weight(spec, true, Scales::kF16, 1);
  w.codes[100] = 16;
  testing::expect_error(ErrorKind::kInvalidArgument, "4 bits", [&] { w.pack(); });
  w = random_weight(spec, true, Scales::kF16, 1);
  w.zeros[5] = 16;
  testing::expect_error(ErrorKind::kInvalidArgument, "zero point 16", [&] { w.pack(); });
  w = random_weight({.out = 4, .in = 64, .bits = 4, .group = 8}, true, Scales::kF16, 1);
  testing::expect_error(ErrorKind::kUnsupported, "groups of 8", [&] { w.pack(); });
}

TEST_F(PackedMatmul, ReadsAboutAsManyBitsAsCodesHave) {
  const auto bits = [](const PackedSpec& spec, bool zeros) {
    const PackedWeight w = random_weight(spec, zeros, Scales::kF16, 1).pack();
    return double(w.bytes()) * 8 / double(spec.out * spec.in);
  };
  EXPECT_EQ(bits({.out = 32, .in = 256, .bits = 4, .group = 128}, false), 4.125);
  EXPECT_EQ(bits({.out = 32, .in = 256, .bits = 4, .group = 32}, true), 4.75);
  EXPECT_EQ(bits({.out = 32, .in = 256, .bits = 3, .group = 128}, false), 3.125);
  EXPECT_EQ(bits({.out = 32, .in = 256, .bits = 2, .group = 64}, true), 2.375);
  EXPECT_EQ(bits({.out = 32, .in = 256, .bits = 8, .group = -1}, false), 8.125);
}

}  // namespace
}  // namespace signround::kernels
