#include "signround/base/error.h"

#include <gtest/gtest.h>

namespace signround {
namespace {

TEST(Error, AnExcerptIsNeverCutInsideACharacter) {
  EXPECT_EQ(excerpt("abc", 3), "abc");
  EXPECT_EQ(excerpt("abcd", 3), "abc...");
  EXPECT_EQ(excerpt("ab\xe4\xbd\xa0", 5), "ab\xe4\xbd\xa0");  // a character of three bytes
  EXPECT_EQ(excerpt("ab\xe4\xbd\xa0", 4), "ab...");
  EXPECT_EQ(excerpt("ab\xe4\xbd\xa0", 3), "ab...");
  EXPECT_EQ(excerpt("\xf0\x9f\x98\x80x", 4), "\xf0\x9f\x98\x80...");
  EXPECT_EQ(excerpt("", 0), "");
}

TEST(Error, AnExcerptIsUtf8OnOneLineWhateverTheFileHolds) {
  EXPECT_EQ(excerpt("a\nb\x7f"), "a\\x0ab\\x7f");
  EXPECT_EQ(excerpt("\xff"
                    "a\xc3"),
            "\\xffa\\xc3");                               // no UTF-8; a character that ends early
  EXPECT_EQ(excerpt("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(excerpt("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(excerpt("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(excerpt("\xed\x9f\xbf\xf4\x8f\xbf\xbf"), "\xed\x9f\xbf\xf4\x8f\xbf\xbf");
}

}  // namespace
}  // namespace signround
