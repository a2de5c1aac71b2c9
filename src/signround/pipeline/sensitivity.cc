#include "signround/pipeline/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/base/random.h"
#include "signround/eval/text_model.h"
#include "signround/graph/program.h"
#include "signround/model/load.h"
#include "signround/ops/convert.h"
#include "signround/pipeline/head_loss.h"
#include "signround/pipeline/layer_config.h"
#include "signround/quant/imatrix.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"

namespace signround {
namespace {

// <g, d> and sum |g d| of matrices (rows, cols). Sums of a row are kept in lanes, so that their
// order does not depend on the machine; threads split the rows and their sums are added in order.
struct Products {
  double dot = 0, absolute = 0;
};

Products products_of(int64_t rows, int64_t cols, const float* g, int64_t stride, const BF16* d) {
  constexpr int64_t kLanes = 16;
  std::vector<Products> of_row(static_cast<size_t>(rows));
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float dot[kLanes] = {}, absolute[kLanes] = {};
      const float* x = g + r * stride;
      const BF16* y = d + r * cols;
      int64_t c = 0;
      for (; c + kLanes <= cols; c += kLanes)
        for (int64_t l = 0; l < kLanes; ++l) {
          const float p = x[c + l] * to_f32(y[c + l]);
          dot[l] += p;
          absolute[l] += std::fabs(p);
        }
      for (; c < cols; ++c) {
        const float p = x[c] * to_f32(y[c]);
        dot[c % kLanes] += p;
        absolute[c % kLanes] += std::fabs(p);
      }
      Products& sum = of_row[static_cast<size_t>(r)];
      for (int64_t l = 0; l < kLanes; ++l) sum.dot += dot[l], sum.absolute += absolute[l];
    }
  });
  Products all;
  for (const Products& p : of_row) all.dot += p.dot, all.absolute += p.absolute;
  return all;
}

int64_t index_in(const std::vector<SensitivityUnit>& units, const std::string& layer) {
  for (size_t u = 0; u < units.size(); ++u)
    for (const auto& name : units[u].layers)
      if (name == layer) return static_cast<int64_t>(u);
  return -1;
}

class Measure {
 public:
  Measure(const SensitivityInputs& in, const SensitivityOptions& options)
      : in_(in),
        options_(options),
        samples_(std::min(options.samples, static_cast<int64_t>(in.samples.size()))),
        length_(static_cast<int64_t>(in.samples.at(0).size())),
        hidden_(in.architecture.hidden) {}

  std::vector<SensitivityUnit> run(const std::function<void(int64_t, int64_t)>& on_progress) {
    const int64_t blocks = in_.architecture.blocks;
    first_ = blocks;
    for (int64_t i = blocks - 1; i >= 0; --i)
      for (const auto& layer : in_.layers[static_cast<size_t>(i)])
        if (layer.scheme.bits != 16) first_ = i;
    require(first_ < blocks, "sensitivity", "no layer is to be rounded");
    const int64_t steps = 2 * blocks - first_;
    forward([&](int64_t done) { on_progress(done, steps); });
    head();
    std::vector<std::vector<SensitivityUnit>> found(static_cast<size_t>(blocks));
    for (int64_t i = blocks - 1; i >= first_; --i) {
      found[static_cast<size_t>(i)] = block(i);
      on_progress(blocks + (blocks - i), steps);
    }
    std::vector<SensitivityUnit> all;
    for (auto& units : found)
      for (auto& unit : units) all.push_back(std::move(unit));
    return all;
  }

 private:
  std::span<const uint8_t> mask_of(int64_t sample) const {
    if (in_.masks.empty()) return {};
    return in_.masks[static_cast<size_t>(sample)];
  }
  int64_t valid_tokens() const {
    int64_t valid = 0;
    for (int64_t s = 0; s < samples_; ++s) {
      const auto mask = mask_of(s);
      valid += mask.empty()
                   ? length_
                   : std::count_if(mask.begin(), mask.end(), [](uint8_t m) { return m != 0; });
    }
    return valid;
  }
  Program program_of(const Graph& graph, bool train, int64_t block) const {
    ProgramOptions how{.batch = 1,
                       .seq_len = length_,
                       .compute = options_.compute,
                       .train = train,
                       .input_gradient = block > first_};
    if (train)
      for (const auto& layer : in_.layers[static_cast<size_t>(block)])
        if (layer.scheme.bits == 16) how.untuned.insert(layer.name);
    return Program(graph, how);
  }
  void load(const Graph& graph, BlockWeights& weights) const {
    load_weights(in_.source, graph, weights);
    for (const auto& param : graph.linear_params()) in_.source.release(param.name + ".weight");
  }

