#include "signround/ops/matmul.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/testing/random.h"
#include "signround/testing/resident.h"

namespace signround {
namespace {

// Random values are slow to make: from a prime number on they repeat, at another column each row.
std::vector<float> repeated_normal(int64_t n, uint64_t seed) {
  constexpr int64_t kPeriod = 4099;
  auto values = testing::random_normal(std::min(n, kPeriod), seed);
  values.reserve(static_cast<size_t>(n));
  while (static_cast<int64_t>(values.size()) < n)
    values.push_back(values[values.size() - static_cast<size_t>(kPeriod)]);
  return values;
}

struct Operand {
  std::vector<float> f32;
  std::vector<BF16> bf16;
  Operand(int64_t n, uint64_t seed) : f32(repeated_normal(n, seed)) {
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

using MakePlan = std::function<std::unique_ptr<MatmulPlan>(const MatmulSpec&)>;
using kernels::PanelUnit;

// Products of panels by each unit of this CPU.
std::vector<MakePlan> panel_products(const kernels::PanelStrip& strip = {}) {
  std::vector<MakePlan> all;
  for (PanelUnit unit : {PanelUnit::kAmx, PanelUnit::kAvx512})
    if (kernels::why_not_matmul_panels(unit) == nullptr)
      all.push_back([=](const MatmulSpec& s) { return kernels::matmul_panels(unit, s, strip); });
  return all;
}
std::vector<MakePlan> int8_panel_products(int64_t strip_bytes = kernels::PanelStrip{}.bytes) {
  std::vector<MakePlan> all;
  for (PanelUnit unit : {PanelUnit::kAmx, PanelUnit::kAvx512})
    if (kernels::why_not_matmul_panels_int8(unit) == nullptr)
      all.push_back(
          [=](const MatmulSpec& s) { return kernels::matmul_panels_int8(unit, s, strip_bytes); });
  return all;
}

// One product of the kernel and of the definition, with rows that lie apart from each other; where
// it adds, to C and to what lies elsewhere; where it rounds, of the definition that does not.
void expect_the_definition(const MakePlan& make, MatmulSpec s, int64_t gap_a = 3) {
  s.lda = (s.trans_a ? s.m : s.k) + gap_a, s.ldb = (s.trans_b ? s.k : s.n) + 5, s.ldc = s.n + 2;
  const Operand a((s.trans_a ? s.k : s.m) * s.lda, 1), b((s.trans_b ? s.n : s.k) * s.ldb, 2);
  const auto bias = testing::random_normal(s.n, 3);
  auto want = repeated_normal(s.m * s.ldc, 4), got = want;
  const bool rounds = s.out == DType::kBF16;
  MatmulSpec exact = s;
  exact.out = DType::kF32;
  kernels::matmul_ref(exact)->run(a.data(s.in), b.data(s.in), bias.data(), want.data());
  if (rounds) {
    std::vector<BF16> rounded;
    for (float v : got) rounded.push_back(to_bf16(v));
    make(s)->run(a.data(s.in), b.data(s.in), bias.data(), rounded.data());
    for (size_t i = 0; i < got.size(); ++i) {
      const bool inside = static_cast<int64_t>(i) % s.ldc < s.n;
      if (inside) {
        got[i] = to_f32(rounded[i]);
      } else {
        ASSERT_EQ(rounded[i].bits, to_bf16(got[i]).bits) << "written at " << i;
      }
    }
  } else {
    make(s)->run(a.data(s.in), b.data(s.in), bias.data(), got.data());
  }
  // Products of bf16 values are exact in f32, so in both types only the k + 2 sums round, each by
  // eps/2 of a partial sum that is below k * max|a| * max|b| + 10 (values here are below 5).
  // Sums of integers are exact; each piece of k rounds as a float, times a step that was rounded
  // twice, and is added once.
  const double roundings = s.int8 ? 4 + double(s.k) / 1024 : double(s.k + 2);
  const double tolerance = 6e-8 * roundings * (25.0 * double(s.k) + 10);
  for (size_t i = 0; i < got.size(); ++i) {
    // Between the rows nothing may be written.
    const bool inside = static_cast<int64_t>(i) % s.ldc < s.n;
    const double rounding = rounds ? (std::fabs(double(want[i])) + tolerance) / 256 : 0;
    ASSERT_NEAR(got[i], want[i], inside ? tolerance + rounding : 0)
        << "at " << i << " m " << s.m << " n " << s.n << " k " << s.k << " transposed " << s.trans_a
        << s.trans_b << " accumulate " << s.accumulate << " bias " << s.bias << " rounds "
        << rounds;
  }
  if (!s.accumulate) return;
  const auto from = repeated_normal(s.m * s.ldc, 4);
  auto sum = repeated_normal(s.m * s.ldc, 5);
  make(s)->run(a.data(s.in), b.data(s.in), bias.data(), sum.data(), from.data());
  const auto untouched = repeated_normal(s.m * s.ldc, 5);
  for (size_t i = 0; i < sum.size(); ++i) {
    const bool inside = static_cast<int64_t>(i) % s.ldc < s.n;
    ASSERT_EQ(sum[i], inside ? got[i] : untouched[i]) << "added elsewhere, at " << i;
  }
}

constexpr int kFlags = 24;
MatmulSpec with_flags(MatmulSpec s, int flags) {
  s.trans_a = flags & 1, s.trans_b = flags & 2;
  const int what = flags / 4;  // C = or C +=, with bias or without; bf16 C = without and with
  s.accumulate = what == 1 || what == 3, s.bias = what == 2 || what == 3 || what == 5;
  if (what >= 4) s.out = DType::kBF16;
  return s;
}

TEST(Matmul, OnednnMatchesTheDefinitionForAllLayouts) {
  int cases = 0;
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t m : {1, 7, 33})
      for (int64_t n : {1, 16, 40})
        for (int64_t k : {1, 31, 64})
          for (int flags = 0; flags < (dtype == DType::kBF16 ? kFlags : 16); ++flags) {
            expect_the_definition(kernels::matmul_onednn,
                                  with_flags({.m = m, .n = n, .k = k, .in = dtype}, flags));
            ++cases;
          }
  EXPECT_EQ(cases, 27 * (16 + kFlags));
}

// Sizes on both sides of a half panel, a panel, and a pair of values of k; k beyond a block.
TEST(Matmul, PanelsMatchTheDefinitionForAllLayouts) {
  for (const MakePlan& make : panel_products()) {
    for (int64_t m : {1, 16, 17, 32, 70})
      for (int64_t n : {1, 16, 31, 32, 65})
        for (int64_t k : {1, 2, 31, 32, 33, 64})
          for (int flags = 0; flags < kFlags; ++flags)
            expect_the_definition(make,
                                  with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16}, flags));
    for (int flags = 0; flags < kFlags; ++flags)
      expect_the_definition(make,
                            with_flags({.m = 70, .n = 65, .k = 700, .in = DType::kBF16}, flags));
    for (int flags : {0, 4, 16})  // more than one block of C, each in two pieces of k
      expect_the_definition(make,
                            with_flags({.m = 290, .n = 1330, .k = 300, .in = DType::kBF16}, flags));
  }
}

// Rows of whole cache lines, close to each other or as far that they collide in the first cache.
TEST(Matmul, PanelsMatchTheDefinitionWhereRowsOfAAreAligned) {
  for (const MakePlan& make : panel_products())
    for (int64_t gap : {0, 32, 2048})
      for (int64_t m : {1, 31, 32, 64, 70})
        for (int64_t k : {32, 64, 608})
          for (int flags = 0; flags < kFlags; ++flags)
            expect_the_definition(
                make, with_flags({.m = m, .n = 33, .k = k, .in = DType::kBF16}, flags), gap);
}

// With rows and a beginning of whole lines and without; whole panels and parts of them.
TEST(Matmul, PanelsStreamWhatIsColdAsTheyStoreTheRest) {
  std::vector<std::pair<MakePlan, bool>> products;
  for (const MakePlan& make : panel_products()) products.emplace_back(make, false);
  for (const MakePlan& make : int8_panel_products()) products.emplace_back(make, true);
  for (const auto& [make, int8] : products)
    for (const auto& [out, gap, k] : {std::tuple{DType::kF32, 0, 40},
                                      {DType::kF32, 0, 700},
                                      {DType::kF32, 32, 300},
                                      {DType::kF32, 3, 300},
                                      {DType::kBF16, 0, 40},
                                      {DType::kBF16, 0, 700},
                                      {DType::kBF16, 32, 300},
                                      {DType::kBF16, 3, 300}}) {
      MatmulSpec s{.m = 100, .n = 160, .k = k, .in = DType::kBF16, .out = out, .int8 = int8};
      s.lda = s.k, s.ldb = s.n, s.ldc = s.n + gap;
      const Operand a(s.m * s.k, 1), b(s.k * s.n, 2);
      Buffer want(s.m * s.ldc * 4 + 64), got(s.m * s.ldc * 4 + 64);
      for (int64_t shift : {0, 4}) {
        std::memset(want.data(), 1, static_cast<size_t>(want.bytes()));
        std::memset(got.data(), 1, static_cast<size_t>(got.bytes()));
        s.cold = false;
        make(s)->run(a.data(s.in), b.data(s.in), nullptr, want.as<char>() + shift);
        s.cold = true;
        make(s)->run(a.data(s.in), b.data(s.in), nullptr, got.as<char>() + shift);
        EXPECT_EQ(std::memcmp(want.data(), got.data(), static_cast<size_t>(got.bytes())), 0)
            << name_of(out) << " gap " << gap << " k " << k << " shift " << shift;
      }
    }
}

// Packed in strips of 2 panels and 2 tiles of k; A in place too.
TEST(Matmul, PanelsMatchTheDefinitionInStrips) {
  for (const MakePlan& make : panel_products({.k = 64, .bytes = 2 * 2 * 2048}))
    for (int64_t m : {70, 130})
      for (int64_t n : {64, 140})
        for (int64_t k : {64, 160})
          for (int flags = 0; flags < kFlags; ++flags)
            for (int64_t gap : {3, 32})
              expect_the_definition(
                  make, with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16}, flags), gap);
}

