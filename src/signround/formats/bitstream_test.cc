#include "signround/formats/bitstream.h"

#include <gtest/gtest.h>

#include <vector>

#include "signround/base/random.h"

namespace signround {
namespace {

std::vector<uint8_t> random_codes(int64_t n, int bits, uint64_t seed) {
  PythonRandom random(seed);
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  for (uint8_t& c : codes) c = static_cast<uint8_t>(random.next_u32() >> (32 - bits));
  return codes;
}

TEST(Bitstream, FastPackingEqualsTheReferenceForAllSmallShapes) {
  for (int bits : {2, 3, 4, 8}) {
    for (int64_t out : {1, 2, 15, 16, 17, 31, 33, 64}) {
      for (int64_t in : {32, 64, 96, 160}) {
        const auto codes = random_codes(out * in, bits, 7);
        std::vector<uint32_t> want(static_cast<size_t>(words_of(in, bits) * out)),
            got(want.size(), 0xdeadbeef);
        pack_columns_ref(codes.data(), out, in, bits, want.data());
        pack_columns(codes.data(), out, in, bits, got.data());
        EXPECT_EQ(got, want) << bits << " bits, [" << out << ", " << in << "]";
      }
    }
  }
}

TEST(Bitstream, ARowIsTheStreamOfItsColumn) {
  for (int bits : {2, 3, 4, 8}) {
    const auto codes = random_codes(96, bits, 11);
    std::vector<uint32_t> want(static_cast<size_t>(words_of(96, bits))), got(want.size());
    pack_columns_ref(codes.data(), 1, 96, bits, want.data());
    pack_row(codes.data(), 96, bits, got.data());
    EXPECT_EQ(got, want) << bits << " bits";
  }
}

TEST(Bitstream, AwqPackingEqualsTheReferenceForAllSmallShapes) {
  for (int64_t out : {8, 16, 40, 64}) {
    for (int64_t in : {1, 3, 7, 8, 9, 63, 64, 65, 130}) {
      const auto codes = random_codes(out * in, 4, 13);
      std::vector<uint32_t> want(static_cast<size_t>(out / 8 * in)), got(want.size());
      pack_awq_ref(codes.data(), out, in, want.data());
      pack_awq(codes.data(), out, in, got.data());
      EXPECT_EQ(got, want) << "[" << out << ", " << in << "]";
    }
  }
}

TEST(Bitstream, ThreeBitCodesCrossWords) {
  std::vector<uint8_t> codes(32, 0);
  codes[10] = 5;  // bits 30, 31 and the lowest of the next word
  codes[21] = 6;  // bit 31 of the second word and the two lowest of the third
  codes[31] = 7;  // the top of the third
  uint32_t words[3];
  pack_row(codes.data(), 32, 3, words);
  EXPECT_EQ(words[0], 1u << 30);
  EXPECT_EQ(words[1], 1u);
  EXPECT_EQ(words[2], 3u | 7u << 29);
}

TEST(Bitstream, CodesThatDoNotFitAreSeenWhereverTheyAre) {
  for (int bits : {2, 3, 4}) {
    std::vector<uint8_t> codes(200000, static_cast<uint8_t>((1 << bits) - 1));
    EXPECT_TRUE(all_codes_fit(codes.data(), 200000, (1 << bits) - 1));
    for (size_t at : {size_t{0}, size_t{99999}, size_t{199999}}) {
      codes[at] = static_cast<uint8_t>(1 << bits);
      EXPECT_FALSE(all_codes_fit(codes.data(), 200000, (1 << bits) - 1))
          << bits << " bits, at " << at;
      codes[at] = 0;
    }
  }
}

}  // namespace
}  // namespace signround