  void forward(const std::function<void(int64_t)>& on_block) {
    const DType dtype = options_.compute;
    inputs_.emplace_back(samples_, length_, hidden_, dtype, options_.folder);
    std::vector<float> rows(static_cast<size_t>(length_ * hidden_));
    for (int64_t s = 0; s < samples_; ++s) {
      embed_tokens(in_.source, in_.architecture, in_.samples[static_cast<size_t>(s)], rows.data());
      inputs_[0].scatter(s, 1, rows.data());
    }
    for (int64_t i = 0; i < in_.architecture.blocks; ++i) {
      const Graph graph = in_.architecture.block(i);
      BlockWeights weights(graph, options_.compute);
      load(graph, weights);
      Program program(graph, {.batch = 1, .seq_len = length_, .compute = options_.compute});
      ActivationStream next(samples_, length_, hidden_, dtype, options_.folder);
      for (int64_t s = 0; s < samples_; ++s) {
        inputs_.back().gather(s, 1, program.input());
        program.forward(weights);
        next.scatter(s, 1, program.output());
      }
      if (i < first_) inputs_.back() = {};
      inputs_.push_back(std::move(next));
      on_block(i + 1);
    }
  }

  // The gradient of -log p of labels drawn from the model's predictions, by its last hidden states.
  void head() {
    HeadLoss head(in_.source, in_.architecture, options_.compute);
    gradients_ = ActivationStream(samples_, length_, hidden_, DType::kF32, options_.folder);
    std::vector<float> hidden(static_cast<size_t>(length_ * hidden_)), gradient(hidden.size());
    NumpyRandom random(options_.seed);
    const int64_t vocab = head.vocab();
    for (int64_t s = 0; s < samples_; ++s) {
      inputs_.back().gather(s, 1, hidden.data());
      head.run(
          hidden.data(), length_, mask_of(s), 1.0f,
          [&](int64_t first, int64_t rows) {
            float* logits = head.reference_logits(hidden.data() + first * hidden_, rows);
            std::vector<double> at(static_cast<size_t>(rows));
            for (double& u : at) u = static_cast<double>(random.next_u64() >> 11) * 0x1p-53;
            parallel_for(rows, 8, [&](int64_t begin, int64_t end) {
              for (int64_t r = begin; r < end; ++r)
                draw(logits + r * vocab, vocab, at[static_cast<size_t>(r)]);
            });
            return logits;
          },
          gradient.data());
      gradients_.scatter(s, 1, gradient.data());
    }
    inputs_.pop_back();
  }

  // Leaves the logits of a distribution with all weight on the label that u in [0, 1) chooses.
  static void draw(float* logits, int64_t vocab, double u) {
    const float most = *std::max_element(logits, logits + vocab);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(logits[v] - most);
    int64_t label = 0;
    double left = u * sum;
    for (; label + 1 < vocab; ++label) {
      left -= std::exp(logits[label] - most);
      if (left < 0) break;
    }
    std::fill(logits, logits + vocab, -1e30f);
    logits[label] = 0;
  }

  // Sums of squares of what each linear layer reads.
  std::map<std::string, std::vector<float>> importance_of_inputs(const Graph& graph,
                                                                 const BlockWeights& weights,
                                                                 const ActivationStream& input) {
    std::map<std::string, std::vector<double>> sums;
    std::vector<float> scratch;
    Program program(graph, {.batch = 1, .seq_len = length_, .compute = options_.compute});
    program.set_linear_input_observer(
        [&](const LinearsOp& op, const void* x, DType dtype, int64_t rows, int64_t stride) {
          const int64_t in = op.params[0].in;
          auto& sum = sums[op.params[0].name];
          sum.resize(static_cast<size_t>(in));
          scratch.resize(static_cast<size_t>(rows * in));
          convert(rows, in, {x, dtype, stride}, {scratch.data(), DType::kF32, in});
          add_second_moments(scratch.data(), rows, in, in, sum.data());
        });
    for (int64_t s = 0; s < samples_; ++s) {
      input.gather(s, 1, program.input());
      program.forward(weights);
    }
    std::map<std::string, std::vector<float>> result;
    for (const Op& op : graph.ops())
      if (const auto* linears = std::get_if<LinearsOp>(&op)) {
        const auto& sum = sums.at(linears->params[0].name);
        for (const auto& param : linears->params) result[param.name].assign(sum.begin(), sum.end());
      }
    return result;
  }

