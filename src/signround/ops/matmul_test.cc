#include "signround/ops/matmul.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <algorithm>
#include <cmath>
#include <cstring>
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

using MakePlan = std::unique_ptr<MatmulPlan> (*)(const MatmulSpec&);

std::unique_ptr<MatmulPlan> in_small_strips(const MatmulSpec& spec) {
  return kernels::matmul_amx(spec, {.k = 64, .bytes = 2 * 2 * 2048});  // 2 panels of 2 tiles
}

// One product of the kernel and of the definition, with rows that lie apart from each other.
void expect_the_definition(MakePlan make, MatmulSpec s, int64_t gap_a = 3) {
  s.lda = (s.trans_a ? s.m : s.k) + gap_a, s.ldb = (s.trans_b ? s.k : s.n) + 5, s.ldc = s.n + 2;
  const Operand a((s.trans_a ? s.k : s.m) * s.lda, 1), b((s.trans_b ? s.n : s.k) * s.ldb, 2);
  const auto bias = testing::random_normal(s.n, 3);
  auto want = repeated_normal(s.m * s.ldc, 4), got = want;
  kernels::matmul_ref(s)->run(a.data(s.in), b.data(s.in), bias.data(), want.data());
  make(s)->run(a.data(s.in), b.data(s.in), bias.data(), got.data());
  // Products of bf16 values are exact in f32, so in both types only the k + 2 sums round, each by
  // eps/2 of a partial sum that is below k * max|a| * max|b| + 10 (values here are below 5).
  const double tolerance = 6e-8 * double(s.k + 2) * (25.0 * double(s.k) + 10);
  for (size_t i = 0; i < got.size(); ++i) {
    // Between the rows nothing may be written.
    const bool inside = static_cast<int64_t>(i) % s.ldc < s.n;
    ASSERT_NEAR(got[i], want[i], inside ? tolerance : 0)
        << "at " << i << " m " << s.m << " n " << s.n << " k " << s.k << " transposed " << s.trans_a
        << s.trans_b << " accumulate " << s.accumulate << " bias " << s.bias;
  }
}

MatmulSpec with_flags(MatmulSpec s, int flags) {
  s.trans_a = flags & 1, s.trans_b = flags & 2, s.accumulate = flags & 4, s.bias = flags & 8;
  return s;
}

TEST(Matmul, OnednnMatchesTheDefinitionForAllLayouts) {
  int cases = 0;
  for (DType dtype : {DType::kF32, DType::kBF16})
    for (int64_t m : {1, 7, 33})
      for (int64_t n : {1, 16, 40})
        for (int64_t k : {1, 31, 64})
          for (int flags = 0; flags < 16; ++flags) {
            expect_the_definition(kernels::matmul_onednn,
                                  with_flags({.m = m, .n = n, .k = k, .in = dtype}, flags));
            ++cases;
          }
  EXPECT_EQ(cases, 2 * 27 * 16);
}

// Sizes on both sides of a half panel, a panel, and a pair of values of k; k beyond a block.
TEST(Matmul, AmxMatchesTheDefinitionForAllLayouts) {
  if (kernels::why_not_matmul_amx() != nullptr) return;  // no tiles here
  for (int64_t m : {1, 16, 17, 32, 70})
    for (int64_t n : {1, 16, 31, 32, 65})
      for (int64_t k : {1, 2, 31, 32, 33, 64})
        for (int flags = 0; flags < 16; ++flags)
          expect_the_definition(kernels::matmul_amx,
                                with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16}, flags));
  for (int flags = 0; flags < 16; ++flags)
    expect_the_definition(kernels::matmul_amx,
                          with_flags({.m = 70, .n = 65, .k = 700, .in = DType::kBF16}, flags));
}

// Rows of whole cache lines, close to each other or as far that they collide in the first cache.
TEST(Matmul, AmxMatchesTheDefinitionWhereRowsOfAAreAligned) {
  if (kernels::why_not_matmul_amx() != nullptr) return;  // no tiles here
  for (int64_t gap : {0, 32, 2048})
    for (int64_t m : {1, 31, 32, 64, 70})
      for (int64_t k : {32, 64, 608})
        for (int flags = 0; flags < 16; ++flags)
          expect_the_definition(kernels::matmul_amx,
                                with_flags({.m = m, .n = 33, .k = k, .in = DType::kBF16}, flags),
                                gap);
}

