#include "signround/text/regex.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"
#include "signround/testing/expect_error.h"

namespace signround {
namespace {

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<std::string> found;
  Regex(pattern).for_each(
      text, [&](size_t begin, size_t end) { found.push_back(text.substr(begin, end - begin)); });
  return found;
}
using Found = std::vector<std::string>;

TEST(Regex, EscapesMeanWhatTheyMeanInOniguruma) {
  EXPECT_EQ(matches("\\h+", "0xFFg a\t"), (Found{"0", "FF", "a"}));  // PCRE2: horizontal space
  EXPECT_EQ(matches("\\s", "a\u180e\u2003b"), (Found{"\u2003"}));  // PCRE2 takes U+180E for a space
  EXPECT_EQ(matches("\\v", "\x0b\n"), (Found{"\x0b"}));            // PCRE2: any vertical space
  EXPECT_EQ(matches("\\w+", "a\u0301b_½ ²Ⅻ④"),
            (Found{"a\u0301b_½", "²Ⅻ"}));  // PCRE2 10.42 has no marks in \w
  EXPECT_EQ(matches("\\d+", "12٣Ⅻ"), (Found{"12٣"}));
  EXPECT_EQ(matches("[\\S]+", "a \u0085b"), (Found{"a", "b"}));
  EXPECT_EQ(matches("[\\W]+", "a -\u0301b"), (Found{" -"}));
  EXPECT_EQ(matches("\\u4eca|\\x{5929}|\\x41", "今天A"), (Found{"今", "天", "A"}));
}

TEST(Regex, BracesMayBeLiteralOrOpenOnTheLeft) {
  EXPECT_EQ(matches("a{,2}b", "aaab"), (Found{"aab"}));
  EXPECT_EQ(matches("a{x}|{}", "a{x}{}"), (Found{"a{x}", "{}"}));
}

TEST(Regex, PlusBehindBracesRepeatsAndIsNotPossessive) {
  EXPECT_EQ(matches("\\p{N}{1,3}+", "1234567 89"), (Found{"1234567", "89"}));
  EXPECT_EQ(matches("(?:ab){2}+c", "ababababc"), (Found{"ababababc"}));
  EXPECT_EQ(matches("a{2}?", "aa"), (Found{"aa"}));
  EXPECT_EQ(matches("a++a", "aaa"), Found{});  // after a plain quantifier it is possessive
}

TEST(Regex, AnchorsAreAtLinesAndTheDotStopsAtThem) {
  EXPECT_EQ(matches("^.+$", "ab\ncd\n"), (Found{"ab", "cd"}));
  EXPECT_EQ(matches("(?m:.+)", "ab\ncd"), (Found{"ab\ncd"}));
}

TEST(Regex, BracketsNest) {
  EXPECT_EQ(matches("[a[bc]d-f]+", "xabcdefg"), (Found{"abcdef"}));
  EXPECT_EQ(matches("[[:punct:]]+", "a.$€b"), (Found{".$€"}));
  EXPECT_EQ(matches("[]a]+", "a]b"), (Found{"a]"}));
}

TEST(Regex, KnowsTheCharactersOfUnicode16) {
  EXPECT_EQ(matches("\\p{L}", "\U00010d50"), (Found{"\U00010d50"}));  // Garay, Unicode 16
  EXPECT_EQ(matches("[^\\p{Han}]", "\U00031350x"), (Found{"x"}));     // CJK extension H, Unicode 15
}

TEST(Regex, EmptyMatchesCountButNotBehindAMatch) {
  std::vector<std::pair<size_t, size_t>> found;
  Regex("a*").for_each("baac", [&](size_t begin, size_t end) { found.emplace_back(begin, end); });
  EXPECT_EQ(found, (std::vector<std::pair<size_t, size_t>>{{0, 0}, {1, 3}, {4, 4}}));
}

TEST(Regex, RefusesWhatItCannotExpress) {
  for (const char* pattern : {"(", ")", "[a", "[a&&b]", "\\p{NoSuchThing}", "a\\", "(?q)", "[z-a]",
                              "\\x{110000}", "(?~a)", "[[^a]b]"})
    EXPECT_THROW(Regex{pattern}, Error) << pattern;
}

TEST(Regex, AnErrorQuotesWholeCharacters) {
  std::string pattern = "xa(";
  for (int i = 0; i < 100; ++i)
    pattern += "你";  // three bytes each: byte 200 is inside one
  testing::expect_error(ErrorKind::kUnsupported, "你...\"", [&] { Regex{pattern}; });
}

TEST(Regex, CatastrophicBacktrackingEndsInAnError) {
  EXPECT_THROW(matches("(a|a)*$b|(?:x+x+)+y", std::string(60, 'x')), Error);
}

TEST(Regex, LongRunsOfOneKindDoNotFail) {
  const std::string spaces(1 << 20, ' '), letters(1 << 20, 'a');
  EXPECT_EQ(matches("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", spaces + "x").size(), 2u);
  EXPECT_EQ(matches("[^\\r\\n\\p{L}\\p{N}]?\\p{L}+", letters).size(), 1u);
  EXPECT_EQ(matches("(?:a|b)+", letters).size(), 1u);
}

}  // namespace
}  // namespace signround
