#include "signround/text/dataset_spec.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"

namespace signround {
namespace {

TEST(DatasetSpec, ReadsEveryOption) {
  const auto specs = parse_dataset_specs(
      "a.json:split=train+test:num=10:concat=True:shuffle=False:column=body,"
      "NeelNanda/pile-10k:concat,b:apply_chat_template=FALSE");
  ASSERT_EQ(specs.size(), 3u);
  EXPECT_EQ(specs[0].name, "a.json");
  EXPECT_EQ(specs[0].splits, (std::vector<std::string>{"train", "test"}));
  EXPECT_EQ(specs[0].num, 10);
  EXPECT_EQ(specs[0].concat, true);
  EXPECT_FALSE(specs[0].shuffle);
  EXPECT_EQ(specs[0].column, "body");
  EXPECT_EQ(specs[1].name, "NeelNanda/pile-10k");
  EXPECT_EQ(specs[1].concat, true);  // a key alone is true
  EXPECT_TRUE(specs[1].shuffle);
  EXPECT_EQ(specs[2].concat, std::nullopt);
  EXPECT_FALSE(specs[2].apply_chat_template);
}

TEST(DatasetSpec, QuotesProtectSeparatorsAndTurnTheTemplateOn) {
  const auto specs =
      parse_dataset_specs(R"(x:system_prompt="Be brief: yes, a=b \"now\"":num=3,"C:\\d,e.json")");
  ASSERT_EQ(specs.size(), 2u);
  EXPECT_TRUE(specs[0].apply_chat_template);
  EXPECT_EQ(specs[0].system_prompt, "Be brief: yes, a=b \"now\"");
  EXPECT_EQ(specs[0].num, 3);
  EXPECT_EQ(specs[1].name, "C:\\d,e.json");
}

TEST(DatasetSpec, AnEmptySystemPromptIsKeptApartFromNone) {
  EXPECT_EQ(parse_dataset_specs("x:system_prompt=")[0].system_prompt, "");
  EXPECT_EQ(parse_dataset_specs("x:apply_chat_template")[0].system_prompt, std::nullopt);
  // As in the reference, a prompt holds for the data sets behind it too.
  const auto specs = parse_dataset_specs("x:apply_chat_template,y:system_prompt=a,z");
  EXPECT_EQ(specs[0].system_prompt, std::nullopt);
  EXPECT_EQ(specs[2].system_prompt, "a");
  EXPECT_FALSE(specs[2].apply_chat_template);
}

TEST(DatasetSpec, MistakesAreErrorsThatNameThem) {
  for (const char* bad :
       {"", "a,,b", ":num=3", "a:num=0", "a:num=-1", "a:num=3x", "a:num=", "a:nmu=3",
        "a:system_prompt=\"open", "a:split=", "a:split=x++y", "a:num=99999999999999999999"}) {
    try {
      parse_dataset_specs(bad);
      ADD_FAILURE() << "accepted: " << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument) << bad;
    }
  }
}

}  // namespace
}  // namespace signround
