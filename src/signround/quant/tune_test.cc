#include "signround/quant/tune.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "signround/quant/rtn.h"
#include "signround/quant/signround.h"
#include "signround/quant/signround_cuda.h"
#include "signround/testing/expect_error.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

using testing::random_normal;

TEST(SampleOrder, DrawsEverySampleOnceAnEpochAndDropsTheTail) {
  SampleOrder order(7, 3, 42);
  std::set<std::vector<int64_t>> epochs;
  for (int epoch = 0; epoch < 20; ++epoch) {
    std::vector<int64_t> drawn;
    for (int batch = 0; batch < 2; ++batch) {
      const int64_t* numbers = order.next();
      drawn.insert(drawn.end(), numbers, numbers + 3);
    }
    EXPECT_EQ(std::set<int64_t>(drawn.begin(), drawn.end()).size(), 6u) << "epoch " << epoch;
    for (int64_t n : drawn) EXPECT_TRUE(n >= 0 && n < 7);
    epochs.insert(drawn);
  }
  EXPECT_GT(epochs.size(), 15u);  // of 5040 orders
}

TEST(SampleOrder, DependsOnTheSeedAlone) {
  const auto first = [](uint64_t seed) {
    SampleOrder order(50, 5, seed);
    const int64_t* numbers = order.next();
    return std::vector<int64_t>(numbers, numbers + 5);
  };
  EXPECT_EQ(first(1), first(1));
  EXPECT_NE(first(1), first(2));
}

TEST(SampleOrder, RefusesBatchesThatCannotBeDrawn) {
  testing::expect_error(ErrorKind::kInvalidArgument, "cannot be drawn from 3",
                        [] { SampleOrder(3, 4, 1); });
  testing::expect_error(ErrorKind::kInvalidArgument, "batches of 0", [] { SampleOrder(3, 0, 1); });
}

// A gated MLP with a residual connection: every layer but one sees what another layer made.
constexpr int64_t kHidden = 32, kInner = 48, kSeq = 5, kSamples = 6;

Graph mlp() {
  Graph g;
  const Value x = g.input(kHidden);
  const Value h = g.rms_norm(x, {"norm", kHidden}, 1e-5f);
  const auto gate_up =
      g.linears(h, {{"gate", kInner, kHidden, false}, {"up", kInner, kHidden, false}});
  const Value m = g.gated(Activation::kSilu, gate_up[0], gate_up[1]);
  g.output(g.add(x, g.linear(m, {"down", kHidden, kInner, false})));
  return g;
}

std::vector<float> weight_of(const LinearParam& param) {
  return random_normal(param.out * param.in, static_cast<uint64_t>(param.name[0]), 0.2);
}

void set_weight(BlockWeights& weights, const std::string& name, const std::vector<float>& values) {
  const WeightView place = weights.weight(name);
  for (int64_t r = 0; r < place.out; ++r)
    std::copy_n(values.data() + r * place.in, place.in,
                static_cast<float*>(place.data) + r * place.stride);
}

// The block with its calibration data: targets are what the original weights give.
struct Block {
  Graph graph = mlp();
  BlockWeights weights{graph, DType::kF32};
  ActivationStream inputs{kSamples, kSeq, kHidden, DType::kF32},
      targets{kSamples, kSeq, kHidden, DType::kF32};
  QuantScheme scheme{.bits = 2, .group_size = 16};

  Block() {
    const auto x = random_normal(kSamples * kSeq * kHidden, 7);
    inputs.scatter(0, kSamples, x.data());
    for (float& v : weights.vector("norm")) v = 1;
    for (const auto& param : graph.linear_params())
      set_weight(weights, param.name, weight_of(param));
    Program program = make(kSamples);
    inputs.gather(int64_t{0}, kSamples, program.input());
    program.forward(weights);
    targets.scatter(0, kSamples, program.output());
  }

  Program make(int64_t micro) {
    return {graph, {.batch = micro, .seq_len = kSeq, .compute = DType::kF32, .train = true}};
  }

  std::vector<TunedLayer> slots(const SignRoundOptions& options) {
    std::vector<TunedLayer> layers;
    for (const auto& param : graph.linear_params())
      layers.push_back(
          {param.name, std::make_unique<SignRoundSlot>(weight_of(param).data(), param.out, param.in,
                                                       scheme, options)});
    return layers;
  }

