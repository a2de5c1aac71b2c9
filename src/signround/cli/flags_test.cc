#include "signround/cli/flags.h"

#include <gtest/gtest.h>

#include "signround/base/error.h"

namespace signround {
namespace {

struct Options {
  int bits = 4;
  double lr = 0;
  bool strict = false;
  std::string method = "signround";
  std::vector<std::string> layers;
  template <class Visitor>
  void visit(Visitor&& v) {
    v("bits", bits, {.help = "bits per weight", .min = 2, .max = 8});
    v("lr", lr, {.help = "first step", .min = 0});
    v("strict", strict, {.help = "refuse"});
    v("method", method, {.help = "how", .aliases = {"alg"}, .choices = {"rtn", "signround"}});
    v("ignore_layers", layers, {.help = "names", .aliases = {"fp_layers"}});
  }
};

std::string problems_of(std::vector<const char*> words, Options* options = nullptr) {
  Options local;
  Flags flags("test", "A test.");
  std::string model;
  flags.positional("MODEL", model, "the model");
  flags.add_fields(options ? *options : local);
  flags.parse(static_cast<int>(words.size()), words.data());
  try {
    flags.check();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(Flags, AcceptsDashesUnderscoresAndAliases) {
  Options options;
  EXPECT_EQ(problems_of({"m", "--bits=3", "--fp_layers", "a, b", "--strict", "--alg", "rtn", "--lr",
                         "5e-3"},
                        &options),
            "");
  EXPECT_EQ(options.bits, 3);
  EXPECT_EQ(options.layers, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(options.strict);
  EXPECT_EQ(options.method, "rtn");
  EXPECT_EQ(options.lr, 5e-3);
  EXPECT_EQ(problems_of({"m", "--no_strict", "--ignore-layers=x"}, &options), "");
  EXPECT_FALSE(options.strict);
}

TEST(Flags, ReportsAllProblemsAtOnce) {
  const std::string text =
      problems_of({"--bits", "9", "--methd", "rtn", "--lr", "fast", "--method", "magic"});
  EXPECT_NE(text.find("4 problems"), std::string::npos) << text;
  EXPECT_NE(text.find("--bits: '9' is outside 2 .. 8"), std::string::npos) << text;
  EXPECT_NE(text.find("unknown flag --methd; did you mean --method?"), std::string::npos) << text;
  EXPECT_NE(text.find("--lr: 'fast' is not a number"), std::string::npos) << text;
  EXPECT_NE(text.find("'magic' is none of rtn, signround"), std::string::npos) << text;
}

TEST(Flags, RefusesWhatIsMissingAndWhatIsUnwanted) {
  EXPECT_NE(problems_of({}).find("MODEL is missing"), std::string::npos);
  EXPECT_NE(problems_of({"m", "--bits"}).find("--bits needs a value"), std::string::npos);
  EXPECT_NE(problems_of({"m", "--strict=maybe"}).find("takes no value"), std::string::npos);
}

TEST(Fields, ToJsonKeepsOrderAndValues) {
  Options options;
  options.layers = {"a"};
  EXPECT_EQ(fields_to_json(options).dump(),
            R"({"bits":4,"lr":0.0,"strict":false,"method":"signround","ignore_layers":["a"]})");
}

}  // namespace
}  // namespace signround