// All layouts; C =, C +=, and C = of bf16.
constexpr int kInt8Flags[] = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19};
MatmulSpec int8_product(int64_t m, int64_t n, int64_t k, int flags) {
  return with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16, .int8 = true}, flags);
}

TEST(Matmul, Int8PanelsMatchTheDefinitionForAllLayouts) {
  for (const MakePlan& make : int8_panel_products()) {
    for (int64_t m : {1, 16, 17, 32, 70})
      for (int64_t n : {1, 16, 31, 32, 65})
        for (int64_t k : {1, 3, 4, 63, 64, 65, 130})
          for (int flags : kInt8Flags) expect_the_definition(make, int8_product(m, n, k, flags));
    for (int flags : kInt8Flags) {
      expect_the_definition(make, int8_product(70, 65, 2100, flags));
      expect_the_definition(make, int8_product(1100, 40, 64, flags));
      expect_the_definition(make, int8_product(33, 34, flags < 16 ? 8300 : 4096, flags));
      expect_the_definition(make, int8_product(70, 100, 4096, flags));  // looked through in parts
    }
  }
}

// k on both sides of what one step serves; columns beyond a vector and beyond what is rounded at a
// time.
TEST(Matmul, Int8ByOnednnMatchesTheDefinitionForAllLayouts) {
  if (kernels::why_not_matmul_onednn_int8() != nullptr) return;  // no such instructions here
  for (DType in : {DType::kBF16, DType::kF32})
    for (int flags : kInt8Flags) {
      if (flags >= 16 && in == DType::kF32) continue;  // C of bf16 is from bf16
      for (int64_t m : {1, 17, 70})
        for (int64_t n : {1, 16, 65})
          for (int64_t k : {1, 31, 64, 130}) {
            MatmulSpec s = int8_product(m, n, k, flags);
            s.in = in;
            expect_the_definition(kernels::matmul_onednn_int8, s);
          }
      MatmulSpec s = int8_product(300, 280, flags < 16 ? 4200 : 4096, flags);
      s.in = in;
      expect_the_definition(kernels::matmul_onednn_int8, s);
    }
  // More rows of C than its whole numbers have room for.
  for (int flags : {0, 1})
    expect_the_definition(kernels::matmul_onednn_int8, int8_product(2100, 1000, 3, flags));
}

