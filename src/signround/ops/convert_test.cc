#include "signround/ops/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "signround/ops/add.h"
#include "signround/ops/row_testing.h"

namespace signround {
namespace {

using namespace testing;

template <class T>
T narrow(float v) {
  if constexpr (std::is_same_v<T, BF16>) return to_bf16(v);
  if constexpr (std::is_same_v<T, F16>) return to_f16(v);
}

// 2^18 patterns spread over all f32, and the neighbourhood of each rounding boundary: subnormals,
// infinities, NaNs.
std::vector<float> patterns() {
  std::vector<float> values;
  for (uint64_t u = 0; u < (uint64_t{1} << 32); u += (1 << 14) + 1)
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(u)));
  for (uint32_t base : {0x00000000u, 0x33000000u, 0x33800000u, 0x38800000u, 0x387fe000u,
                        0x477ff000u, 0x47800000u, 0x3f800000u, 0x3f808000u, 0x3f801000u,
                        0x7f7fffffu, 0x7f800000u, 0x7f7f8000u, 0x7fc00000u, 0x7fff8000u})
    for (uint32_t offset = 0; offset < 9; ++offset)
      for (uint32_t sign : {0u, 0x80000000u})
        if (base + offset >= 4) values.push_back(std::bit_cast<float>((base + offset - 4) | sign));
  while (values.size() % 8 != 0) values.push_back(0);
  return values;
}

// A GPU makes one NaN of all, except where bits are only moved.
template <class T>
bool both_nan(T a, T b) {
  return on_cuda() && std::isnan(to_f32(a)) && std::isnan(to_f32(b));
}

template <class T>
void narrows_as_the_scalar_does() {
  const auto values = patterns();
  std::vector<T> got(values.size());
  const int64_t d = static_cast<int64_t>(values.size());
  for_each_kernel([&] {
    convert(1, d, {values.data(), DType::kF32, d}, {got.data(), GuardedRows<T>::dtype(), d});
    for (size_t j = 0; j < values.size(); ++j) {
      const T want = narrow<T>(values[j]);
      ASSERT_TRUE(got[j].bits == want.bits || both_nan(got[j], want))
          << std::hex << std::bit_cast<uint32_t>(values[j]) << " became " << got[j].bits;
    }
  });
}

template <class T>
void widens_as_the_scalar_does() {
  std::vector<T> values(65536);
  for (uint32_t u = 0; u < 65536; ++u) values[u].bits = static_cast<uint16_t>(u);
  std::vector<float> got(values.size());
  for_each_kernel([&] {
    convert(1, 65536, {values.data(), GuardedRows<T>::dtype(), 65536},
            {got.data(), DType::kF32, 65536});
    for (size_t j = 0; j < values.size(); ++j) {
      const float want = to_f32(values[j]);
      ASSERT_TRUE(std::bit_cast<uint32_t>(got[j]) == std::bit_cast<uint32_t>(want) ||
                  (on_cuda() && std::isnan(got[j]) && std::isnan(want)))
          << j << " became " << got[j];
    }
  });
}

TEST(Convert, NarrowsToBF16AsTheScalarDoes) { narrows_as_the_scalar_does<BF16>(); }
TEST(Convert, NarrowsToF16AsTheScalarDoes) { narrows_as_the_scalar_does<F16>(); }
TEST(Convert, WidensEveryBF16) { widens_as_the_scalar_does<BF16>(); }
TEST(Convert, WidensEveryF16) { widens_as_the_scalar_does<F16>(); }