  // Mean squared error over all samples with the weights as they are.
  double loss() {
    Program program = make(kSamples);
    inputs.gather(int64_t{0}, kSamples, program.input());
    program.forward(weights);
    std::vector<float> target(kSamples * kSeq * kHidden);
    targets.gather(int64_t{0}, kSamples, target.data());
    double sum = 0;
    for (size_t i = 0; i < target.size(); ++i)
      sum += std::pow(double(program.output()[i]) - target[i], 2);
    return sum / static_cast<double>(target.size());
  }
};

TEST(TuneBlock, BeatsRoundToNearestAndGivesTheWeightsOfTheLossItReports) {
  Block block;
  for (const auto& param : block.graph.linear_params()) {
    std::vector<float> rounded(static_cast<size_t>(param.out * param.in));
    dequantize(rtn(weight_of(param).data(), param.out, param.in, block.scheme), rounded.data());
    set_weight(block.weights, param.name, rounded);
  }
  const double rounded = block.loss();

  Program program = block.make(kSamples);
  auto layers = block.slots({.iters = 60, .lr = 0.02});
  const TuneResult result = tune_block(program, block.weights, layers, block.inputs, block.targets,
                                       {}, {.iters = 60, .batch_size = kSamples});
  // One sum in another order: 960 terms of double.
  EXPECT_NEAR(result.loss_first, rounded, 1e-6 * rounded);
  EXPECT_LT(result.loss_best, 0.8 * result.loss_first);
  EXPECT_EQ(result.iterations, 60);
  EXPECT_EQ(result.non_finite_losses, 0);

  for (size_t i = 0; i < layers.size(); ++i) {
    const QuantizedLinear linear = layers[i].slot->finish();
    std::vector<float> values(linear.codes.size());
    dequantize(linear, values.data());
    set_weight(block.weights, layers[i].name, values);
  }
  EXPECT_NEAR(block.loss(), result.loss_best, 1e-6 * result.loss_best);
}

// The norm starts off what the targets were made with; with it the block gets nearer, and the loss
// that is reported is that of the norm that is given back.
TEST(TuneBlock, VectorsLearnBesideTheWeights) {
  std::vector<float> norm = random_normal(kHidden, 9, 0.2);
  for (float& v : norm) v += 1;
  const auto run = [&](Block& block, std::vector<TunedVector> vectors) {
    std::ranges::copy(norm, block.weights.vector("norm").begin());
    Program program(block.graph, {.batch = 2,
                                  .seq_len = kSeq,
                                  .compute = DType::kF32,
                                  .train = true,
                                  .norm_gradients = !vectors.empty()});
    auto layers = block.slots({.iters = 60, .lr = 0.02});
    const TuneResult result =
        tune_block(program, block.weights, layers, block.inputs, block.targets, {},
                   {.iters = 60, .batch_size = kSamples}, {}, vectors);
    for (auto& layer : layers) {
      const QuantizedLinear linear = layer.slot->finish();
      std::vector<float> values(linear.codes.size());
      dequantize(linear, values.data());
      set_weight(block.weights, layer.name, values);
    }
    for (const auto& vector : vectors)
      std::ranges::copy(vector.tuner.finish(), block.weights.vector(vector.name).begin());
    EXPECT_NEAR(block.loss(), result.loss_best, 1e-6 * result.loss_best);
    return result.loss_best;
  };
  Block fixed, learning;
  const double without = run(fixed, {});
  std::vector<TunedVector> vectors;
  vectors.push_back({"norm", VectorTuner(norm, 0.2, 0)});
  EXPECT_LT(run(learning, std::move(vectors)), 0.95 * without);
}

TEST(TuneBlock, WithoutAStepIsRoundToNearest) {
  Block block;
  Program program = block.make(2);
  auto layers = block.slots({.iters = 1, .lr = 0.5});
  const TuneResult result = tune_block(program, block.weights, layers, block.inputs, block.targets,
                                       {}, {.iters = 1, .batch_size = kSamples});
  EXPECT_EQ(result.best_iteration, 0);
  EXPECT_EQ(result.loss_best, result.loss_first);
  const auto params = block.graph.linear_params();
  for (size_t i = 0; i < params.size(); ++i) {
    const auto nearest =
        rtn(weight_of(params[i]).data(), params[i].out, params[i].in, block.scheme);
    const auto found = layers[i].slot->finish();
    EXPECT_EQ(found.codes, nearest.codes);
    EXPECT_EQ(found.scales, nearest.scales);
  }
}