TEST(Matmul, Int8PanelsMatchTheDefinitionInStrips) {
  for (const MakePlan& make : int8_panel_products(2 * 3 * 2048))  // 2 panels of 3 tiles
    for (int64_t m : {70, 130})
      for (int64_t n : {64, 140})
        for (int flags : kInt8Flags) expect_the_definition(make, int8_product(m, n, 160, flags));
  // More than one block of C, each in two pieces of k.
  for (const MakePlan& make : int8_panel_products())
    for (int flags : {0, 4, 16}) expect_the_definition(make, int8_product(290, 1330, 640, flags));
}

// Half a step of A's row times the column's magnitudes, and the other way round.
TEST(Matmul, Int8IsAsFarFromTheExactProductAsItsStepsSay) {
  MatmulSpec s = int8_product(40, 30, 200, 0);
  s.lda = s.k, s.ldb = s.n, s.ldc = s.n;
  const Operand a(s.m * s.lda, 1), b(s.k * s.ldb, 2);
  std::vector<float> exact(40 * 30), got(exact.size());
  kernels::matmul_ref(s)->run(a.data(s.in), b.data(s.in), nullptr, got.data());
  s.int8 = false;
  kernels::matmul_ref(s)->run(a.data(s.in), b.data(s.in), nullptr, exact.data());
  double worst = 0;
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j) {
      double most_a = 0, most_b = 0, sum_a = 0, sum_b = 0;
      for (int64_t p = 0; p < s.k; ++p) {
        const double x = std::fabs(double(a.f32[static_cast<size_t>(i * s.lda + p)])),
                     y = std::fabs(double(b.f32[static_cast<size_t>(p * s.ldb + j)]));
        most_a = std::max(most_a, x), most_b = std::max(most_b, y), sum_a += x, sum_b += y;
      }
      const double half_a = most_a / 254, half_b = most_b / 254;
      const double bound = half_a * sum_b + half_b * sum_a + double(s.k) * half_a * half_b + 1e-4;
      const auto at = static_cast<size_t>(i * s.n + j);
      const double error = std::fabs(double(got[at]) - double(exact[at]));
      EXPECT_LE(error, bound) << i << " " << j;
      worst = std::max(worst, error);
    }
  EXPECT_GT(worst, 0.01);  // it did round
}