  std::vector<SensitivityUnit> units_of(int64_t i) const {
    const std::string prefix = in_.architecture.block_prefix + "." + std::to_string(i) + ".";
    std::vector<SensitivityUnit> units;
    for (const auto& layer : in_.layers[static_cast<size_t>(i)]) {
      if (layer.scheme.bits == 16) continue;
      SensitivityUnit* unit = nullptr;
      for (const auto& names : in_.architecture.fused)
        if (std::any_of(names.begin(), names.end(),
                        [&](const auto& n) { return prefix + n == layer.name; }))
          for (const auto& name : names)
            if (const int64_t u = index_in(units, prefix + name); u >= 0)
              unit = &units[static_cast<size_t>(u)];
      if (unit == nullptr) unit = &units.emplace_back();
      unit->layers.push_back(layer.name);
      unit->weights += layer.out * layer.in;
    }
    return units;
  }

  std::vector<SensitivityUnit> block(int64_t i) {
    const auto& layers = in_.layers[static_cast<size_t>(i)];
    auto units = units_of(i);
    const ActivationStream input = std::move(inputs_.back());
    inputs_.pop_back();
    const Graph graph = in_.architecture.block(i);
    BlockWeights weights(graph, options_.compute);
    load(graph, weights);
    const auto importance = importance_of_inputs(graph, weights, input);

    struct Change {
      const FormatLayer* layer;
      size_t unit, choice;
      std::vector<BF16> weight;
    };
    std::vector<Change> changes;
    const size_t choices = options_.schemes.size();
    std::vector<double> error(units.size() * choices), signal(units.size() * choices);
    for (const auto& layer : layers) {
      if (layer.scheme.bits == 16) continue;
      const auto unit = static_cast<size_t>(index_in(units, layer.name));
      units[unit].choices.resize(choices);
      const auto rows = read_linear(in_.source, {layer.name, layer.out, layer.in, false});
      const auto& weight = importance.at(layer.name);
      for (size_t c = 0; c < choices; ++c) {
        FormatLayer as = layer;
        as.scheme = options_.schemes[c];
        auto& choice = units[unit].choices[c];
        choice.scheme = as.scheme;
        choice.bytes +=
            as.scheme.bits == 16 ? layer.out * layer.in * size_of(layer.dtype) : in_.bytes_of(as);
        if (as.scheme.bits == 16) continue;
        std::vector<float> values(rows.size());
        dequantize(search_start(rows.data(), layer.out, layer.in, as.scheme, weight.data()),
                   values.data());
        Change change{&layer, unit, c, std::vector<BF16>(rows.size())};
        for (size_t k = 0; k < rows.size(); ++k) {
          const double w = std::isfinite(rows[k]) ? double(rows[k]) : double(values[k]);
          const double d = values[k] - w, h = weight[k % static_cast<size_t>(layer.in)];
          change.weight[k] = to_bf16(static_cast<float>(d));
          error[unit * choices + c] += h * d * d, signal[unit * choices + c] += h * w * w;
        }
        changes.push_back(std::move(change));
      }
    }

    weights.allocate_gradients();
    Program program = program_of(graph, true, i);
    std::vector<float> rows(static_cast<size_t>(length_ * hidden_));
    std::vector<double> dots(units.size() * choices), squares(dots.size()), absolute(dots.size());
    for (int64_t s = 0; s < samples_; ++s) {
      input.gather(s, 1, program.input());
      program.forward(weights);
      gradients_.gather(s, 1, program.output_gradient());
      program.backward(weights, false);
      if (i > first_) gradients_.scatter(s, 1, program.input_gradient());
      std::fill(dots.begin(), dots.end(), 0.0);
      for (const Change& change : changes) {
        const WeightView place = weights.weight(change.layer->name);
        const Products p =
            products_of(place.out, place.in, static_cast<const float*>(place.gradient.data),
                        place.gradient.stride, change.weight.data());
        const size_t k = change.unit * choices + change.choice;
        dots[k] += p.dot;
        absolute[k] += p.absolute;
      }
      for (size_t k = 0; k < dots.size(); ++k) squares[k] += dots[k] * dots[k];
    }
    const double tokens = static_cast<double>(valid_tokens());
    for (size_t u = 0; u < units.size(); ++u)
      for (size_t c = 0; c < choices; ++c) {
        auto& choice = units[u].choices[c];
        const size_t k = u * choices + c;
        if (choice.scheme.bits == 16) continue;
        choice.kl = 0.5 * squares[k] / tokens;
        choice.delta_loss = absolute[k] / tokens;
        choice.error_db = error[k] > 0 ? 10 * std::log10(error[k] / signal[k]) : -200;
        require(std::isfinite(choice.kl), "sensitivity", units[u].layers[0],
                ": its gradient is not finite");
      }
    return units;
  }

