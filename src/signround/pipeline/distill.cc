#include "signround/pipeline/distill.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "signround/base/error.h"
#include "signround/eval/text_model.h"
#include "signround/graph/program.h"
#include "signround/model/load.h"
#include "signround/ops/convert.h"
#include "signround/pipeline/head_loss.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_tuner.h"

namespace signround {
namespace {

constexpr int64_t kReported = 8;  // steps in the means that are reported, at most

class Distiller {
 public:
  Distiller(const DistillInputs& in, const DistillOptions& options)
      : in_(in),
        options_(options),
        hidden_(in.architecture.hidden),
        blocks_(in.architecture.blocks),
        rows_(options.batch * in.targets.seq_len()),
        head_(in.source, in.architecture, options.compute),
        saved_(static_cast<size_t>(blocks_ + 1),
               std::vector<float>(static_cast<size_t>(rows_ * hidden_))) {
    first_ = blocks_;
    for (int64_t i = blocks_ - 1; i >= 0; --i)
      for (const auto& layer : layers(i)) {
        if (layer.scheme.bits == 16) continue;
        first_ = i;
        tuners_.emplace(layer.name, ScaleTuner(in_.read(layer)));
      }
    require(first_ < blocks_, "distill", "no layer is rounded");
  }

  // One step on these samples: mean divergence per token that counts.
  double step(const int64_t* samples, double lr) {
    std::vector<uint8_t> mask;
    std::vector<float> target(saved_[0].size()), gradient(saved_[0].size());
    for (int64_t s = 0; s < options_.batch; ++s) {
      const auto index = static_cast<size_t>(samples[s]);
      embed_tokens(in_.source, in_.architecture, in_.samples[index],
                   saved_[0].data() + s * in_.targets.seq_len() * hidden_);
      if (!in_.masks.empty())
        mask.insert(mask.end(), in_.masks[index].begin(), in_.masks[index].end());
    }
    in_.targets.gather(samples, options_.batch, target.data());
    for (int64_t i = 0; i < blocks_; ++i) forward(i);
    const int64_t valid =
        mask.empty() ? rows_
                     : std::count_if(mask.begin(), mask.end(), [](uint8_t m) { return m != 0; });
    require(valid > 0, "distill", "no token of the samples counts in the loss");
    const double sum = head_.run(
        saved_.back().data(), rows_, mask, static_cast<float>(1.0 / static_cast<double>(valid)),
        [&](int64_t first, int64_t rows, float* logits) {
          std::copy_n(head_.logits(target.data() + first * hidden_, rows), rows * head_.vocab(),
                      logits);
        },
        gradient.data());
    for (int64_t i = blocks_ - 1; i >= first_; --i) backward(i, lr, gradient);
    return sum / static_cast<double>(valid);
  }

  std::map<std::string, std::vector<float>> scales() const {
    std::map<std::string, std::vector<float>> all;
    for (const auto& [name, tuner] : tuners_) all[name] = tuner.scales();
    return all;
  }

 private:
  const std::vector<FormatLayer>& layers(int64_t block) const {
    return in_.layers[static_cast<size_t>(block)];
  }

  // The block's parameters with the scales as they are now.
  std::map<std::string, QuantizedLinear> load(int64_t block, const Graph& graph,
                                              BlockWeights& weights) const {
    load_weights(in_.source, graph, weights);
    std::map<std::string, QuantizedLinear> rounded;
    std::vector<float> values;
    for (const auto& layer : layers(block)) {
      in_.source.release(layer.name + ".weight");
      if (layer.scheme.bits == 16) continue;
      QuantizedLinear linear = in_.read(layer);
      linear.scales = tuners_.at(layer.name).scales();
      values.resize(static_cast<size_t>(layer.out * layer.in));
      dequantize(linear, values.data());
      const WeightView place = weights.weight(layer.name);
      convert(layer.out, layer.in, {values.data(), DType::kF32, layer.in},
              {place.data, place.dtype, place.stride});
      rounded.emplace(layer.name, std::move(linear));
    }
    return rounded;
  }

  ProgramOptions program_options() const {
    return {.batch = options_.batch, .seq_len = in_.targets.seq_len(), .compute = options_.compute};
  }