TEST(Matmul, Int8MakesNanOfRowsAndColumnsThatAreNotFiniteAndZeroOfZeros) {
  const MatmulSpec s{
      .m = 40, .n = 40, .k = 70, .in = DType::kBF16, .lda = 70, .ldb = 40, .ldc = 40, .int8 = true};
  Operand a(s.m * s.lda, 1), b(s.k * s.ldb, 2);
  const auto zero = to_bf16(0.0f);
  for (int64_t p = 0; p < s.k; ++p) {
    a.bf16[static_cast<size_t>(3 * s.lda + p)] = zero;
    b.bf16[static_cast<size_t>(p * s.ldb + 5)] = to_bf16(1e-37f);  // as good as zero
  }
  a.bf16[7 * 70 + 69] = to_bf16(std::numeric_limits<float>::infinity());
  b.bf16[2 * 40 + 33] = to_bf16(std::numeric_limits<float>::quiet_NaN());
  std::vector<MakePlan> products = int8_panel_products();
  products.push_back(kernels::matmul_ref);
  if (kernels::why_not_matmul_onednn_int8() == nullptr)
    products.push_back(kernels::matmul_onednn_int8);
  for (const MakePlan& make : products) {
    std::vector<float> got(40 * 40, 1.0f);
    make(s)->run(a.bf16.data(), b.bf16.data(), nullptr, got.data());
    for (int64_t i = 0; i < 40; ++i)
      for (int64_t j = 0; j < 40; ++j) {
        const float v = got[static_cast<size_t>(i * 40 + j)];
        EXPECT_EQ(std::isnan(v), i == 7 || j == 33) << i << " " << j;
        EXPECT_EQ(v == 0, (i == 3 && j != 33) || (j == 5 && i != 7)) << i << " " << j;
      }
  }
}

