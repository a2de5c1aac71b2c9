#include "signround/model/scaled_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "signround/testing/expect_error.h"

namespace signround {
namespace {

using testing::expect_error;

// Two bf16 tensors in memory: "w" (2, 3) = 1 .. 6 and "norm" (3) = 0.5, 1, 2.
class InMemory final : public Checkpoint {
 public:
  InMemory() { set_tensors({{"w", DType::kBF16, {2, 3}}, {"norm", DType::kBF16, {3}}}); }
  std::span<const std::byte> bytes(std::string_view name,
                                   std::vector<std::byte>&) const override {
    const auto& values = name == "w" ? w_ : norm_;
    return std::as_bytes(std::span(values));
  }
  void read_f32(std::string_view name, int64_t row, int64_t rows, float* out) const override {
    const int64_t columns = name == "w" ? 3 : 1;
    for (int64_t i = 0; i < rows * columns; ++i)
      out[i] = to_f32((name == "w" ? w_ : norm_)[static_cast<size_t>(row * columns + i)]);
  }
  void release(std::string_view) const override {}
  std::vector<ExtraFile> extra_files() const override { return {}; }
  int64_t bytes_on_disk() const override { return 18; }

 private:
  std::vector<BF16> w_ = {to_bf16(1), to_bf16(2), to_bf16(3), to_bf16(4), to_bf16(5), to_bf16(6)},
                    norm_ = {to_bf16(0.5), to_bf16(1), to_bf16(2)};
};

std::vector<float> values(const Checkpoint& checkpoint, std::string_view name) {
  std::vector<std::byte> scratch;
  const auto bytes = checkpoint.bytes(name, scratch);
  std::vector<float> result(bytes.size() / 2);
  for (size_t i = 0; i < result.size(); ++i) {
    BF16 v;
    std::memcpy(&v, bytes.data() + 2 * i, 2);
    result[i] = to_f32(v);
  }
  return result;
}

TEST(ScaledCheckpoint, MultipliesRowsAndColumns) {
  const InMemory base;
  const ScaledCheckpoint scaled(base, {{"w", {.rows = {1, 10}, .columns = {1, 0.5f, 2}}}});
  const std::vector<float> expected = {1, 1, 6, 40, 25, 120};
  EXPECT_EQ(values(scaled, "w"), expected);
  EXPECT_EQ(scaled.read_all_f32("w"), expected);
  float row[3];
  scaled.read_f32("w", 1, 1, row);
  EXPECT_EQ(std::vector<float>(row, row + 3), (std::vector<float>{40, 25, 120}));
}

TEST(ScaledCheckpoint, LeavesOtherTensorsWhereTheyAre) {
  const InMemory base;
  const ScaledCheckpoint scaled(base, {{"w", {.rows = {1, 10}, .columns = {}}}});
  std::vector<std::byte> scratch;
  EXPECT_EQ(scaled.bytes("norm", scratch).data(), base.bytes("norm", scratch).data());
}

TEST(ScaledCheckpoint, ScalesANormWithWhatTheModelAddsToIt) {
  const InMemory base;
  const ScaledCheckpoint scaled(base, {{"norm", {.rows = {2, 2, 2}, .columns = {}, .offset = 1}}});
  EXPECT_EQ(values(scaled, "norm"), (std::vector<float>{2, 3, 5}));  // (w + 1) * 2 - 1
}

TEST(ScaledCheckpoint, RoundsToTheTensorsTypeBothWays) {
  const InMemory base;
  const ScaledCheckpoint scaled(base, {{"w", {.rows = {1, 1.0001f}, .columns = {}}}});
  EXPECT_EQ(values(scaled, "w"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(scaled.read_all_f32("w"), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

TEST(ScaledCheckpoint, RefusesFactorsThatDoNotFit) {
  const InMemory base;
  const auto make = [&](const char* name, TensorFactors factors) {
    ScaledCheckpoint(base, {{name, std::move(factors)}});
  };
  expect_error(ErrorKind::kInvalidArgument, "no tensor v", [&] { make("v", {}); });
  expect_error(ErrorKind::kInvalidArgument, "[2, 3]",
               [&] { make("w", {.rows = {1, 2, 3}, .columns = {}}); });
}

}  // namespace
}  // namespace signround
