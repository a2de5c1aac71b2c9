#include "signround/graph/stream.h"

#include <gtest/gtest.h>
#include <cstring>

#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"
#include "signround/testing/resident.h"
#include "signround/testing/temp_dir.h"

namespace signround {
namespace {

using testing::TempDir;

constexpr int64_t kSamples = 7, kSeq = 5, kCols = 33;

std::vector<float> all_of(const ActivationStream& stream) {
  std::vector<float> rows(static_cast<size_t>(stream.samples() * stream.seq_len() * stream.cols()));
  stream.gather(int64_t{0}, stream.samples(), rows.data());
  return rows;
}

TEST(ActivationStream, AFileGivesWhatMemoryGives) {
  const TempDir dir;
  const auto x = testing::random_normal(kSamples * kSeq * kCols, 3);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    ActivationStream memory(kSamples, kSeq, kCols, dtype),
        file(kSamples, kSeq, kCols, dtype, dir.path());
    for (ActivationStream* stream : {&memory, &file}) {
      stream->scatter(0, kSamples, x.data());
      stream->scatter(4, 2, x.data());  // the last one written is not the last one of all
    }
    EXPECT_EQ(all_of(file), all_of(memory)) << name_of(dtype);
    EXPECT_NE(all_of(file), x);
    const int64_t indices[] = {6, 0, 4};
    std::vector<float> some(3 * kSeq * kCols), same(some.size());
    memory.gather(indices, 3, some.data());
    file.gather(indices, 3, same.data());
    EXPECT_EQ(same, some);
    const size_t bytes = static_cast<size_t>(kSeq * kCols * size_of(dtype));
    for (const int64_t i : {int64_t{5}, int64_t{1}})
      EXPECT_EQ(std::memcmp(file.sample(i).data, memory.sample(i).data, bytes), 0) << i;
    // A copy is one: what is written to it is not seen here.
    ActivationStream copy = file.clone();
    EXPECT_EQ(all_of(copy), all_of(memory));
    copy.scatter(0, 1, x.data() + kSeq * kCols);
    EXPECT_NE(all_of(copy), all_of(memory));
    EXPECT_EQ(all_of(file), all_of(memory));
  }
}

TEST(ActivationStream, AFileHasNoNameAndTooLittleSpaceIsAnError) {
  const TempDir dir;
  {
    const ActivationStream stream(kSamples, kSeq, kCols, DType::kF32, dir.path());
    EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  }
  // What a kill in between leaves does not stand in the way, and goes.
  testing::write_file(dir / "scratch.tmp", "left over");
  ActivationStream stream(kSamples, kSeq, kCols, DType::kF32, dir.path());
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  EXPECT_EQ(all_of(stream), std::vector<float>(kSamples * kSeq * kCols));
  testing::expect_error(ErrorKind::kIo, "cannot reserve", [&] {
    ActivationStream(int64_t{1} << 30, int64_t{1} << 20, 512, DType::kF32, dir.path());
  });
  testing::expect_error(ErrorKind::kIo, "cannot create",
                        [&] { ActivationStream(1, 1, 1, DType::kF32, dir / "nowhere"); });
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(ActivationStream, AFileTakesTheMemoryOfOneSample) {
  const TempDir dir;
  constexpr int64_t kMany = 128, kRows = 512, kWide = 256;  // 64 MiB
  const auto sample = testing::random_normal(kRows * kWide, 5);
  std::vector<float> rows(sample.size());
  const int64_t before = testing::resident_bytes();
  ActivationStream stream(kMany, kRows, kWide, DType::kF32, dir.path());
  for (int64_t i = 0; i < kMany; ++i) stream.scatter(i, 1, sample.data());
  for (int64_t i = 0; i < kMany; ++i) stream.gather(i, 1, rows.data());
  EXPECT_EQ(rows, sample);
  // One sample is half a MiB; a page of 2 MiB where the system gives such; what threads take.
  EXPECT_LT(testing::resident_bytes() - before, int64_t{8} << 20);
}

}  // namespace
}  // namespace signround