// A slot that writes weights given in advance and remembers what it was told.
struct Scripted : WeightSlot {
  std::vector<std::vector<float>> weights;  // of each iteration
  int64_t in = 0;
  size_t now = 0;
  int kept = -1;
  std::vector<std::vector<float>> gradients;
  std::vector<double> decays;
  std::vector<std::vector<std::vector<float>>> next_scripts;  // of the weights after each restart

  void put(void* weight, int64_t stride) const {
    const auto& w = weights[now];
    for (size_t i = 0; i < w.size(); ++i)
      static_cast<float*>(
          weight)[static_cast<int64_t>(i) / in * stride + static_cast<int64_t>(i) % in] = w[i];
  }
  void write_weight(void* weight, DType, int64_t stride) const override { put(weight, stride); }
  void step(const RowsAny& d_weight, double decay, void* weight, DType, int64_t stride) override {
    ASSERT_EQ(d_weight.dtype, DType::kF32);
    const auto* d = static_cast<const float*>(d_weight.data);
    std::vector<float> gradient(weights[0].size());
    for (size_t i = 0; i < gradient.size(); ++i)
      gradient[i] =
          d[static_cast<int64_t>(i) / in * d_weight.stride + static_cast<int64_t>(i) % in];
    gradients.push_back(gradient);
    decays.push_back(decay);
    ++now;
    put(weight, stride);
  }
  void restart() override {
    ASSERT_FALSE(next_scripts.empty());
    weights = next_scripts.front();
    next_scripts.erase(next_scripts.begin());
    now = 0;
  }
  void keep_best() override { kept = static_cast<int>(now); }
  QuantizedLinear finish() const override { return {}; }
};

// y = x * W^T with W scripted; the targets are those of W = 0, so the loss is mean((x * W^T)^2).
constexpr int64_t kIn = 4, kOut = 4;

struct Linear {
  Graph graph;
  std::vector<float> x = random_normal(kSamples * kSeq * kIn, 3);
  ActivationStream inputs{kSamples, kSeq, kIn, DType::kF32},
      targets{kSamples, kSeq, kOut, DType::kF32};
  std::vector<TunedLayer> layers;
  Scripted* slot = nullptr;

  explicit Linear(std::vector<std::vector<float>> script) {
    graph.output(graph.linear(graph.input(kIn), {"w", kOut, kIn, false}));
    inputs.scatter(0, kSamples, x.data());
    const std::vector<float> zeros(kSamples * kSeq * kOut);
    targets.scatter(0, kSamples, zeros.data());
    auto made = std::make_unique<Scripted>();
    slot = made.get();
    slot->weights = std::move(script);
    slot->in = kIn;
    layers.push_back({"w", std::move(made)});
  }
  TuneResult tune(const TuneOptions& options, int64_t micro, const TokenMasks& masks = {}) {
    BlockWeights weights(graph, DType::kF32);
    Program program(graph,
                    {.batch = micro, .seq_len = kSeq, .compute = DType::kF32, .train = true});
    return tune_block(program, weights, layers, inputs, targets, masks, options);
  }
};

std::vector<std::vector<float>> constants(const std::vector<float>& values) {
  std::vector<std::vector<float>> script;
  for (float v : values) script.push_back(std::vector<float>(kOut * kIn, v));
  return script;
}

TEST(TuneBlock, KeepsTheLowestLossAndTakesNoStepThatNobodyMeasures) {
  Linear linear(constants({3, 1, 2}));
  const TuneResult result = linear.tune({.iters = 3, .batch_size = kSamples}, kSamples);
  EXPECT_EQ(result.best_iteration, 1);
  EXPECT_EQ(linear.slot->kept, 1);
  EXPECT_EQ(linear.slot->gradients.size(), 2u);
  EXPECT_NEAR(result.loss_first / result.loss_best, 9, 1e-5);  // the loss is quadratic
  EXPECT_EQ(linear.slot->decays, (std::vector<double>{1, 1 - 1.0 / 3}));
}

TEST(TuneBlock, WithoutKeepBestKeepsTheLast) {
  Linear linear(constants({3, 1, 2}));
  const TuneResult result =
      linear.tune({.iters = 3, .batch_size = kSamples, .keep_best = false}, kSamples);
  EXPECT_EQ(result.best_iteration, 2);
  EXPECT_EQ(linear.slot->kept, 2);
  EXPECT_NEAR(result.loss_first / result.loss_best, 9.0 / 4, 1e-5);
}

