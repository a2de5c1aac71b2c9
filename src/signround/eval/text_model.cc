#include "signround/eval/text_model.h"

#include <algorithm>
#include <future>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/model/load.h"

namespace signround {

void embed_tokens(const Checkpoint& checkpoint, const Architecture& architecture,
                  std::span<const int32_t> ids, float* rows) {
  const int64_t hidden = architecture.hidden,
                known = checkpoint.at(architecture.embedding).shape[0];
  for (int32_t id : ids)
    require(id >= 0 && id < known, "embedding", "token ", id, " is outside the vocabulary of ",
            known);
  parallel_for(static_cast<int64_t>(ids.size()), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = rows + t * hidden;
      checkpoint.read_f32(architecture.embedding, ids[static_cast<size_t>(t)], 1, row);
      for (int64_t c = 0; c < hidden; ++c) row[c] *= architecture.embedding_scale;
    }
  });
}

namespace {

constexpr int64_t kTokens = 2048;         // of one run: enough for the products, little memory
constexpr int64_t kTokensOnGpu = 16384;   // that many where its memory allows
constexpr int64_t kHeadRows = 128;        // bounds the logits in memory
constexpr int64_t kHeadRowsOnGpu = 2048;  // where they take at most 1/32 of the GPU's memory
constexpr Device kPinned{Device::Kind::kPinned, 0};

int64_t head_rows(Device device, int64_t vocab) {
  if (!device.is_cuda()) return kHeadRows;
  const int64_t fit = device_facts(device).total_bytes / 32 / (vocab * 4);
  return std::clamp(fit / kHeadRows * kHeadRows, kHeadRows, kHeadRowsOnGpu);
}

// Reads one block after the other: to a GPU by way of pinned memory, into which the next one is
// read while the GPU is at work.
class BlockReader {
 public:
  BlockReader(const Checkpoint& checkpoint, const Architecture& architecture, DType compute,
              Device device)
      : checkpoint_(checkpoint), architecture_(architecture), compute_(compute), device_(device) {}

  // Block i, `graph`, into weights of its shape; begins to read the next one.
  void read(int64_t i, const Graph& graph, BlockWeights& weights) {
    read_last(graph, weights);
    if (device_.is_cuda() && i + 1 < architecture_.blocks) begin(architecture_.block(i + 1));
  }

  // What was begun, or else `graph`.
  void read_last(const Graph& graph, BlockWeights& weights) {
    if (!device_.is_cuda()) return read_now(graph, weights);
    if (!ahead_.valid()) begin(graph);
    ahead_.get();
    const DeviceScope scope(device_);
    weights.upload(*staging_);
    synchronize();  // before the next one overwrites it
  }

 private:
  // The pages that parameters of blocks were read from are given back.
  void read_now(const Graph& graph, BlockWeights& weights) const {
    load_weights(checkpoint_, graph, weights);
    for (const auto& param : graph.linear_params()) checkpoint_.release(param.name + ".weight");
  }
  void begin(const Graph& graph) {
    if (staging_ && same_shape(graph_, graph))
      staging_->rename(graph);
    else
      staging_ = std::make_unique<BlockWeights>(graph, compute_, kPinned);
    graph_ = graph;
    ahead_ = std::async(std::launch::async, [this] { read_now(graph_, *staging_); });
  }

  const Checkpoint& checkpoint_;
  const Architecture& architecture_;
  DType compute_;
  Device device_;
  Graph graph_;
  std::unique_ptr<BlockWeights> staging_;
  std::future<void> ahead_;  // last: it ends before what it uses goes
};

}  // namespace

TextModel::TextModel(const Checkpoint& checkpoint, DType compute, Device device)
    : checkpoint_(checkpoint),
      architecture_(read_architecture(checkpoint)),
      compute_(compute),
      device_(device),
      head_rows_(head_rows(device, architecture_.vocab)) {}

TextModel::Sizes TextModel::sizes_for(int64_t count, int64_t length) const {
  if (!device_.is_cuda()) return {std::clamp<int64_t>(kTokens / length, 1, count), {}};
  std::vector<Graph> shapes;
  for (int64_t i = 0; i < architecture_.blocks; ++i) {
    Graph graph = architecture_.block(i);
    if (std::none_of(shapes.begin(), shapes.end(),
                     [&](const Graph& g) { return same_shape(g, graph); }))
      shapes.push_back(std::move(graph));
  }
  int64_t weights = 0;
  for (const Graph& graph : shapes)
    weights = std::max(weights, BlockWeights::bytes_needed(graph, compute_, std::nullopt, device_));
  const int64_t free = device_facts(device_).free_bytes / 10 * 9,
                stream = count * length * architecture_.hidden * 4;
  Sizes sizes{.micro = std::clamp<int64_t>(kTokensOnGpu / length, 1, count), .stream = device_};
  for (;; sizes.micro /= 2) {
    const ProgramOptions options{
        .batch = sizes.micro, .seq_len = length, .compute = compute_, .device = device_};
    int64_t program = 0;
    for (const Graph& graph : shapes)
      program = std::max(program, Program::bytes_needed(graph, options) +
                                      Program::workspace_bytes(graph, options));
    if (program > (free - weights) / 2 && sizes.micro > 1) continue;
    if (stream + weights + program > free) sizes.stream = kPinned;
    return sizes;
  }
}

