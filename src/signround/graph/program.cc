#include "signround/graph/program.h"

#include <chrono>
#include <utility>

#include "signround/base/error.h"
#include "signround/graph/program_impl.h"
#include "signround/kernels/cuda.h"

namespace signround {

KvCache::KvCache(const Graph& graph, int64_t positions, Device device, DType type)
    : dtype(type), capacity(positions) {
  for (const Op& op : graph.ops()) {
    if (const auto* attention = std::get_if<AttentionOp>(&op)) {
      const int64_t cols = 2 * attention->spec.kv_heads * attention->spec.head_dim;
      entries.emplace_back(positions * cols * size_of(type), device);
    }
  }
}

Program::Impl::Impl(const Graph& g, const ProgramOptions& o)
    : graph(g), options(o), rows(o.batch * o.seq_len) {
  require(o.batch > 0 && o.seq_len > 0, "program", "batch ", o.batch, " and seq_len ", o.seq_len,
          " must be positive");
  require(g.input().id >= 0 && g.output().id >= 0, "program",
          "the graph has no input or no output");
  num_ops = static_cast<int>(graph.ops().size());
  value.resize(static_cast<size_t>(graph.num_values()));
  gradient.resize(value.size());
  wants_gradient.resize(value.size());
  consumers.resize(value.size());
  producer.assign(value.size(), -1);
  fused.resize(static_cast<size_t>(num_ops));
  fused_gradient = cast_input = fused;
  saved.assign(static_cast<size_t>(num_ops), -1);
  for (int i = 0; i < num_ops; ++i) {
    for (Value v : inputs_of(op(i))) consumers[at(v)].push_back(i);
    for (Value v : outputs_of(op(i))) producer[at(v)] = i;
  }
  find_wanted_gradients();
  value[at(graph.input())] = make_view(graph.cols(graph.input()), DType::kF32);
  touch(value[at(graph.input())], 0);
  input_buffer = value[at(graph.input())].buffer;
  for (int i = 0; i < num_ops; ++i)
    std::visit([&](const auto& typed) { plan_forward(i, typed); }, op(i));
  touch(value[at(graph.output())], loss_step());
  if (options.train) plan_backward_pass();
  arena.place();
}

void Program::Impl::run_steps(std::vector<Step>& steps, Run& run) {
  const DeviceScope scope(options.device);
  if (!options.timed) {
    for (Step& step : steps) step.run(run);
    return;
  }
  using Clock = std::chrono::steady_clock;
  const bool queued = options.device.is_cuda();
  if (queued) synchronize();
  auto start = Clock::now();
  for (Step& step : steps) {
    step.run(run);
    if (queued) synchronize();
    const auto end = Clock::now();
    if (observer) timings[timing("observer")].seconds += observer_seconds;
    OpTiming& t = timings[step.timing];
    t.seconds += std::chrono::duration<double>(end - start).count() - observer_seconds;
    observer_seconds = 0;
    t.flops += step.work.flops;
    t.bytes += step.work.bytes;
    ++t.calls;
    start = end;
  }
}

Program::Program(const Graph& graph, const ProgramOptions& options)
    : impl_(std::make_unique<Impl>(graph, options)) {
  impl_->arena.allocate(options.device);
}
Program::~Program() = default;
Program::Program(Program&&) noexcept = default;

int64_t Program::rows() const { return impl_->rows; }
float* Program::input() {
  return static_cast<float*>(impl_->pointer(impl_->value[Impl::at(impl_->graph.input())]));
}
void Program::read_input_from(const float* rows) {
  require(!impl_->options.train, "program", "internal: a training program's input lies elsewhere");
  impl_->outer_input = const_cast<float*>(rows);
}
const float* Program::output() const {
  return static_cast<float*>(impl_->pointer(impl_->value[Impl::at(impl_->graph.output())]));
}
float* Program::output() { return const_cast<float*>(std::as_const(*this).output()); }
float* Program::output_gradient() {
  require(impl_->options.train, "program", "was planned without backward()");
  return static_cast<float*>(impl_->pointer(impl_->gradient[Impl::at(impl_->graph.output())]));
}
const float* Program::input_gradient() const {
  require(impl_->options.train && impl_->options.input_gradient, "program",
          "was planned without the input's gradient");
  return static_cast<float*>(impl_->pointer(impl_->gradient[Impl::at(impl_->graph.input())]));
}

void Program::forward(const BlockWeights& weights, KvCache* cache) {
  require(weights.compute() == impl_->options.compute, "program", "weights are in ",
          name_of(weights.compute()), ", products in ", name_of(impl_->options.compute));
  Impl::Run run{.weights = const_cast<BlockWeights*>(&weights), .cache = cache};
  impl_->run_steps(impl_->forward, run);
  if (cache) cache->length += impl_->rows;
}

void Program::backward(BlockWeights& weights, bool accumulate) {
  require(impl_->options.train, "program", "was planned without backward()");
  Impl::Run run{.weights = &weights, .accumulate = accumulate};
  impl_->run_steps(impl_->backward, run);
}

void Program::set_linear_input_observer(LinearInputObserver observer) {
  impl_->observer = std::move(observer);
}
DType Program::gradient_dtype(const ProgramOptions& options, bool accumulates) {
  const bool narrow =
      options.compute == DType::kBF16 && !accumulates &&
      (options.batch * options.seq_len <= Impl::kRoundedDepth || options.device.is_cuda());
  return narrow ? DType::kBF16 : DType::kF32;
}
DType Program::gradient_dtype(bool accumulates) const {
  return gradient_dtype(impl_->options, accumulates);
}
void Program::rename(const Graph& graph) {
  require(same_shape(graph, impl_->graph), "program", "internal: a block of another shape");
  impl_->graph = graph;
}
void Program::clear_timings() {
  for (OpTiming& t : impl_->timings) t.seconds = t.flops = t.bytes = 0, t.calls = 0;
}
Device Program::device() const { return impl_->options.device; }
int64_t Program::bytes() const { return impl_->arena.bytes(); }
const std::vector<OpTiming>& Program::timings() const { return impl_->timings; }
int64_t Program::bytes_needed(const Graph& graph, const ProgramOptions& options) {
  return Impl(graph, options).arena.bytes();
}

int64_t Program::workspace_bytes(const Graph& graph, const ProgramOptions& options) {
  const DeviceScope scope(options.device);
  const Impl program(graph, options);
  int64_t product = 0, attention = 0;
  for (const auto& p : program.products)
    product = std::max(product, options.device.is_cuda() ? kernels::cuda::kProductWorkspace
                                                         : matmul_workspace_bytes(p->spec));
  for (const Op& op : graph.ops())
    if (const auto* o = std::get_if<AttentionOp>(&op))
      for (const bool backward : {false, options.train})
        attention =
            std::max(attention, attention_scratch_bytes(program.attention_shape(*o), backward));
  return product + attention;
}

}  // namespace signround
