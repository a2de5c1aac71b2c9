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
#include "signround/quant/scale_tuner_cuda.h"

namespace signround {
namespace {

constexpr int64_t kReported = 8;  // steps in the means that are reported, at most

constexpr int64_t kHeadRowsOnGpu = 1024;
// On a GPU, of sums over rows for the norms' gradients (528 rows of 8192), and angles of rotations.
constexpr int64_t kSumsOnGpu = int64_t{24} << 20;

// Of the head, at a time.
int64_t head_rows(Device device, int64_t rows) {
  return device.is_cuda() ? std::min(rows, kHeadRowsOnGpu) : HeadLoss::kRows;
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
        timed_(options.profile || !options.device.is_cuda()),
        head_(in.source, in.architecture, options.compute, options.device,
              head_rows(options.device, rows_), timed_) {
    const int64_t bytes = rows_ * hidden_ * 4;
    for (int64_t i = 0; i <= blocks_; ++i) saved_.emplace_back(bytes, options.device);
    target_ = Buffer(bytes, options.device);
    gradient_ = Buffer(bytes, options.device);
    if (options.device.is_cuda()) embedded_ = Buffer(bytes, {Device::Kind::kPinned, 0});
    first_ = blocks_;
    for (int64_t i = blocks_ - 1; i >= 0; --i)
      for (const auto& layer : layers(i)) {
        if (layer.scheme.bits == 16) continue;
        first_ = i;
        const auto read = [this, &layer] { return in_.read(layer); };
        QuantizedLinear linear = read();
        const DeviceScope scope(options.device);
        learned_.emplace(layer.name, learned_layer(std::move(linear), options.integers, read));
      }
    require(first_ < blocks_, "distill", "no layer is rounded");
    const DeviceScope scope(options.device);
    for (int64_t i = 0; i < blocks_; ++i) {
      const Graph graph = in.architecture.block(i);
      if (on_cuda()) check_weights(in.source, graph);
      for (const Op& op : graph.ops())
        if (const auto* norm = std::get_if<NormOp>(&op); norm && i >= first_ && options.norms)
          norms_.emplace(
              norm->weight.name,
              Norm{norm->weight_offset, learned_norm(norm->weight.size, norm->weight_offset)});
    }
  }

  // One step on these samples: mean divergence per token that counts.
  double step(const int64_t* samples, double lr) {
    const DeviceScope scope(options_.device);
    std::vector<uint8_t> mask;
    if (!in_.masks.empty())
      for (int64_t s = 0; s < options_.batch; ++s) {
        const auto& of_sample = in_.masks[static_cast<size_t>(samples[s])];
        mask.insert(mask.end(), of_sample.begin(), of_sample.end());
      }
    timed("embed", [&] { embed(samples); });
    timed("gather", [&] { gather_targets(samples); });
    for (const auto& shape : shapes_) shape->holds = -1;
    for (int64_t i = 0; i < blocks_; ++i) {
      const Shape& block = forward(i);
      copy(block.program.output(), saved(i + 1));
      if (i + 1 < blocks_) rest(i);
    }
    const int64_t valid =
        mask.empty() ? rows_
                     : std::count_if(mask.begin(), mask.end(), [](uint8_t m) { return m != 0; });
    require(valid > 0, "distill", "no token of the samples counts in the loss");
    const double sum = head_.run(
        saved(blocks_), rows_, mask, static_cast<float>(1.0 / static_cast<double>(valid)),
        [&](int64_t first, int64_t rows) {
          return head_.reference_logits(target_.as<float>() + first * hidden_, rows);
        },
        gradient_.as<float>());
    for (int64_t i = blocks_ - 1; i >= first_; --i) backward(i, lr);
    return sum / static_cast<double>(valid);
  }

  void add_timings(Timings& timings) const {
    timings.add(timings_.all());
    for (const auto& shape : shapes_) timings.add(shape->program.timings());
    head_.add_timings(timings);
  }

  void take(DistillResult& result) const {
    const DeviceScope scope(options_.device);
    for (const auto& [name, layer] : learned_) result.scales[name] = layer->scales();
    for (const auto& [name, norm] : norms_)
      result.norms[name] = {.rows = norm.learned->factors(), .columns = {}, .offset = norm.offset};
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
    std::unique_ptr<LearnedNorm> learned;
  };

  template <class F>
  void timed(const char* name, F&& f) {
    timings_.timed(name, 0, [&] {
      f();
      if (options_.profile && on_cuda()) synchronize();
    });
  }

  float* saved(int64_t i) { return saved_[static_cast<size_t>(i)].as<float>(); }
  const std::vector<FormatLayer>& layers(int64_t block) const {
    return in_.layers[static_cast<size_t>(block)];
  }

  void copy(const float* from, float* to) {
    timed("gather", [&] {
      const RowsAny x{from, DType::kF32, hidden_};
      convert(rows_, hidden_, x, {to, DType::kF32, hidden_});
    });
  }

  void embed(const int64_t* samples) {
    float* rows = on_cuda() ? embedded_.as<float>() : saved(0);
    {
      const DeviceScope on_host({});
      for (int64_t s = 0; s < options_.batch; ++s)
        embed_tokens(in_.source, in_.architecture, in_.samples[static_cast<size_t>(samples[s])],
                     rows + s * in_.targets.seq_len() * hidden_);
    }
    // The loss of the step before was waited for: its rows are not on their way any more.
    if (on_cuda()) copy_to_device(saved(0), rows, rows_ * hidden_ * 4);
  }

  void gather_targets(const int64_t* samples) {
    if (on_cuda() || !in_.targets.device().is_cuda())
      return in_.targets.gather(samples, options_.batch, target_.as<float>());
    const DeviceScope scope(in_.targets.device());  // they wait on a GPU, the pass runs on the CPU
    Buffer there(target_.bytes(), in_.targets.device());
    in_.targets.gather(samples, options_.batch, there.as<float>());
    copy_to_host(target_.data(), there.data(), there.bytes());
  }

  Shape& shape_of(const Graph& graph) {
    for (auto& shape : shapes_)
      if (same_shape(shape->graph, graph)) {
        shape->weights.rename(graph);
        return *shape;
      }
    shapes_.push_back(
        std::make_unique<Shape>(Shape{graph, BlockWeights(graph, options_.compute, options_.device),
                                      Program(graph, {.batch = options_.batch,
                                                      .seq_len = in_.targets.seq_len(),
                                                      .compute = options_.compute,
                                                      .train = true,
                                                      .input_gradient = true,
                                                      .norm_gradients = options_.norms,
                                                      .device = options_.device,
                                                      .timed = timed_})}));
    shapes_.back()->weights.allocate_gradients();
    shapes_.back()->weights.allocate_norm_gradients();
    return *shapes_.back();
  }

  // The block is not in work.
  void rest(int64_t i) {
    for (const auto& layer : layers(i))
      if (layer.scheme.bits < 16) learned_.at(layer.name)->rest();
  }

  // Runs the block on its saved input, with all parameters as they are now.
  Shape& forward(int64_t i) {
    const Graph graph = in_.architecture.block(i);
    Shape& shape = shape_of(graph);
    if (shape.holds == i) return shape;
    timed("load", [&] { load(graph, layers(i), shape.weights); });
    copy(saved(i), shape.program.input());
    shape.program.forward(shape.weights);
    shape.holds = i;
    return shape;
  }

  // Parameters as they are now.
  void load(const Graph& graph, const std::vector<FormatLayer>& layers, BlockWeights& weights) {
    if (on_cuda()) {
      load_unrounded_on_gpu(graph, layers, weights);
    } else {
      load_weights(in_.source, graph, weights, rounded_names(layers));
      for (const auto& layer : layers)
        if (layer.scheme.bits == 16) in_.source.release(layer.name + ".weight");
    }
    for (const auto& layer : layers)
      if (layer.scheme.bits < 16) learned_.at(layer.name)->write(weights.weight(layer.name));
    for (const auto& param : graph.vector_params())
      if (const auto norm = norms_.find(param.name); norm != norms_.end())
        norm->second.learned->apply(weights.vector(param.name));
  }

  // What does not learn, as the source has it. Vectors are read once; weights as well, where
  // integers are kept there.
  void load_unrounded_on_gpu(const Graph& graph, const std::vector<FormatLayer>& layers,
                             BlockWeights& weights) {
    for (const auto& param : graph.vector_params()) {
      Buffer& kept = unrounded_[param.name];
      if (kept.bytes() == 0)
        kept = on_gpu([&] {
          std::vector<float> values(static_cast<size_t>(param.size));
          in_.source.read_f32(param.name, 0, param.size, values.data());
          return values;
        });
      copy_on_device(weights.vector(param.name).data(), kept.data(), kept.bytes());
    }
    for (const auto& layer : layers) {
      if (layer.scheme.bits < 16) continue;
      const WeightView place = weights.weight(layer.name);
      const int64_t bytes = place.out * place.stride * size_of(place.dtype);
      if (const auto kept = unrounded_.find(layer.name); kept != unrounded_.end()) {
        copy_on_device(place.data, kept->second.data(), bytes);
        continue;
      }
      const Buffer rows = on_gpu([&] {
        auto values = read_linear(in_.source, {layer.name, layer.out, layer.in, false});
        in_.source.release(layer.name + ".weight");
        return values;
      });
      convert(layer.out, layer.in, {rows.data(), DType::kF32, layer.in},
              {place.data, place.dtype, place.stride});
      if (options_.integers == IntegerPlace::kThere) {
        Buffer& kept = unrounded_[layer.name] = Buffer(bytes, options_.device);
        copy_on_device(kept.data(), place.data, bytes);
      }
      synchronize();  // before the rows go
    }
  }

  // What read() gives, in the scope of the CPU.
  template <class Read>
  Buffer on_gpu(Read&& read) const {
    std::vector<float> values;
    {
      const DeviceScope on_host({});
      values = read();
    }
    Buffer there(static_cast<int64_t>(values.size()) * 4, options_.device);
    copy_to_device(there.data(), values.data(), there.bytes());
    synchronize();  // before the values go
    return there;
  }

  // gradient_: by the block's output; becomes that by its input.
  void backward(int64_t i, double lr) {
    Shape& shape = forward(i);
    shape.weights.zero_vector_gradients();
    copy(gradient_.as<float>(), shape.program.output_gradient());
    shape.program.backward(shape.weights, false);
    copy(shape.program.input_gradient(), gradient_.as<float>());
    timed("step", [&] { step_parameters(i, lr, shape.weights); });
    rest(i);
    shape.holds = -1;
  }

  void step_parameters(int64_t i, double lr, BlockWeights& weights) {
    for (const auto& layer : layers(i))
      if (layer.scheme.bits < 16)
        learned_.at(layer.name)->step(weights.weight(layer.name).gradient, lr);
    if (!options_.norms) return;
    size_t n = 0;  // in the order of recording
    const Graph graph = in_.architecture.block(i);
    for (const Op& op : graph.ops())
      if (const auto* norm = std::get_if<NormOp>(&op)) {
        norms_.at(norm->weight.name).learned->step(weights.norm_gradient(n), weights.norm(n), lr);
        ++n;
      }
  }

  const DistillInputs& in_;
  DistillOptions options_;
  int64_t hidden_, blocks_, rows_, first_ = 0;  // first_: the first block with a rounded layer
  bool timed_;
  HeadLoss head_;
  std::vector<Buffer> saved_;  // the input of each block, and the last one's output
  Buffer target_, gradient_;
  Buffer embedded_;  // of a GPU: the first block's input on its way there
  std::map<std::string, std::unique_ptr<LearnedLayer>> learned_;
  std::map<std::string, Norm> norms_;        // by the weight's name
  std::map<std::string, Buffer> unrounded_;  // of a GPU
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

DistillBytes distill_bytes(const Architecture& architecture,
                           const std::vector<std::vector<FormatLayer>>& layers, int64_t seqlen,
                           const DistillOptions& options) {
  const int64_t rows = options.batch * seqlen;
  const bool on_gpu = options.device.is_cuda(), there = options.integers == IntegerPlace::kThere;
  int64_t learned = 0, integers = 0, largest = 0, blocks = 0;
  // Of a GPU: codes and unrounded weights of all blocks, of the block that has most, and vectors.
  int64_t held = 0, block_held = 0, vectors = 0, upload = 0;
  std::vector<Graph> shapes;
  for (int64_t i = 0; i < architecture.blocks; ++i) {
    int64_t codes = 0;
    for (const auto& l : layers[static_cast<size_t>(i)]) {
      if (l.scheme.bits == 16) {
        if (there)
          held +=
              l.out * row_stride(l.in, options.compute, options.device) * size_of(options.compute);
        upload = std::max(upload, l.out * l.in * 4);
        continue;
      }
      learned += learned_layer_bytes(l.out, l.in, l.scheme, options.device);
      const int64_t bytes = integer_bytes(l.out, l.in, l.scheme);
      integers += bytes;
      largest = std::max(largest, bytes);
      codes += ScaleTunerCuda::code_bytes(l.out, l.in);
    }
    held += codes;
    block_held = std::max(block_held, codes);
    Graph graph = architecture.block(i);
    int64_t gradients = 0;  // of norms
    for (const auto& v : graph.vector_params()) {
      vectors += v.size * 4;
      if (options.norms) vectors += FactorTunerCuda::bytes(v.size);
      gradients += v.size * 4;
    }
    if (std::any_of(shapes.begin(), shapes.end(),
                    [&](const Graph& g) { return same_shape(g, graph); }))
      continue;
    blocks += BlockWeights::bytes_needed(graph, options.compute, DType::kF32, options.device) +
              (on_gpu ? gradients : 0) +
              Program::bytes_needed(graph, {.batch = options.batch,
                                            .seq_len = seqlen,
                                            .compute = options.compute,
                                            .train = true,
                                            .input_gradient = true,
                                            .norm_gradients = options.norms,
                                            .device = options.device});
    shapes.push_back(std::move(graph));
  }
  const int64_t activations = rows * architecture.hidden * 4;
  const int64_t of_pass = learned + blocks + (architecture.blocks + 3) * activations +
                          HeadLoss::bytes_needed(architecture, options.compute, options.device,
                                                 head_rows(options.device, rows));
  if (!on_gpu)
    return {.host = of_pass + (options.integers == IntegerPlace::kInFile ? largest : integers)};
  // The host: what is read, until it is there, and the result.
  int64_t results = 0;
  for (const auto& of_block : layers)
    for (const auto& l : of_block)
      if (l.scheme.bits < 16) results += 4 * l.out * l.scheme.groups(l.in);
  return {.host = activations + results +
                  std::max({BlockWeights::bytes_needed(architecture.head(), options.compute,
                                                       std::nullopt, options.device),
                            largest, upload}) +
                  (options.integers == IntegerPlace::kInHost ? integers : 0),
          .gpu = of_pass + vectors + upload + kSumsOnGpu + (there ? held : block_held)};
}

}  // namespace signround