// Nine iterations: the first, third and last states are judged, each by the samples 0, 1, 3 and 4,
// whichever the step has drawn.
const TuneOptions kJudging{.iters = 9, .batch_size = 2, .seed = 5, .keep_best = false, .judged = 3};

TEST(TuneBlock, ShorterStepsFromTheStartWhereTheLossHasGrown) {
  Linear linear(constants({2, 1, 2.5f}));
  linear.slot->next_scripts = {constants({2, 4, 1.9f, 4, 4, 4, 4, 4, 1})};
  const TuneResult result = linear.tune(kJudging, 1);
  EXPECT_EQ(result.restarts, 1);
  EXPECT_EQ(result.iterations, 2 + 9);
  EXPECT_EQ(result.best_iteration, 8);
  EXPECT_EQ(linear.slot->kept, 8);
  ASSERT_EQ(linear.slot->decays.size(), 2u + 8);
  for (size_t i = 0; i < 8; ++i)
    EXPECT_EQ(linear.slot->decays[2 + i], 0.25 * (1 - static_cast<double>(i) / 9)) << i;
  double sum = 0;  // of squares of what a weight of 1 gives, over the samples 0, 1, 3, 4
  for (int64_t sample : {0, 1, 3, 4})
    for (int64_t t = 0; t < kSeq; ++t) {
      double row = 0;
      for (int64_t i = 0; i < kIn; ++i)
        row += static_cast<double>(linear.x[static_cast<size_t>((sample * kSeq + t) * kIn + i)]);
      sum += row * row;
    }
  EXPECT_NEAR(result.loss_best, sum / (4 * kSeq), 1e-5 * sum);
  EXPECT_NEAR(result.loss_first / result.loss_best, 4, 1e-5);
}

TEST(TuneBlock, KeepsTheStartWhereNoStepsHelp) {
  Linear linear(constants({2, 2, 2, 2, 2, 2, 2, 2, 3}));
  linear.slot->next_scripts = {constants({2, 2, 3}), constants({2, 2, 3, 2, 2, 2, 2, 2, 3})};
  const TuneResult result = linear.tune(kJudging, 1);
  EXPECT_EQ(result.restarts, kRestarts);
  EXPECT_EQ(result.iterations, 8 + 2 + 9);
  EXPECT_EQ(result.best_iteration, -1);
  EXPECT_EQ(linear.slot->kept, -1);
  EXPECT_EQ(result.loss_best, result.loss_first);
  EXPECT_EQ(linear.slot->decays.back(), 0.25 * 0.25 * (1 - 7.0 / 9));
}

TEST(TuneBlock, CountsLossesThatAreNotFiniteAndNeverKeepsThem) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Linear some(constants({nan, 2, nan, 1}));
  const TuneResult result = some.tune({.iters = 4, .batch_size = kSamples}, kSamples);
  EXPECT_EQ(result.non_finite_losses, 2);
  EXPECT_EQ(result.best_iteration, 3);
  Linear none(constants({nan, nan}));
  EXPECT_EQ(none.tune({.iters = 2, .batch_size = kSamples}, kSamples).best_iteration, -1);
  EXPECT_EQ(none.slot->kept, -1);
}

// Eight steps each at 4, 1, 0.98 times that loss, and so on: `third` is the value of the third
// eight.
Linear in_eights(float third) {
  std::vector<float> values(64, 0.5f);
  std::fill_n(values.begin(), 8, 2.0f);
  std::fill_n(values.begin() + 8, 8, 1.0f);
  std::fill_n(values.begin() + 16, 8, third);
  return Linear(constants(values));
}

