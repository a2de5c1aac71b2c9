#include "signround/graph/join.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "signround/graph/program.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

constexpr int64_t kHidden = 8, kHeads = 2, kHeadDim = 4, kRows = 5;

// Every kind of operation.
Graph block(const std::string& name) {
  Graph g;
  const Value x = g.input(kHidden);
  const Value h = g.rms_norm(x, {name + "norm.weight", kHidden}, 1e-5f);
  const auto qkv = g.linears(h, {{name + "q", kHidden, kHidden, true},
                                 {name + "k", kHeadDim, kHidden, false},
                                 {name + "v", kHeadDim, kHidden, false}});
  const RopeSpec rope{.inv_freq = {1.0, 0.1}};
  const Value q = g.rope(qkv[0], kHeads, kHeadDim, rope), k = g.rope(qkv[1], 1, kHeadDim, rope);
  const Value a = g.attention(
      q, k, qkv[2], {.heads = kHeads, .kv_heads = 1, .head_dim = kHeadDim, .scale = 0.5f});
  const Value x1 = g.add(x, g.linear(a, {name + "o", kHidden, kHidden, false}));
  const auto gate_up = g.linears(
      x1, {{name + "gate", kHidden, kHidden, false}, {name + "up", kHidden, kHidden, false}});
  g.output(g.add(x1, g.gated(Activation::kSilu, gate_up[0], gate_up[1])));
  return g;
}

void fill(const Graph& graph, BlockWeights& weights) {
  for (const auto& param : graph.linear_params()) {
    const auto values = testing::random_normal(param.out * param.in, param.name.size() * 100 +
                                                                         size_t(param.name.back()) +
                                                                         size_t(param.name[0]));
    const WeightView place = weights.weight(param.name);
    for (int64_t r = 0; r < param.out; ++r)
      std::copy_n(values.data() + r * param.in, param.in,
                  static_cast<float*>(place.data) + r * place.stride);
  }
  for (const auto& param : graph.vector_params())
    std::ranges::fill(weights.vector(param.name), param.name[0] == 'a' ? 0.5f : 1.5f);
}

std::vector<float> run(const Graph& graph, const std::vector<float>& x) {
  BlockWeights weights(graph, DType::kF32);
  fill(graph, weights);
  Program program(graph, {.batch = 1, .seq_len = kRows});
  std::copy(x.begin(), x.end(), program.input());
  program.forward(weights);
  return {program.output(), program.output() + kRows * kHidden};
}

TEST(Join, ComputesOneBlockAfterTheOther) {
  const Graph parts[] = {block("a."), block("b.")};
  const auto x = testing::random_normal(kRows * kHidden, 1);
  EXPECT_EQ(run(join(parts), x), run(parts[1], run(parts[0], x)));
  EXPECT_EQ(run(join(std::span(parts).first(1)), x), run(parts[0], x));
}

TEST(Join, HoldsTheParametersOfAllParts) {
  const Graph parts[] = {block("a."), block("b."), block("c.")};
  const Graph all = join(parts);
  ASSERT_EQ(all.linear_params().size(), 18u);
  EXPECT_EQ(all.linear_params()[0].name, "a.q");
  EXPECT_EQ(all.linear_params()[17].name, "c.up");
  EXPECT_EQ(all.num_weights(), 3 * parts[0].num_weights());
}

TEST(Join, RefusesBlocksThatDoNotFit) {
  Graph narrow;
  narrow.output(narrow.linear(narrow.input(4), {"n", 4, 4, false}));
  const Graph parts[] = {block("a."), narrow};
  testing::expect_error(ErrorKind::kInvalidArgument, "8 columns, the next one takes 4",
                        [&] { join(parts); });
}

}  // namespace
}  // namespace signround