// Values whose last byte is the last one of a page, behind which nothing may be read.
class AtTheEndOfAPage {
 public:
  explicit AtTheEndOfAPage(const std::vector<BF16>& values)
      : bytes_(values.size() * sizeof(BF16)), room_((bytes_ + kPage - 1) / kPage * kPage) {
    map_ = static_cast<char*>(
        mmap(nullptr, room_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(map_ + room_, kPage, PROT_NONE);
    std::memcpy(map_ + room_ - bytes_, values.data(), bytes_);
  }
  ~AtTheEndOfAPage() { munmap(map_, room_ + kPage); }
  AtTheEndOfAPage(const AtTheEndOfAPage&) = delete;
  const void* data() const { return map_ + room_ - bytes_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t bytes_, room_;
  char* map_;
};

void expect_nothing_read_behind_operands(const MakePlan& make, MatmulSpec s) {
  s.lda = s.trans_a ? s.m : s.k, s.ldb = s.trans_b ? s.k : s.n, s.ldc = s.n;
  const Operand a(s.m * s.k, 1), b(s.k * s.n, 2);
  std::vector<float> want(static_cast<size_t>(s.m * s.n)), got(want.size());
  make(s)->run(a.bf16.data(), b.bf16.data(), nullptr, want.data());
  const AtTheEndOfAPage last_a(a.bf16), last_b(b.bf16);
  make(s)->run(last_a.data(), last_b.data(), nullptr, got.data());
  EXPECT_EQ(got, want);
}

TEST(Matmul, PanelsReadNothingBehindTheirOperands) {
  for (int64_t m : {1, 16, 33, 64})
    for (int64_t n : {1, 17, 32, 63})
      for (int64_t k : {1, 31, 64, 67})
        for (int flags = 0; flags < 4; ++flags) {
          for (const MakePlan& make : panel_products())
            expect_nothing_read_behind_operands(
                make, with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16}, flags));
          for (const MakePlan& make : int8_panel_products())
            expect_nothing_read_behind_operands(make, int8_product(m, n, k, flags));
        }
}

void expect_the_same_bits_for_any_number_of_threads(const MakePlan& make, bool int8) {
  const MatmulSpec s{.m = 300,
                     .n = 200,
                     .k = 700,
                     .in = DType::kBF16,
                     .trans_a = true,
                     .lda = 300,
                     .ldb = 200,
                     .ldc = 200,
                     .int8 = int8};
  const Operand a(700 * 300, 1), b(700 * 200, 2);
  std::vector<float> want;
  for (int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    std::vector<float> got(300 * 200);
    make(s)->run(a.data(s.in), b.data(s.in), nullptr, got.data());
    if (want.empty()) want = got;
    EXPECT_EQ(got, want) << threads << " threads";
  }
  set_num_threads(0);
}

TEST(Matmul, PanelsGiveTheSameBitsForAnyNumberOfThreads) {
  for (const MakePlan& make : panel_products())
    expect_the_same_bits_for_any_number_of_threads(make, false);
  for (const MakePlan& make : int8_panel_products())
    expect_the_same_bits_for_any_number_of_threads(make, true);
}

TEST(Matmul, TakesPanelsForManyRowsOfBf16Only) {
  if (forced_kernel().empty()) {
    const auto can = [](const char* (*why_not)(PanelUnit)) {
      return why_not(PanelUnit::kAmx) == nullptr      ? "amx"
             : why_not(PanelUnit::kAvx512) == nullptr ? "avx512"
                                                      : "onednn";
    };
    const std::string panels = can(kernels::why_not_matmul_panels),
                      int8 = can(kernels::why_not_matmul_panels_int8);
    const auto name = [](DType in, int64_t m, bool trans_a) {
      return matmul_kernel_name({.m = m, .n = 64, .k = 64, .in = in, .trans_a = trans_a});
    };
    EXPECT_EQ(name(DType::kBF16, 1024, false), panels);
    EXPECT_EQ(name(DType::kBF16, 512, true), panels);
    EXPECT_EQ(name(DType::kBF16, 256, false), panels == "avx512" ? panels : "onednn");
    EXPECT_EQ(name(DType::kBF16, 255, false), "onednn");
    EXPECT_EQ(name(DType::kBF16, 511, true), "onednn");
    EXPECT_EQ(name(DType::kBF16, 1, true), "onednn");
    EXPECT_EQ(name(DType::kF32, 1024, true), "onednn");
    const bool onednn = kernels::why_not_matmul_onednn_int8() == nullptr;
    EXPECT_EQ(matmul_kernel_name({.m = 1, .n = 1, .k = 1, .in = DType::kBF16, .int8 = true}),
              int8 == "onednn" && !onednn ? "ref" : int8);
  }
  EXPECT_THROW(kernels::matmul_panels(PanelUnit::kAmx,
                                      {.m = 1, .n = 1, .k = 1, .lda = 1, .ldb = 1, .ldc = 1}),
               Error);
}

// In threads of their own, which keep nothing of products before these.
TEST(Matmul, KeepsTheWorkspaceThatItSays) {
  const MatmulSpec forward{.m = 2048,
                           .n = 4000,
                           .k = 2048,
                           .in = DType::kBF16,
                           .trans_b = true,
                           .lda = 2048,
                           .ldb = 2048,
                           .ldc = 4000},
      gradient{.m = 2048,
               .n = 4000,
               .k = 1024,
               .in = DType::kBF16,
               .trans_a = true,
               .lda = 2048,
               .ldb = 4000,
               .ldc = 4000};
  Buffer a(2048 * 2048 * 2), b(4000 * 2048 * 2), c(2048 * 4000 * 4);
  for (Buffer* buffer : {&a, &b, &c})
    std::memset(buffer->data(), 0, static_cast<size_t>(buffer->bytes()));
  make_matmul(forward)->run(a.data(), b.data(), nullptr,
                            c.as<float>());  // loads what is loaded once
  std::vector<MatmulSpec> specs{forward, gradient};
  if (!int8_panel_products().empty()) {
    specs.push_back(forward);
    specs.back().int8 = true;
  }
  for (const MatmulSpec& spec : specs) {
    int64_t kept = 0;
    std::thread([&] {
      const auto product = make_matmul(spec);
      const int64_t before = testing::resident_bytes();
      product->run(a.data(), b.data(), nullptr, c.as<float>());
      kept = testing::resident_bytes() - before;
    }).join();
    const int64_t said = matmul_workspace_bytes(spec);
    if (matmul_kernel_name(spec) == "onednn") {
      EXPECT_EQ(said, 0);
      continue;
    }
    EXPECT_GT(said, int64_t{8} << 20);
    // Either way: pages of 2 MiB at both ends of two buffers, and what a team of threads takes.
    EXPECT_NEAR(static_cast<double>(kept), static_cast<double>(said), 0x1p23) << spec.trans_a;
  }
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

TEST(Matmul, RefusesToRoundOperandsWithABiasOrSumsTwice) {
  MatmulSpec s{.m = 4, .n = 4, .k = 8, .lda = 8, .ldb = 4, .ldc = 4, .int8 = true};
  EXPECT_NO_THROW(make_matmul(s));
  s.in = DType::kBF16, s.bias = true;
  EXPECT_THROW(make_matmul(s), Error);
  s.bias = false, s.out = DType::kBF16;
  EXPECT_NO_THROW(make_matmul(s));
  s.k = s.lda = 4097;  // two steps along k, whose sums would be rounded in between
  EXPECT_THROW(make_matmul(s), Error);
}

TEST(Matmul, RefusesToRoundWhatItAddsTo) {
  MatmulSpec s{.m = 4, .n = 4, .k = 8, .out = DType::kBF16, .lda = 8, .ldb = 4, .ldc = 4};
  EXPECT_THROW(make_matmul(s), Error);  // from f32
  s.in = DType::kBF16;
  EXPECT_NO_THROW(make_matmul(s));
  s.accumulate = true;
  EXPECT_THROW(make_matmul(s), Error);
}

TEST(Matmul, RefusesStridesThatAreTooShort) {
  EXPECT_THROW(make_matmul({.m = 4, .n = 4, .k = 8, .lda = 4, .ldb = 4, .ldc = 4}), Error);
}

TEST(Matmul, RefusesADeviceThatWasNotBuilt) {
  if (why_no_cuda() == nullptr) return;  // built with CUDA: kernels/cuda has its own tests
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

// cuBLASLt on all ways that the graph uses it: operands of either order, rows apart, bf16 and f32.
TEST(Matmul, OnAGpuIsTheDefinition) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  const DeviceScope scope({Device::Kind::kCuda, 0});
  const auto make_on_gpu = [](const MatmulSpec& spec) -> std::unique_ptr<MatmulPlan> {
    // Data goes there and back for each product.
    struct OnGpu : MatmulPlan {
      MatmulSpec s;
      std::unique_ptr<MatmulPlan> plan;
      void run(const void* a, const void* b, const float* bias, void* c,
               const float* from) const override {
        const Device gpu = current_device();
        const auto up = [&](const void* data, int64_t bytes) {
          Buffer buffer(bytes, gpu);
          if (data != nullptr) copy_to_device(buffer.data(), data, bytes);
          return buffer;
        };
        const int64_t in = size_of(s.in), of_c = s.m * s.ldc * size_of(s.out);
        Buffer a_there = up(a, (s.trans_a ? s.k : s.m) * s.lda * in),
               b_there = up(b, (s.trans_b ? s.n : s.k) * s.ldb * in),
               bias_there = up(bias, s.bias ? 4 * s.n : 0), c_there = up(c, of_c),
               from_there = up(from, from != nullptr ? of_c : 0);
        plan->run(a_there.data(), b_there.data(), bias_there.as<float>(), c_there.data(),
                  from_there.as<float>());
        copy_to_host(c, c_there.data(), of_c);
      }
    };
    auto product = std::make_unique<OnGpu>();
    product->s = spec;
    product->plan = make_matmul(spec);
    return product;
  };
  for (DType in : {DType::kF32, DType::kBF16})
    for (bool trans_a : {false, true})
      for (bool trans_b : {false, true}) {
        if (trans_a && trans_b) continue;
        for (bool accumulate : {false, true})
          expect_the_definition(make_on_gpu, {.m = 72,
                                              .n = 56,
                                              .k = 96,
                                              .in = in,
                                              .trans_a = trans_a,
                                              .trans_b = trans_b,
                                              .accumulate = accumulate,
                                              .bias = !accumulate});
        if (in == DType::kBF16)
          expect_the_definition(make_on_gpu, {.m = 33,
                                              .n = 40,
                                              .k = 64,
                                              .in = in,
                                              .out = DType::kBF16,
                                              .trans_a = trans_a,
                                              .trans_b = trans_b});
      }
}

TEST(ComputeRates, ArePositive) {
  EXPECT_GT(compute_rates().f32, 1e8);
  EXPECT_GT(compute_rates().bf16, 1e6);
}

}  // namespace
}  // namespace signround