TEST(TuneBlock, StopsEarlyWhereTheLossOverAllSamplesHardlyFalls) {
  Linear linear = in_eights(std::sqrt(0.98f));
  TuneOptions options{.iters = 64, .batch_size = kSamples, .early_stop = 0.03};
  const TuneResult result = linear.tune(options, kSamples);
  EXPECT_TRUE(result.stopped_early);
  EXPECT_EQ(result.iterations, 24 + 8);
  ASSERT_EQ(linear.slot->decays.size(), 31u);
  for (size_t i = 0; i < 31; ++i) {
    const double n = static_cast<double>(i);
    const double want = i < 24 ? 1 - n / 64 : (1 - 24.0 / 64) * (1 - (n - 24) / 8);
    EXPECT_DOUBLE_EQ(linear.slot->decays[i], want) << i;
  }
  Linear falls_enough = in_eights(std::sqrt(0.96f));
  EXPECT_EQ(falls_enough.tune(options, kSamples).iterations, 40 + 8);  // the last 40 are all alike
  Linear not_finite = in_eights(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(not_finite.tune(options, kSamples).iterations, 40 + 8);  // nobody knows what falls
  options.early_stop = 0;
  Linear never = in_eights(1);
  const TuneResult whole = never.tune(options, kSamples);
  EXPECT_EQ(whole.iterations, 64);
  EXPECT_FALSE(whole.stopped_early);
}

// Loss and gradient of the samples of one step, all of them weighing as one large batch; in double.
struct Reference {
  double loss = 0;
  std::vector<double> gradient = std::vector<double>(kOut * kIn);
  Reference(const std::vector<float>& x, const std::vector<float>& w, const TokenMasks& masks) {
    double rows = 0;
    for (int64_t t = 0; t < kSamples * kSeq; ++t)
      rows += masks.empty() || masks[static_cast<size_t>(t / kSeq)][static_cast<size_t>(t % kSeq)];
    for (int64_t t = 0; t < kSamples * kSeq; ++t) {
      if (!masks.empty() && !masks[static_cast<size_t>(t / kSeq)][static_cast<size_t>(t % kSeq)])
        continue;
      for (int64_t o = 0; o < kOut; ++o) {
        double y = 0;
        for (int64_t i = 0; i < kIn; ++i)
          y += double(x[static_cast<size_t>(t * kIn + i)]) * w[static_cast<size_t>(o * kIn + i)];
        loss += y * y / (rows * kOut);
        for (int64_t i = 0; i < kIn; ++i)
          gradient[static_cast<size_t>(o * kIn + i)] +=
              2 * y * x[static_cast<size_t>(t * kIn + i)] / (rows * kOut);
      }
    }
  }
};

TEST(TuneBlock, MicroBatchesAndMasksWeighAsOneLargeBatch) {
  const auto w = random_normal(kOut * kIn, 5);
  // From one token that counts to all of them: equal weights of samples would give another mean.
  TokenMasks masks;
  for (int64_t s = 0; s < kSamples; ++s) {
    masks.emplace_back(kSeq, uint8_t{0});
    for (int64_t t = 0; t <= std::min<int64_t>(s, kSeq - 1); ++t)
      masks.back()[static_cast<size_t>(t)] = 1;
  }
  for (const TokenMasks& mask : {TokenMasks{}, masks}) {
    Linear probe({w, w});
    const Reference want(probe.x, w, mask);
    double largest = 0;
    for (double g : want.gradient) largest = std::max(largest, std::abs(g));
    for (int64_t micro : {int64_t{1}, int64_t{2}, int64_t{3}, kSamples}) {
      for (int64_t accumulate : {int64_t{1}, int64_t{2}}) {
        Linear linear({w, w});
        const TuneResult result = linear.tune(
            {.iters = 2, .batch_size = kSamples / accumulate, .accumulate_steps = accumulate},
            micro, mask);
        // Sums of at most 30 f32 products, each off by 2^-24, that cancel to a third at most: 1e-5
        // is some times that.
        EXPECT_NEAR(result.loss_first, want.loss, 1e-5 * want.loss) << micro;
        ASSERT_EQ(linear.slot->gradients.size(), 1u);
        for (size_t i = 0; i < want.gradient.size(); ++i)
          EXPECT_NEAR(linear.slot->gradients[0][i], want.gradient[i], 1e-5 * largest)
              << micro << ", element " << i;
      }
    }
  }
}

// The same block on a GPU: with streams there and in the host's memory, as one graph a step and in
// micro-batches, with masks and without. Sums come in another order there, which flips a step's
// sign here and there: 2% of the loss after eight steps.
TEST(TuneBlock, OnAGpuGivesWhatTheHostDoes) {
  if (why_no_cuda() != nullptr) GTEST_SKIP() << why_no_cuda();
  const Device gpu{Device::Kind::kCuda, 0};
  const SignRoundOptions how{.iters = 8, .lr = 0.02};
  TokenMasks masked(kSamples, std::vector<uint8_t>(kSeq, 1));
  masked[1] = {0, 0, 1, 0, 1};
  masked[4][0] = 0;
  for (const TokenMasks& masks : {TokenMasks{}, masked}) {
    for (bool keep_best : {true, false}) {
      TuneOptions options{.iters = 8, .batch_size = kSamples, .keep_best = keep_best};
      options.judged = keep_best ? 0 : kSamples;
      Block host;
      auto slots = host.slots(how);
      Program on_host = host.make(kSamples);
      const TuneResult want = tune_block(on_host, host.weights, slots, host.inputs, host.targets,
                                         masks, options);
      for (int64_t micro : {int64_t{2}, kSamples})
        for (Device streams : {gpu, Device{Device::Kind::kPinned, 0}}) {
          SCOPED_TRACE(::testing::Message() << "masks " << masks.size() << ", micro " << micro
                                            << ", streams in " << name_of(streams));
          const DeviceScope scope(gpu);
          const Block block = [] {
            const DeviceScope here(Device{});
            return Block();
          }();
          BlockWeights staging(block.graph, DType::kF32, {Device::Kind::kPinned, 0}),
              weights(block.graph, DType::kF32, gpu);
          for (float& v : staging.vector("norm")) v = 1;
          std::vector<TunedLayer> layers;
          for (const auto& param : block.graph.linear_params()) {
            set_weight(staging, param.name, weight_of(param));
            const auto w = weight_of(param);
            Buffer there(param.out * param.in * 4, gpu);
            copy_to_device(there.data(), w.data(), there.bytes());
            layers.push_back({param.name, std::make_unique<SignRoundCudaSlot>(
                                              RowsAny{there.data(), DType::kF32, param.in},
                                              param.out, param.in, block.scheme, how)});
          }
          weights.upload(staging);
          ActivationStream inputs(kSamples, kSeq, kHidden, DType::kF32, "", streams),
              targets(kSamples, kSeq, kHidden, DType::kF32, "", streams);
          Buffer sample(kSeq * kHidden * 4, gpu);
          for (int64_t i = 0; i < kSamples; ++i) {
            copy_to_device(sample.data(), block.inputs.sample(i).data, sample.bytes());
            inputs.scatter(i, 1, sample.as<float>());
            copy_to_device(sample.data(), block.targets.sample(i).data, sample.bytes());
            targets.scatter(i, 1, sample.as<float>());
          }
          Program program(block.graph, {.batch = micro,
                                        .seq_len = kSeq,
                                        .compute = DType::kF32,
                                        .train = true,
                                        .device = gpu,
                                        .timed = false});
          const TuneResult got =
              tune_block(program, weights, layers, inputs, targets, masks, options);
          EXPECT_NEAR(got.loss_first, want.loss_first, 1e-4 * want.loss_first);
          EXPECT_NEAR(got.loss_best, want.loss_best, 0.02 * want.loss_best);
          EXPECT_EQ(got.iterations, want.iterations);
          EXPECT_EQ(got.non_finite_losses, 0);
        }
    }
  }
}

TEST(TuneBlock, RefusesWhatItCannotWeigh) {
  const TuneOptions options{.iters = 2, .batch_size = kSamples};
  testing::expect_error(ErrorKind::kInvalidArgument, "cannot be cut into micro-batches of 4", [&] {
    Linear(constants({1, 1})).tune(options, 4);
  });
  testing::expect_error(ErrorKind::kInvalidArgument, "no token of the samples counts", [&] {
    Linear(constants({1, 1})).tune(options, 2, TokenMasks(kSamples, std::vector<uint8_t>(kSeq, 0)));
  });
  testing::expect_error(ErrorKind::kInvalidArgument, "2 masks for 6 samples", [&] {
    Linear(constants({1, 1})).tune(options, 2, TokenMasks(2, std::vector<uint8_t>(kSeq, 1)));
  });
}

TEST(TuneBlock, RefusesTargetsOfAnotherShape) {
  Linear linear(constants({1, 1}));
  linear.targets = ActivationStream(kSamples, kSeq, kOut + 1, DType::kF32);
  testing::expect_error(ErrorKind::kInvalidArgument, "different shapes",
                        [&] { linear.tune({.iters = 2, .batch_size = kSamples}, 2); });
}

TEST(TuneBlock, StopsWhereTheCallerThrows) {
  Block block;
  Program program = block.make(2);
  auto layers = block.slots({.iters = 10});
  int seen = 0;
  EXPECT_THROW(tune_block(program, block.weights, layers, block.inputs, block.targets, {},
                          {.iters = 10, .batch_size = 2},
                          [&](int i) {
                            EXPECT_EQ(i, seen++);
                            if (i == 3) throw std::runtime_error("stop");
                          }),
               std::runtime_error);
  EXPECT_EQ(seen, 4);
}

}  // namespace
}  // namespace signround
