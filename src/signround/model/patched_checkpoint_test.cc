#include "signround/model/patched_checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>

#include "signround/testing/expect_error.h"

namespace signround {
namespace {

using testing::expect_error;

// "w" (2, 2) of F32 and "norm" (3) of BF16, all zero.
class InMemory final : public Checkpoint {
 public:
  InMemory() { set_tensors({{"w", DType::kF32, {2, 2}}, {"norm", DType::kBF16, {3}}}); }
  std::span<const std::byte> bytes(std::string_view name, std::vector<std::byte>&) const override {
    return std::span(zeros_).first(static_cast<size_t>(at(name).nbytes()));
  }
  void read_f32(std::string_view name, int64_t, int64_t rows, float* out) const override {
    std::fill_n(out, rows * (name == "w" ? 2 : 1), 0.0f);
  }
  void release(std::string_view) const override {}
  std::vector<ExtraFile> extra_files() const override { return {}; }
  int64_t bytes_on_disk() const override { return 22; }

 private:
  std::vector<std::byte> zeros_ = std::vector<std::byte>(16);
};

// 1 + 2^-9 is no bf16 number; both ways of reading give the one that is stored.
TEST(PatchedCheckpoint, GivesNewValuesInTheTensorsOwnType) {
  const InMemory base;
  const PatchedCheckpoint patched(base, {{"norm", {1 + 0x1p-9f, -2, 0.5f}}});
  const std::vector<float> expected = {1, -2, 0.5f};
  EXPECT_EQ(patched.read_all_f32("norm"), expected);
  float last;
  patched.read_f32("norm", 2, 1, &last);
  EXPECT_EQ(last, 0.5f);
  std::vector<std::byte> scratch;
  const auto bytes = patched.bytes("norm", scratch);
  ASSERT_EQ(bytes.size(), 6u);
  for (size_t i = 0; i < 3; ++i) {
    BF16 v;
    std::memcpy(&v, bytes.data() + 2 * i, 2);
    EXPECT_EQ(to_f32(v), expected[i]);
  }
  EXPECT_EQ(patched.read_all_f32("w"), std::vector<float>(4));
  EXPECT_EQ(patched.bytes("w", scratch).data(), base.bytes("w", scratch).data());
}

TEST(PatchedCheckpoint, RefusesValuesThatDoNotFit) {
  const InMemory base;
  expect_error(ErrorKind::kInvalidArgument, "no tensor bias", [&] {
    PatchedCheckpoint(base, {{"bias", {1}}});
  });
  expect_error(ErrorKind::kInvalidArgument, "its new values are 2", [&] {
    PatchedCheckpoint(base, {{"norm", {1, 2}}});
  });
  expect_error(ErrorKind::kInvalidArgument, "its new values are 4", [&] {
    PatchedCheckpoint(base, {{"w", {1, 2, 3, 4}}});
  });
}

}  // namespace
}  // namespace signround