// Packed in strips of 64 x 64; A in place too.
TEST(Matmul, AmxMatchesTheDefinitionInStrips) {
  if (kernels::why_not_matmul_amx() != nullptr) return;  // no tiles here
  for (int64_t m : {70, 130})
    for (int64_t n : {64, 140})
      for (int64_t k : {64, 160})
        for (int flags = 0; flags < 16; ++flags)
          for (int64_t gap : {3, 32})
            expect_the_definition(in_small_strips,
                                  with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16}, flags),
                                  gap);
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

TEST(Matmul, AmxReadsNothingBehindItsOperands) {
  if (kernels::why_not_matmul_amx() != nullptr) return;  // no tiles here
  for (int64_t m : {1, 16, 33, 64})
    for (int64_t n : {1, 17, 32, 63})
      for (int64_t k : {1, 31, 64})
        for (int flags = 0; flags < 4; ++flags) {
          MatmulSpec s = with_flags({.m = m, .n = n, .k = k, .in = DType::kBF16}, flags);
          s.lda = s.trans_a ? m : k, s.ldb = s.trans_b ? k : n, s.ldc = n;
          const Operand a(m * k, 1), b(k * n, 2);
          std::vector<float> want(static_cast<size_t>(m * n)), got(want.size());
          kernels::matmul_amx(s)->run(a.bf16.data(), b.bf16.data(), nullptr, want.data());
          const AtTheEndOfAPage last_a(a.bf16), last_b(b.bf16);
          kernels::matmul_amx(s)->run(last_a.data(), last_b.data(), nullptr, got.data());
          EXPECT_EQ(got, want);
        }
}

TEST(Matmul, AmxGivesTheSameBitsForAnyNumberOfThreads) {
  if (kernels::why_not_matmul_amx() != nullptr) return;  // no tiles here
  const MatmulSpec s{.m = 300,
                     .n = 200,
                     .k = 700,
                     .in = DType::kBF16,
                     .trans_a = true,
                     .lda = 300,
                     .ldb = 200,
                     .ldc = 200};
  const Operand a(700 * 300, 1), b(700 * 200, 2);
  std::vector<float> want;
  for (int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    std::vector<float> got(300 * 200);
    kernels::matmul_amx(s)->run(a.data(s.in), b.data(s.in), nullptr, got.data());
    if (want.empty()) want = got;
    EXPECT_EQ(got, want) << threads << " threads";
  }
  set_num_threads(0);
}

TEST(Matmul, TakesTilesForManyRowsOfBf16Only) {
  if (forced_kernel().empty()) {
    const bool tiles = kernels::why_not_matmul_amx() == nullptr;
    const auto name = [](DType in, int64_t m, bool trans_a) {
      return matmul_kernel_name({.m = m, .n = 64, .k = 64, .in = in, .trans_a = trans_a});
    };
    EXPECT_EQ(name(DType::kBF16, 1024, false), tiles ? "amx" : "onednn");
    EXPECT_EQ(name(DType::kBF16, 512, true), tiles ? "amx" : "onednn");
    EXPECT_EQ(name(DType::kBF16, 512, false), "onednn");
    EXPECT_EQ(name(DType::kBF16, 1, true), "onednn");
    EXPECT_EQ(name(DType::kF32, 1024, true), "onednn");
  }
  EXPECT_THROW(kernels::matmul_amx({.m = 1, .n = 1, .k = 1, .lda = 1, .ldb = 1, .ldc = 1}), Error);
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
  for (const MatmulSpec& spec : {forward, gradient}) {
    int64_t kept = 0;
    std::thread([&] {
      const auto product = make_matmul(spec);
      const int64_t before = testing::resident_bytes();
      product->run(a.data(), b.data(), nullptr, c.as<float>());
      kept = testing::resident_bytes() - before;
    }).join();
    const int64_t said = matmul_workspace_bytes(spec);
    if (matmul_kernel_name(spec) != "amx") {
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