  void forward(int64_t i) {
    const Graph graph = in_.architecture.block(i);
    BlockWeights weights(graph, options_.compute);
    load(i, graph, weights);
    Program program(graph, program_options());
    const auto index = static_cast<size_t>(i);
    std::copy(saved_[index].begin(), saved_[index].end(), program.input());
    program.forward(weights);
    std::copy_n(program.output(), saved_[index + 1].size(), saved_[index + 1].begin());
  }

  // gradient: by the block's output; becomes that by its input.
  void backward(int64_t i, double lr, std::vector<float>& gradient) {
    const Graph graph = in_.architecture.block(i);
    BlockWeights weights(graph, options_.compute);
    const auto rounded = load(i, graph, weights);
    weights.allocate_gradients();
    ProgramOptions how = program_options();
    how.train = true;
    how.input_gradient = i > first_;
    for (const auto& layer : layers(i))
      if (layer.scheme.bits == 16) how.untuned.insert(layer.name);
    Program program(graph, how);
    const auto& input = saved_[static_cast<size_t>(i)];
    std::copy(input.begin(), input.end(), program.input());
    program.forward(weights);
    std::copy(gradient.begin(), gradient.end(), program.output_gradient());
    program.backward(weights, false);
    if (how.input_gradient)
      std::copy_n(program.input_gradient(), gradient.size(), gradient.begin());
    for (const auto& [name, linear] : rounded) {
      const WeightView place = weights.weight(name);
      tuners_.at(name).step(linear, place.gradient, place.stride, lr);
    }
  }

  const DistillInputs& in_;
  DistillOptions options_;
  int64_t hidden_, blocks_, rows_, first_ = 0;  // first_: the first block with a rounded layer
  HeadLoss head_;
  std::vector<std::vector<float>> saved_;  // the input of each block, and the last one's output
  std::map<std::string, ScaleTuner> tuners_;
};

}  // namespace

DistillResult distill(const DistillInputs& inputs, const DistillOptions& options,
                      const std::function<void(int64_t, int64_t, double)>& on_step) {
  const int64_t samples = inputs.targets.samples();
  require(options.epochs > 0 && options.batch > 0 && options.batch <= samples, "distill",
          options.epochs, " epochs in batches of ", options.batch, " of ", samples, " samples");
  require(static_cast<int64_t>(inputs.samples.size()) == samples, "distill", inputs.samples.size(),
          " samples with ", samples, " targets");
  Distiller distiller(inputs, options);
  SampleOrder order(samples, options.batch, options.seed);
  DistillResult result;
  result.steps = samples / options.batch * options.epochs;
  const int64_t reported = std::clamp(result.steps / 2, int64_t{1}, kReported);
  for (int64_t i = 0; i < result.steps; ++i) {
    const double decay = 1 - static_cast<double>(i) / static_cast<double>(result.steps);
    const double kl = distiller.step(order.next(), decay * options.lr);
    if (i < reported) result.kl_first += kl / static_cast<double>(reported);
    if (i >= result.steps - reported) result.kl_last += kl / static_cast<double>(reported);
    if (on_step) on_step(i, result.steps, kl);
  }
  result.scales = distiller.scales();
  return result;
}

int64_t distill_bytes(const Architecture& architecture,
                      const std::vector<std::vector<FormatLayer>>& layers, int64_t seqlen,
                      const DistillOptions& options) {
  const int64_t rows = options.batch * seqlen;
  int64_t tuners = 0, block = 0;
  for (int64_t i = 0; i < architecture.blocks; ++i) {
    const Graph graph = architecture.block(i);
    int64_t rounded = 0;
    for (const auto& l : layers[static_cast<size_t>(i)]) {
      if (l.scheme.bits == 16) continue;
      tuners += ScaleTuner::bytes(l.out, l.in, l.scheme);
      rounded += 5 * l.out * l.in;  // its integers, and one layer's values at a time
    }
    block = std::max(block, rounded + BlockWeights::bytes_needed(graph, options.compute, true) +
                                Program::bytes_needed(graph, {.batch = options.batch,
                                                              .seq_len = seqlen,
                                                              .compute = options.compute,
                                                              .train = true,
                                                              .input_gradient = true}));
  }
  return tuners + block + (architecture.blocks + 3) * rows * architecture.hidden * 4 +
         HeadLoss::bytes_needed(architecture, options.compute);
}

}  // namespace signround
