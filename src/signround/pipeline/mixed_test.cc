#include "signround/pipeline/mixed.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"

namespace signround {
namespace {

TEST(MixedPrecision, SizesWithUnits) {
  EXPECT_EQ(parse_size("4.2GB"), 4200000000);
  EXPECT_EQ(parse_size("4.2"), 4200000000);
  EXPECT_EQ(parse_size("700 MB"), 700000000);
  EXPECT_EQ(parse_size("1.5GiB"), 1610612736);
  EXPECT_EQ(parse_size("12B"), 12);
  for (const char* wrong : {"", "GB", "-1GB", "0", "4 cows", "1e40GB", "nan", "inf GB"})
    EXPECT_THROW(parse_size(wrong), Error) << wrong;
}

TEST(MixedPrecision, OptionsAreBitsOrNamesOfSchemes) {
  const QuantScheme base{.bits = 4, .group_size = 64, .symmetry = Symmetry::kAsym};
  const auto schemes = parse_options({"2", "W2A16G32", "8", "2", "16"}, base);
  ASSERT_EQ(schemes.size(), 4u) << "what is named twice counts once";
  EXPECT_EQ(schemes[0], (QuantScheme{.bits = 2, .group_size = 64, .symmetry = Symmetry::kAsym}));
  EXPECT_EQ(schemes[1], (QuantScheme{.bits = 2, .group_size = 32, .symmetry = Symmetry::kAsym}));
  EXPECT_EQ(schemes[3].bits, 16);
  EXPECT_THROW(parse_options({"5", "4"}, base), Error);
  EXPECT_THROW(parse_options({"4", "4"}, base), Error);
  EXPECT_THROW(parse_options({"W4A4", "4"}, base), Error);
}

}  // namespace
}  // namespace signround