  const SensitivityInputs& in_;
  SensitivityOptions options_;
  int64_t samples_, length_, hidden_, first_ = 0;  // first_: the first block with a layer to round
  std::vector<ActivationStream> inputs_;           // of each block, then the last one's output
  ActivationStream gradients_;                     // by the output of the block in work
};

}  // namespace

std::vector<SensitivityUnit> measure_sensitivity(
    const SensitivityInputs& inputs, const SensitivityOptions& options,
    const std::function<void(int64_t, int64_t)>& on_progress) {
  require(!options.schemes.empty(), "sensitivity", "no scheme to choose from");
  require(!inputs.samples.empty() && options.samples > 0, "sensitivity", "no sample");
  return Measure(inputs, options).run(on_progress);
}

int64_t sensitivity_bytes(const SensitivityInputs& in, const SensitivityOptions& options) {
  const int64_t samples = std::min(options.samples, static_cast<int64_t>(in.samples.size())),
                length = static_cast<int64_t>(in.samples.at(0).size());
  const int64_t rows = (options.folder.empty() ? samples : 1) * length * in.architecture.hidden;
  int64_t block = 0;
  for (int64_t i = 0; i < in.architecture.blocks; ++i) {
    const Graph graph = in.architecture.block(i);
    int64_t weights = 0, largest = 0;
    for (const auto& l : in.layers[static_cast<size_t>(i)]) {
      if (l.scheme.bits == 16) continue;
      weights += l.out * l.in;
      largest = std::max(largest, l.out * l.in);
    }
    block =
        std::max(block, static_cast<int64_t>(options.schemes.size()) * 2 * weights + 16 * largest +
                            BlockWeights::bytes_needed(graph, options.compute, DType::kF32) +
                            2 * Program::bytes_needed(graph, {.batch = 1,
                                                              .seq_len = length,
                                                              .compute = options.compute,
                                                              .train = true,
                                                              .input_gradient = true}));
  }
  return (in.architecture.blocks + 1) * rows * size_of(options.compute) + rows * 4 +
         std::max(block, HeadLoss::bytes_needed(in.architecture, options.compute));
}

nlohmann::ordered_json to_json(const std::vector<SensitivityUnit>& units) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const auto& unit : units) {
    nlohmann::ordered_json choices = nlohmann::ordered_json::array();
    for (const auto& c : unit.choices) {
      auto entry = layer_config_entry(c.scheme);
      entry.update({{"bytes", c.bytes},
                    {"kl", c.kl},
                    {"delta_loss", c.delta_loss},
                    {"error_db", c.error_db}});
      choices.push_back(std::move(entry));
    }
    all.push_back({{"layers", unit.layers}, {"weights", unit.weights}, {"choices", choices}});
  }
  return all;
}

std::vector<SensitivityUnit> units_from_json(const nlohmann::ordered_json& json,
                                             const std::string& path) {
  std::vector<SensitivityUnit> units;
  try {
    for (const auto& entry : json) {
      SensitivityUnit unit;
      entry.at("layers").get_to(unit.layers);
      entry.at("weights").get_to(unit.weights);
      for (const auto& c : entry.at("choices")) {
        SensitivityUnit::Choice choice;
        c.at("bits").get_to(choice.scheme.bits);
        if (choice.scheme.bits < 16) {
          c.at("group_size").get_to(choice.scheme.group_size);
          choice.scheme.symmetry = c.at("sym").get<bool>() ? Symmetry::kFullRange : Symmetry::kAsym;
        }
        c.at("bytes").get_to(choice.bytes);
        c.at("kl").get_to(choice.kl);
        c.at("delta_loss").get_to(choice.delta_loss);
        c.at("error_db").get_to(choice.error_db);
        unit.choices.push_back(choice);
      }
      units.push_back(std::move(unit));
    }
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kCorruptFile, "sensitivity", path, ": ", excerpt(error.what(), 300));
  }
  return units;
}

}  // namespace signround
