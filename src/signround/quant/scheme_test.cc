#include "signround/quant/scheme.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"

namespace signround {
namespace {

TEST(Scheme, PresetsAreFoundInAnyCase) {
  const QuantScheme scheme = scheme_preset("w2a16G64");
  EXPECT_EQ(scheme.bits, 2);
  EXPECT_EQ(scheme.group_size, 64);
  EXPECT_EQ(scheme.symmetry, Symmetry::kFullRange);
  EXPECT_EQ(scheme.scale_dtype, DType::kF16);
  EXPECT_EQ(scheme_preset("W4A16"), QuantScheme{});
}

TEST(Scheme, EveryListedPresetIsSound) {
  EXPECT_EQ(scheme_preset_names().size(), 6u);
  for (const std::string& name : scheme_preset_names())
    EXPECT_EQ(problems(scheme_preset(name)), "") << name;
}

TEST(Scheme, AnUnknownPresetListsTheKnownOnes) {
  try {
    scheme_preset("W4A15");
    FAIL() << "expected an error";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kInvalidArgument);
    const std::string text = e.what();
    EXPECT_NE(text.find("W4A15"), std::string::npos) << text;
    for (const std::string& name : scheme_preset_names())
      EXPECT_NE(text.find(name), std::string::npos) << text;
  }
}

TEST(Scheme, ReportsAllProblemsAtOnce) {
  QuantScheme scheme;
  scheme.bits = 5;
  scheme.group_size = 0;
  scheme.scale_dtype = DType::kI8;
  const std::string text = problems(scheme);
  EXPECT_NE(text.find("bits is 5"), std::string::npos) << text;
  EXPECT_NE(text.find("group_size is 0"), std::string::npos) << text;
  EXPECT_NE(text.find("scale_dtype is I8"), std::string::npos) << text;

  const std::string nf4 = problems({.bits = 3, .group_size = 96, .levels = Levels::kNf4});
  EXPECT_NE(nf4.find("NF4 of 3 bits"), std::string::npos) << nf4;
  EXPECT_NE(nf4.find("blocks of 96"), std::string::npos) << nf4;
}

TEST(Scheme, SixteenBitsAreNoProblem) {
  QuantScheme scheme;
  scheme.bits = 16;
  EXPECT_EQ(problems(scheme), "");
  EXPECT_EQ(describe(scheme), "W16");
}

TEST(Scheme, IsDescribedInAFewWords) {
  QuantScheme scheme;
  EXPECT_EQ(describe(scheme), "W4 g128 sym");
  scheme.symmetry = Symmetry::kAsym;
  scheme.group_size = -1;
  scheme.bits = 8;
  EXPECT_EQ(describe(scheme), "W8 per-row asym");
  scheme.symmetry = Symmetry::kClassic;
  scheme.group_size = 32;
  scheme.scale_dtype = DType::kBF16;
  EXPECT_EQ(describe(scheme), "W8 g32 sym-classic scales=BF16");
  scheme = {.bits = 4, .group_size = 64, .levels = Levels::kNf4};
  EXPECT_EQ(describe(scheme), "NF4 b64");
  scheme.double_quant = true;
  EXPECT_EQ(describe(scheme), "NF4 b64 double");
  scheme.bits = 16;
  EXPECT_EQ(describe(scheme), "W16");
}

TEST(Scheme, GroupsCoverARowWhoseLengthIsNoMultiple) {
  QuantScheme scheme;
  EXPECT_EQ(scheme.groups(384), 3);
  EXPECT_EQ(scheme.groups(385), 4);
  EXPECT_EQ(scheme.group(100), 100);
  EXPECT_EQ(scheme.groups(100), 1);
  scheme.group_size = -1;
  EXPECT_EQ(scheme.group(385), 385);
}

}  // namespace
}  // namespace signround
