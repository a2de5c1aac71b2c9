#include "signround/graph/folding.h"

#include <gtest/gtest.h>

namespace signround {
namespace {

constexpr int64_t kHidden = 8, kHeads = 4, kKvHeads = 2, kHeadDim = 2, kInner = 12;

// shared: both halves read the same norm, as in blocks with parallel attention.
Graph block(bool shared) {
  Graph g;
  const Value x = g.input(kHidden);
  const Value h = g.rms_norm(x, {"norm1.weight", kHidden}, 1e-5f, 1, 1.0f);
  const auto qkv = g.linears(h, {{"q", kHeads * kHeadDim, kHidden, false},
                                 {"k", kKvHeads * kHeadDim, kHidden, false},
                                 {"v", kKvHeads * kHeadDim, kHidden, true}});
  const Value a = g.attention(
      qkv[0], qkv[1], qkv[2],
      {.heads = kHeads, .kv_heads = kKvHeads, .head_dim = kHeadDim, .scale = 1});
  const Value x1 = g.add(x, g.linear(a, {"o", kHidden, kHeads * kHeadDim, false}));
  const Value h1 = shared ? h : g.rms_norm(x1, {"norm2.weight", kHidden}, 1e-5f);
  const auto gate_up =
      g.linears(h1, {{"gate", kInner, kHidden, false}, {"up", kInner, kHidden, false}});
  const Value m = g.gated(Activation::kSilu, gate_up[0], gate_up[1]);
  g.output(g.add(x1, g.linear(m, {"down", kHidden, kInner, false})));
  return g;
}

TEST(Folding, FindsWhatScalesTheInputsOfEachLayer) {
  const auto all = foldings(block(false));
  ASSERT_EQ(all.size(), 4u);
  for (const auto& f : all) EXPECT_EQ(f.why_not, "");
  EXPECT_EQ(all[0].readers, (std::vector<std::string>{"q", "k", "v"}));
  EXPECT_EQ(all[0].producer, "norm1.weight");
  EXPECT_TRUE(all[0].is_norm);
  EXPECT_EQ(all[0].offset, 1.0f);
  EXPECT_EQ(all[0].channels, kHidden);
  EXPECT_EQ(all[1].readers, (std::vector<std::string>{"o"}));
  EXPECT_EQ(all[1].producer, "v");
  EXPECT_TRUE(all[1].has_bias);
  EXPECT_EQ(all[2].producer, "norm2.weight");
  EXPECT_EQ(all[2].offset, 0.0f);
  EXPECT_EQ(all[3].readers, (std::vector<std::string>{"down"}));
  EXPECT_EQ(all[3].producer, "up");
  EXPECT_FALSE(all[3].has_bias);
  EXPECT_EQ(all[3].channels, kInner);
}

TEST(Folding, QueryHeadsThatReadOneValueHeadShareItsChannels) {
  const auto all = foldings(block(false));
  EXPECT_EQ(all[1].channel, (std::vector<int64_t>{0, 1, 0, 1, 2, 3, 2, 3}));
  EXPECT_EQ(all[1].channels, kKvHeads * kHeadDim);
}

TEST(Folding, ANormThatIsReadTwiceTakesNoFactor) {
  const auto all = foldings(block(true));
  EXPECT_NE(all[0].why_not, "");
  EXPECT_EQ(all[1].why_not, "");
  EXPECT_NE(all[2].why_not, "");
}

}  // namespace
}  // namespace signround
