#include "signround/pipeline/distill.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

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

// Of a layer's integers with its scales and zero points.
int64_t integer_bytes(const FormatLayer& l) {
  return l.out * l.in +
         l.out * l.scheme.groups(l.in) * static_cast<int64_t>(sizeof(float) + sizeof(uint8_t));
}

std::set<std::string> rounded_names(const std::vector<FormatLayer>& layers) {
  std::set<std::string> names;
  for (const auto& layer : layers)
    if (layer.scheme.bits < 16) names.insert(layer.name);
  return names;
}

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
               std::vector<float>(static_cast<size_t>(rows_ * hidden_))),
        target_(saved_[0].size()),
        gradient_(saved_[0].size()) {
    first_ = blocks_;
    for (int64_t i = blocks_ - 1; i >= 0; --i)
      for (const auto& layer : layers(i)) {
        if (layer.scheme.bits == 16) continue;
        first_ = i;
        QuantizedLinear linear = in_.read(layer);
        tuners_.emplace(layer.name, ScaleTuner(linear));
        if (options_.keep_integers) kept_.emplace(layer.name, std::move(linear));
      }
    require(first_ < blocks_, "distill", "no layer is rounded");
    for (int64_t i = first_; i < blocks_ && options_.norms; ++i) {
      const Graph graph = in.architecture.block(i);
      for (const Op& op : graph.ops())
        if (const auto* norm = std::get_if<NormOp>(&op))
          norms_.emplace(
              norm->weight.name,
              Norm{norm->weight_offset, FactorTuner(static_cast<size_t>(norm->weight.size))});
    }
  }

  // One step on these samples: mean divergence per token that counts.
  double step(const int64_t* samples, double lr) {
    std::vector<uint8_t> mask;
    for (int64_t s = 0; s < options_.batch; ++s) {
      const auto index = static_cast<size_t>(samples[s]);
      timings_.timed("embed", 0, [&] {
        embed_tokens(in_.source, in_.architecture, in_.samples[index],
                     saved_[0].data() + s * in_.targets.seq_len() * hidden_);
      });
      if (!in_.masks.empty())
        mask.insert(mask.end(), in_.masks[index].begin(), in_.masks[index].end());
    }
    timings_.timed("gather", 0,
                   [&] { in_.targets.gather(samples, options_.batch, target_.data()); });
    for (const auto& shape : shapes_) shape->holds = -1;
    for (int64_t i = 0; i < blocks_; ++i) {
      const Shape& block = forward(i);
      copy(block.program.output(), rows_, hidden_, saved_[static_cast<size_t>(i + 1)].data());
    }
    const int64_t valid =
        mask.empty() ? rows_
                     : std::count_if(mask.begin(), mask.end(), [](uint8_t m) { return m != 0; });
    require(valid > 0, "distill", "no token of the samples counts in the loss");
    const double sum = head_.run(
        saved_.back().data(), rows_, mask, static_cast<float>(1.0 / static_cast<double>(valid)),
        [&](int64_t first, int64_t rows) {
          return head_.reference_logits(target_.data() + first * hidden_, rows);
        },
        gradient_.data());
    for (int64_t i = blocks_ - 1; i >= first_; --i) backward(i, lr);
    return sum / static_cast<double>(valid);
  }

  void add_timings(Timings& timings) const {
    timings.add(timings_.all());
    for (const auto& shape : shapes_) timings.add(shape->program.timings());
    head_.add_timings(timings);
  }

  void take(DistillResult& result) const {
    for (const auto& [name, tuner] : tuners_) result.scales[name] = tuner.scales();
    for (const auto& [name, norm] : norms_)
      result.norms[name] = {.rows = norm.tuner.factors(), .columns = {}, .offset = norm.offset};
  }

 private:
  // What runs all blocks of one shape.
  struct Shape {
    Graph graph;
    BlockWeights weights;
    Program program;
    int64_t holds = -1;  // the block that the program ran last, on parameters that are still those
  };
  struct Norm {
    float offset;
    FactorTuner tuner;
  };

  const std::vector<FormatLayer>& layers(int64_t block) const {
    return in_.layers[static_cast<size_t>(block)];
  }

  void copy(const float* from, int64_t rows, int64_t cols, float* to) {
    timings_.timed("gather", 0, [&] {
      const RowsAny x{from, DType::kF32, cols};
      convert(rows, cols, x, {to, DType::kF32, cols});
    });
  }

  Shape& shape_of(const Graph& graph) {
    for (auto& shape : shapes_)
      if (same_shape(shape->graph, graph)) {
        shape->weights.rename(graph);
        return *shape;
      }
    shapes_.push_back(
        std::make_unique<Shape>(Shape{graph, BlockWeights(graph, options_.compute),
                                      Program(graph, {.batch = options_.batch,
                                                      .seq_len = in_.targets.seq_len(),
                                                      .compute = options_.compute,
                                                      .train = true,
                                                      .input_gradient = true,
                                                      .norm_gradients = options_.norms})}));
    shapes_.back()->weights.allocate_gradients();
    shapes_.back()->weights.allocate_norm_gradients();
    return *shapes_.back();
  }

  // The layer with its scales as they are now.
  template <class Use>
  void with_rounded(const FormatLayer& layer, Use&& use) {
    const auto kept = kept_.find(layer.name);
    QuantizedLinear read;
    if (kept == kept_.end()) read = in_.read(layer);
    QuantizedLinear& linear = kept == kept_.end() ? read : kept->second;
    linear.scales = tuners_.at(layer.name).scales();
    use(linear);
  }

  // Runs the block on its saved input, with all parameters as they are now.
  Shape& forward(int64_t i) {
    const Graph graph = in_.architecture.block(i);
    Shape& shape = shape_of(graph);
    if (shape.holds == i) return shape;
    timings_.timed("load", 0, [&] { load(graph, layers(i), shape); });
    copy(saved_[static_cast<size_t>(i)].data(), rows_, hidden_, shape.program.input());
    shape.program.forward(shape.weights);
    shape.holds = i;
    return shape;
  }

  // Parameters as they are now.
  void load(const Graph& graph, const std::vector<FormatLayer>& layers, Shape& shape) {
    load_weights(in_.source, graph, shape.weights, rounded_names(layers));
    for (const auto& layer : layers) {
      if (layer.scheme.bits == 16) {
        in_.source.release(layer.name + ".weight");
        continue;
      }
      with_rounded(layer, [&](const QuantizedLinear& linear) {
        const WeightView place = shape.weights.weight(layer.name);
        dequantize(linear, place.data, place.dtype, place.stride);
      });
    }
    for (const auto& param : graph.vector_params()) {
      const auto norm = norms_.find(param.name);
      if (norm == norms_.end()) continue;
      const TensorFactors factors{
          .rows = norm->second.tuner.factors(), .columns = {}, .offset = norm->second.offset};
      const std::span<float> w = shape.weights.vector(param.name);
      for (size_t r = 0; r < w.size(); ++r)
        w[r] = scaled(w[r], factors, static_cast<int64_t>(r), 0);
    }
  }

  // gradient_: by the block's output; becomes that by its input.
  void backward(int64_t i, double lr) {
    Shape& shape = forward(i);
    const Graph graph = in_.architecture.block(i);
    std::vector<Norm*> norms;  // in the order of recording
    for (const Op& op : graph.ops())
      if (const auto* o = std::get_if<NormOp>(&op); o != nullptr && options_.norms) {
        const auto d = shape.weights.norm_gradient(norms.size());
        std::fill(d.begin(), d.end(), 0.0f);
        norms.push_back(&norms_.at(o->weight.name));
      }
    copy(gradient_.data(), rows_, hidden_, shape.program.output_gradient());
    shape.program.backward(shape.weights, false);
    copy(shape.program.input_gradient(), rows_, hidden_, gradient_.data());
    timings_.timed("step", 0, [&] { step_layers(layers(i), norms, lr, shape); });
    shape.holds = -1;
  }

  void step_layers(const std::vector<FormatLayer>& layers, const std::vector<Norm*>& norms,
                   double lr, Shape& shape) {
    for (const auto& layer : layers) {
      if (layer.scheme.bits == 16) continue;
      const WeightView place = shape.weights.weight(layer.name);
      with_rounded(layer, [&](const QuantizedLinear& linear) {
        tuners_.at(layer.name)
            .step(linear, static_cast<const float*>(place.gradient.data), place.gradient.stride,
                  lr);
      });
    }
    for (size_t n = 0; n < norms.size(); ++n) {
      std::vector<float> value;  // what the factor multiplies, times the factor
      for (float w : shape.weights.norm(n)) value.push_back(w + norms[n]->offset);
      norms[n]->tuner.step(shape.weights.norm_gradient(n), value, lr);
    }
  }

  const DistillInputs& in_;
  DistillOptions options_;
  int64_t hidden_, blocks_, rows_, first_ = 0;  // first_: the first block with a rounded layer
  HeadLoss head_;
  std::vector<std::vector<float>> saved_;  // the input of each block, and the last one's output
  std::vector<float> target_, gradient_;
  std::map<std::string, ScaleTuner> tuners_;
  std::map<std::string, QuantizedLinear> kept_;
  std::map<std::string, Norm> norms_;  // by the weight's name
  std::vector<std::unique_ptr<Shape>> shapes_;
  Timings timings_;
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
  distiller.take(result);
  if (inputs.timings != nullptr) distiller.add_timings(*inputs.timings);
  return result;
}

