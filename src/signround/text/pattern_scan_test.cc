#include "signround/text/pattern_scan.h"

#include <gtest/gtest.h>

#include "signround/base/random.h"
#include "signround/text/regex.h"
#include "signround/text/unicode.h"

namespace signround {
namespace {

// Texts in which every alternative of the patterns has its turn: letters, digits, contractions,
// runs of all kinds of white space, punctuation, marks, and characters of any plane.
std::string random_text(PythonRandom& random) {
  static const char* const kParts[] = {
      "'s",   "'LL",  "'ve",    "'t",     "'ſ",     "'",      " ", "  ",         "\n",
      "\r\n", "\t",   "\u00a0", "\u3000", "\u2028", "\u0085", "a", "Zz",         "é",
      "今",   "ß",    "1",      "23",     "٣",      "Ⅻ",      "½", ".",          "!?",
      "—",    "😀",    "\u0301", "\u200d", "\u180e", "_",      "$", "\U00031350", "\U00010d40",
      "\x01", "\x0b", "\x1c",   "ǅ",      "ʰ",      "ª"};
  std::string text;
  const uint64_t parts = random.below(14);
  for (uint64_t i = 0; i < parts; ++i) {
    if (random.below(8) == 0) {
      const auto cp = static_cast<uint32_t>(random.below(0x110000));
      if (cp < 0xD800 || cp > 0xDFFF) unicode::append(text, cp);
    } else {
      text += kParts[random.below(std::size(kParts))];
    }
  }
  return text;
}

class PatternScan : public ::testing::TestWithParam<KnownPattern> {};

TEST_P(PatternScan, CutsWhereTheRegularExpressionMatches) {
  const Regex regex(pattern_text(GetParam()));
  PythonRandom random(20);
  for (int i = 0; i < 20000; ++i) {
    const std::string text = random_text(random);
    std::vector<std::string> want, have;
    regex.for_each(
        text, [&](size_t begin, size_t end) { want.push_back(text.substr(begin, end - begin)); });
    std::vector<Piece> pieces;
    scan_pattern(GetParam(), text, 0, text.size(), pieces);
    for (const Piece& p : pieces) have.push_back(text.substr(p.begin, p.end - p.begin));
    ASSERT_EQ(have, want) << "text " << i << ": " << text;
  }
}

TEST_P(PatternScan, SeesNothingBeyondTheEndOfThePiece) {
  const std::string text = "x  y'll  z";
  std::vector<Piece> inside, alone;
  scan_pattern(GetParam(), text, 1, 3, inside);  // two spaces, a letter behind them
  scan_pattern(GetParam(), "  ", 0, 2, alone);
  ASSERT_EQ(inside.size(), alone.size());
  for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(inside[i].end, alone[i].end + 1);
}

TEST_P(PatternScan, IsKnownByItsText) {
  EXPECT_EQ(known_pattern(pattern_text(GetParam())), GetParam());
}

std::string name_of_pattern(const ::testing::TestParamInfo<KnownPattern>& pattern) {
  static const char* const kNames[] = {"None", "Gpt2", "Llama3", "Qwen2"};
  return kNames[static_cast<int>(pattern.param)];
}
INSTANTIATE_TEST_SUITE_P(Patterns, PatternScan,
                         ::testing::Values(KnownPattern::kGpt2, KnownPattern::kLlama3,
                                           KnownPattern::kQwen2),
                         name_of_pattern);

}  // namespace
}  // namespace signround