TEST(Convert, WorksOnRowsOfEveryLength) {
  for_each_kernel([&] {
    for (int64_t d : row_lengths()) {
      auto x = GuardedRows<float>::random(3, d, 1);
      GuardedRows<BF16> b(3, d);
      GuardedRows<F16> h(3, d), from_b(3, d);
      GuardedRows<float> back(3, d), copy(3, d);
      convert(3, d, x.any(), b.out());
      convert(3, d, x.any(), h.out());
      convert(3, d, x.any(), copy.out());
      convert(3, d, b.any(), back.out());
      convert(3, d, b.any(), from_b.out());
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < d; ++j) {
          ASSERT_EQ(b.at(i, j).bits, to_bf16(x.at(i, j)).bits);
          ASSERT_EQ(h.at(i, j).bits, to_f16(x.at(i, j)).bits);
          ASSERT_EQ(back.at(i, j), to_f32(b.at(i, j)));
          ASSERT_EQ(from_b.at(i, j).bits, to_f16(to_f32(b.at(i, j))).bits);
          ASSERT_EQ(copy.at(i, j), x.at(i, j));
        }
      ASSERT_TRUE(b.guards_intact() && h.guards_intact() && from_b.guards_intact() &&
                  back.guards_intact());
    }
  });
}

TEST(Convert, EmbeddingTakesRowsOfTheTable) {
  const std::vector<int32_t> ids = {4, 0, 4, 2, 1};
  for_each_kernel([&] {
    for (int64_t d : {1, 16, 37}) {
      auto f = GuardedRows<float>::random(5, d, 1);
      auto b = GuardedRows<BF16>::random(5, d, 2);
      auto h = GuardedRows<F16>::random(5, d, 3);
      GuardedRows<float> y(5, d), scaled(5, d), from_f(5, d);
      embedding(ids, 5, d, f.any(), 1.0f, from_f.out());
      embedding(ids, 5, d, b.any(), 1.0f, y.out());
      embedding(ids, 5, d, h.any(), 1.7f, scaled.out());
      for (int64_t i = 0; i < 5; ++i)
        for (int64_t j = 0; j < d; ++j) {
          const int64_t id = ids[static_cast<size_t>(i)];
          ASSERT_EQ(from_f.at(i, j), f.at(id, j));
          ASSERT_EQ(y.at(i, j), to_f32(b.at(id, j)));
          ASSERT_EQ(scaled.at(i, j), to_f32(h.at(id, j)) * 1.7f);
        }
      ASSERT_TRUE(y.guards_intact() && scaled.guards_intact());
    }
  });
}

TEST(Convert, EmbeddingRefusesAnIdOutsideOfTheTable) {
  std::vector<float> table(12), y(12);
  for (int32_t bad : {-1, 3, 1 << 30}) {
    const std::vector<int32_t> ids = {0, bad};
    try {
      embedding(ids, 3, 4, {table.data(), DType::kF32, 4}, 1, {y.data(), DType::kF32, 4});
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(std::to_string(bad)), std::string::npos) << e.what();
    }
  }
}

TEST(Convert, RefusesOtherTypesAndRowsOverEachOther) {
  std::vector<float> x(4);
  for_each_kernel([&] {
    EXPECT_THROW(convert(2, 2, {x.data(), DType::kF32, 2}, {x.data(), DType::kF32, 0}), Error);
    EXPECT_THROW(convert(1, 4, {x.data(), DType::kI32, 4}, {x.data(), DType::kF32, 4}), Error);
    EXPECT_THROW(convert(1, 4, {x.data(), DType::kF32, 4}, {x.data(), DType::kF64, 4}), Error);
  });
}

TEST(Add, IsExactlyTheSumAndWorksInPlace) {
  for_each_kernel([&] {
    for (int64_t d : row_lengths()) {
      auto x = GuardedRows<float>::random(3, d, 1), y = GuardedRows<float>::random(3, d, 2);
      GuardedRows<float> z(3, d);
      GuardedRows<BF16> z16(3, d);
      add(3, d, x.in(), y.in(), z.out());
      add(3, d, x.in(), y.in(), z16.out());
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < d; ++j) ASSERT_EQ(z.at(i, j), x.at(i, j) + y.at(i, j));
      expect_rounded(z16, z, 3, d);
      add(3, d, x.in(), y.in(), x.out());
      for (int64_t i = 0; i < 3; ++i)
        for (int64_t j = 0; j < d; ++j) ASSERT_EQ(z.at(i, j), x.at(i, j));
      ASSERT_TRUE(z.guards_intact() && z16.guards_intact() && x.guards_intact());
    }
  });
}

}  // namespace
}  // namespace signround
