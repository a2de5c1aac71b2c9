#include "signround/base/hash.h"

#include <gtest/gtest.h>

namespace signround {
namespace {

TEST(Hash, Sha256OfTheStandardsExample) {  // FIPS 180-2, example B.1
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Hash, HexKeepsLeadingZeros) { EXPECT_EQ(hex(0xabc), "0000000000000abc"); }

TEST(Hash, Xxh3OfNothingIsTheKnownConstant) {
  EXPECT_EQ(hex(xxh3(std::string_view())), "2d06800538d394c2");
}

}  // namespace
}  // namespace signround