ActivationStream TextModel::hidden_states(
    const std::vector<std::vector<int32_t>>& sequences) const {
  require(!sequences.empty(), "eval", "no sequence to read");
  const auto count = static_cast<int64_t>(sequences.size()),
             length = static_cast<int64_t>(sequences[0].size());
  const auto [micro, place] = sizes_for(count, length);
  ActivationStream states(count, length, architecture_.hidden, DType::kF32, {}, place);
  std::vector<float> rows(static_cast<size_t>(length * architecture_.hidden));
  Buffer there;  // the rows on a GPU
  if (place.is_cuda()) there = Buffer(length * architecture_.hidden * 4, place);
  for (int64_t s = 0; s < count; ++s) {
    require(static_cast<int64_t>(sequences[static_cast<size_t>(s)].size()) == length, "eval",
            "sequences of different lengths");
    embed_tokens(checkpoint_, architecture_, sequences[static_cast<size_t>(s)], rows.data());
    const DeviceScope scope(place.is_cuda() ? place : Device{});
    if (on_cuda()) copy_to_device(there.data(), rows.data(), there.bytes());
    states.scatter(s, 1, on_cuda() ? there.as<float>() : rows.data());
    if (on_cuda()) synchronize();  // before the rows are the next ones
  }
  // What runs all blocks of one shape.
  struct Shape {
    Graph graph;
    BlockWeights weights;
    Program program;
  };
  std::unique_ptr<Shape> shape;
  BlockReader reader(checkpoint_, architecture_, compute_, device_);
  const DeviceScope scope(device_);
  for (int64_t i = 0; i < architecture_.blocks; ++i) {
    const Graph graph = architecture_.block(i);
    if (shape && same_shape(shape->graph, graph)) {
      shape->weights.rename(graph);
    } else {
      shape.reset();
      shape = std::make_unique<Shape>(Shape{graph, BlockWeights(graph, compute_, device_),
                                            Program(graph, {.batch = micro,
                                                            .seq_len = length,
                                                            .compute = compute_,
                                                            .device = device_,
                                                            .timed = !device_.is_cuda()})});
    }
    reader.read(i, graph, shape->weights);
    for (int64_t first = 0; first < count; first += micro) {
      const int64_t n = std::min(micro, count - first);
      states.gather(first, n, shape->program.input());
      shape->program.forward(shape->weights);
      states.scatter(first, n, shape->program.output());
    }
  }
  if (on_cuda()) synchronize();
  return states;
}

const float* TextModel::logits(const ActivationStream& states, int64_t sample, int64_t first,
                               int64_t rows) {
  require(rows > 0 && rows <= head_rows_, "eval", rows, " rows at once, at most ", head_rows_);
  require(first >= 0 && first + rows <= states.seq_len() && states.dtype() == DType::kF32 &&
              states.cols() == architecture_.hidden,
          "eval", "internal: rows ", first, " to ", first + rows, " of other hidden states");
  if (!head_weights_) {
    const Graph graph = architecture_.head();
    head_weights_ = std::make_unique<BlockWeights>(graph, compute_, device_);
    BlockReader(checkpoint_, architecture_, compute_, device_).read_last(graph, *head_weights_);
  }
  const DeviceScope scope(device_);
  if (!head_ || head_->rows() < rows) {
    head_.reset();
    // A CPU takes as many rows each time; more of a GPU's would be in vain.
    const int64_t planned =
        on_cuda() ? std::min(head_rows_, (rows + kHeadRows - 1) / kHeadRows * kHeadRows)
                  : head_rows_;
    head_ = std::make_unique<Program>(architecture_.head(),
                                      ProgramOptions{.batch = 1,
                                                     .seq_len = planned,
                                                     .compute = compute_,
                                                     .device = device_,
                                                     .timed = !device_.is_cuda()});
  }
  const int64_t hidden = architecture_.hidden;
  const float* from = static_cast<const float*>(states.sample(sample).data) + first * hidden;
  if (states.device().is_cuda())
    copy_on_device(head_->input(), from, rows * hidden * 4);
  else
    copy_to_current(head_->input(), from, rows * hidden * 4);
  head_->forward(*head_weights_);
  return head_->output();
}

}  // namespace signround
