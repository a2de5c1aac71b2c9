#include "signround/pipeline/options.h"

#include "signround/testing/expect_error.h"

namespace signround {
namespace {

using testing::expect_error;
using Numbers = std::vector<int64_t>;

TEST(ParseBlocks, ReadsNumbersAndRangesInAnyOrder) {
  EXPECT_EQ(parse_blocks("", 3), (Numbers{0, 1, 2}));
  EXPECT_EQ(parse_blocks("0-2", 8), (Numbers{0, 1, 2}));
  EXPECT_EQ(parse_blocks("7,0,3-4,3", 8), (Numbers{0, 3, 4, 7}));
}

TEST(ParseBlocks, RefusesWhatIsNoListOrIsNotThere) {
  for (const char* text :
       {"a", "1-", "-1", "1,", ",1", "1;2", "1 2", "1--2", "99999999999999999999", "0x1"})
    EXPECT_THROW(parse_blocks(text, 8), Error) << text;
  expect_error(ErrorKind::kInvalidArgument, "blocks 0 to 7", [] { parse_blocks("0-8", 8); });
  expect_error(ErrorKind::kInvalidArgument, "runs backwards", [] { parse_blocks("3-1", 8); });
  expect_error(ErrorKind::kInvalidArgument, "too many",
               [] { parse_blocks("0-99999999", int64_t{1} << 40); });
}

TEST(IsIgnored, MatchesPartsOfNamesAndWholeNumbers) {
  const std::string layer = "model.layers.1.mlp.up_proj";
  EXPECT_TRUE(is_ignored({"up_proj"}, layer));
  EXPECT_TRUE(is_ignored({"nothing", "mlp"}, layer));
  EXPECT_TRUE(is_ignored({"layers.1"}, layer));
  EXPECT_FALSE(is_ignored({"layers.1"}, "model.layers.10.mlp.up_proj"));
  EXPECT_FALSE(is_ignored({"down_proj", ""}, layer));
  EXPECT_TRUE(is_ignored({"experts.3"}, "mlp.experts.3"));
}

TEST(QuantizeOptions, SchemeIsThePresetWithWhatOverridesIt) {
  QuantizeOptions options;
  EXPECT_EQ(options.quant_scheme(), (QuantScheme{.bits = 4, .group_size = 128}));
  options.scheme = "w2a16g64";
  options.bits = 3;
  options.symmetry = "asym";
  EXPECT_EQ(options.quant_scheme(),
            (QuantScheme{.bits = 3, .group_size = 64, .symmetry = Symmetry::kAsym}));
  options.group_size = -1;
  options.symmetry = "gptq-sym";
  options.scale_dtype = "bf16";
  EXPECT_EQ(options.quant_scheme(), (QuantScheme{.bits = 3,
                                                 .group_size = -1,
                                                 .symmetry = Symmetry::kClassic,
                                                 .scale_dtype = DType::kBF16}));
}

TEST(QuantizeOptions, NoIterationsMeanTheSearchOfScales) {
  QuantizeOptions options;
  EXPECT_TRUE(options.tunes());
  options.iters = 0;
  EXPECT_FALSE(options.tunes());
  EXPECT_EQ(options.effective_method(), "opt-rtn");
  options.method = "rtn";
  EXPECT_EQ(options.effective_method(), "rtn");
}

TEST(QuantizeOptions, TheRecipeDecidesWhatIsNotGiven) {
  QuantizeOptions options;
  EXPECT_EQ(options.recipe, "auto");
  const auto own = options.resolved();
  EXPECT_EQ(own.scales, "free");
  EXPECT_EQ(own.start, "searched");
  EXPECT_EQ(own.iters, 50);
  EXPECT_EQ(own.nsamples, 128);
  EXPECT_EQ(own.lr, 0.02);
  EXPECT_FALSE(own.keeps_best());
  EXPECT_EQ(own.e2e_epochs, 0);
  EXPECT_TRUE(own.judges_states());
  options.bits = 2;
  EXPECT_EQ(options.resolved().e2e_epochs, 2);
  EXPECT_TRUE(options.resolved().judges_states());
  options.formats = {"fake"};
  EXPECT_EQ(options.resolved().e2e_epochs, 0) << "no format that holds integers";
  options.formats = {"fake", "gptq"};
  EXPECT_EQ(options.resolved().e2e_epochs, 2);
  options.formats.clear();
  options.iters = 0;
  EXPECT_EQ(options.resolved().e2e_epochs, 0) << "nothing is tuned";
  options.iters = -1;
  options.e2e_epochs = 0;
  EXPECT_EQ(options.resolved().e2e_epochs, 0) << "as given";
  options.e2e_epochs = -1;
  EXPECT_EQ(options.resolved().iters, 200);
  EXPECT_EQ(options.resolved().lr, 0.01);
  options.recipe = "autoround";
  const auto theirs = options.resolved();
  EXPECT_EQ(theirs.scales, "range");
  EXPECT_EQ(theirs.start, "nearest");
  EXPECT_EQ(theirs.iters, 200);
  EXPECT_EQ(theirs.e2e_epochs, 0);
  EXPECT_FALSE(theirs.judges_states());
  EXPECT_EQ(theirs.lr, 0) << "the slot's own rule";
  EXPECT_TRUE(theirs.keeps_best());
  EXPECT_EQ(theirs.bits, 2);
  EXPECT_EQ(theirs.group_size, 128) << "the scheme's";
  EXPECT_EQ(theirs.symmetry, "full");
  options.symmetry = "asym";
  EXPECT_EQ(options.resolved().symmetry, "asym");
  options.recipe = "light";
  EXPECT_EQ(options.resolved().iters, 50);
  EXPECT_EQ(options.resolved().lr, 5e-3);
  options.recipe = "best";
  EXPECT_EQ(options.resolved().iters, 1000);
  EXPECT_EQ(options.resolved().nsamples, 512);
}

TEST(QuantizeOptions, WhatIsGivenIsStrongerThanTheRecipe) {
  QuantizeOptions options;
  options.recipe = "best";
  options.iters = 7;
  options.nsamples = 9;
  options.lr = 0.5;
  options.scales = "free";
  const auto resolved = options.resolved();
  EXPECT_EQ(resolved.iters, 7);
  EXPECT_EQ(resolved.nsamples, 9);
  EXPECT_EQ(resolved.lr, 0.5);
  EXPECT_EQ(resolved.start, "searched");
}

std::string problems_of(const QuantizeOptions& options) {
  std::string all;
  for (const auto& problem : options.problems()) all += problem + "\n";
  return all;
}

TEST(QuantizeOptions, ListsAllProblemsAtOnce) {
  QuantizeOptions good;
  good.output = "out";
  EXPECT_EQ(problems_of(good), "");

  QuantizeOptions bad;
  bad.formats = {"fake", "int3", "fake"};
  bad.blocks = "one";
  bad.bits = 5;
  const std::string all = problems_of(bad);
  for (const char* part : {"-o OUT is missing", "'int3' is none of auto_round", "fake twice",
                           "no list of blocks", "5"})
    EXPECT_NE(all.find(part), std::string::npos) << part << " in:\n" << all;
  EXPECT_EQ(bad.problems().size(), 5u) << all;

  bad = good;  // what is wrong with one option hides nothing of another
  bad.scheme = "W99";
  bad.layer_config = "{";
  bad.size = "huge";
  bad.avg_bits = 4;
  bad.choices = {"7"};
  EXPECT_EQ(bad.problems().size(), 5u) << problems_of(bad);

  bad = good;
  bad.scales = "range";
  bad.start = "searched";
  EXPECT_NE(problems_of(bad).find("needs --scales free"), std::string::npos);
  bad = good;
  bad.scheme = "W99";
  EXPECT_NE(problems_of(bad).find("W4A16"), std::string::npos) << "the names that work";
  bad = good;
  bad.scale_dtype = "float32";
  EXPECT_NE(problems_of(bad).find("packed formats hold float16"), std::string::npos);
  bad.formats = {"fake"};
  EXPECT_EQ(problems_of(bad), "");
}

TEST(QuantizeOptions, Nf4HasItsOwnSchemeAndFormat) {
  QuantizeOptions good;
  good.output = "out";
  EXPECT_EQ(good.resolved().formats, std::vector<std::string>{"auto_round"});
  good.method = "nf4";
  EXPECT_EQ(problems_of(good), "");
  EXPECT_EQ(good.resolved().formats, std::vector<std::string>{"bnb"});
  EXPECT_EQ(describe(good.quant_scheme()), "NF4 b64 double");
  good.bnb_double_quant = false;
  EXPECT_EQ(describe(good.quant_scheme()), "NF4 b64");
  good.bits = 4, good.group_size = 64, good.formats = {"fake", "bnb"};
  EXPECT_EQ(problems_of(good), "") << "what it has anyway";

  const auto refused = [&](const char* expected, const std::function<void(QuantizeOptions&)>& set) {
    QuantizeOptions bad = good;
    set(bad);
    EXPECT_EQ(bad.problems().size(), 1u) << problems_of(bad);
    EXPECT_NE(problems_of(bad).find(expected), std::string::npos) << problems_of(bad);
  };
  refused("has 4 bits", [](QuantizeOptions& o) { o.bits = 8; });
  refused("has blocks of 64", [](QuantizeOptions& o) { o.group_size = 128; });
  refused("scheme of its own", [](QuantizeOptions& o) { o.scheme = "W2A16"; });
  refused("--symmetry asym", [](QuantizeOptions& o) { o.symmetry = "asym"; });
  refused("has float32 scales", [](QuantizeOptions& o) { o.scale_dtype = "bfloat16"; });
  refused("use --ignore-layers", [](QuantizeOptions& o) { o.layer_config = "{}"; });
  refused("does not read", [](QuantizeOptions& o) { o.avg_bits = 3; });
  refused("does not read", [](QuantizeOptions& o) { o.e2e_epochs = 1; });
  refused("use --method opt-rtn", [](QuantizeOptions& o) { o.awq = true; });
  refused("--format gptq", [](QuantizeOptions& o) { o.formats = {"gptq", "bnb"}; });
  for (const char* method : {"signround", "gptq", "opt-rtn", "rtn"})
    refused("use --method nf4", [&](QuantizeOptions& o) { o.method = method; });
}

}  // namespace
}  // namespace signround