int64_t distill_bytes(const Architecture& architecture,
                      const std::vector<std::vector<FormatLayer>>& layers, int64_t seqlen,
                      const DistillOptions& options) {
  const int64_t rows = options.batch * seqlen;
  int64_t tuners = 0, integers = 0, largest = 0, blocks = 0;
  std::vector<Graph> shapes;
  for (int64_t i = 0; i < architecture.blocks; ++i) {
    for (const auto& l : layers[static_cast<size_t>(i)]) {
      if (l.scheme.bits == 16) continue;
      tuners += ScaleTuner::bytes(l.out, l.in, l.scheme);
      integers += integer_bytes(l);
      largest = std::max(largest, integer_bytes(l));
    }
    Graph graph = architecture.block(i);
    if (std::any_of(shapes.begin(), shapes.end(),
                    [&](const Graph& g) { return same_shape(g, graph); }))
      continue;
    blocks += BlockWeights::bytes_needed(graph, options.compute, DType::kF32) +
              Program::bytes_needed(graph, {.batch = options.batch,
                                            .seq_len = seqlen,
                                            .compute = options.compute,
                                            .train = true,
                                            .input_gradient = true,
                                            .norm_gradients = options.norms});
    shapes.push_back(std::move(graph));
  }
  return tuners + (options.keep_integers ? integers : largest) + blocks +
         (architecture.blocks + 3) * rows * architecture.hidden * 4 +
         HeadLoss::bytes_needed(architecture, options.compute);
}

}  // namespace signround
