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

TEST(Hash, GitBlobsAreNamedAsGitDoes) {
  // printf 'hello\n' | git hash-object --stdin; and of no bytes
  EXPECT_EQ(git_blob_hex("hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
  EXPECT_EQ(git_blob_hex(""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
}

}  // namespace
}  // namespace signround
