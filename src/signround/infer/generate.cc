#include "signround/infer/generate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "signround/base/error.h"
#include "signround/eval/text_model.h"
#include "signround/infer/device_weights.h"
#include "signround/ops/xent.h"

namespace signround {

namespace {

[[noreturn]] void fail_not_finite(int64_t at, float value) {
  fail(ErrorKind::kInternal, "generate", "logit ", at, " is ", value,
       ": the model's weights or activations are not finite");
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Generator::Generator(const Checkpoint& checkpoint, DType compute, Device device)
    : checkpoint_(checkpoint),
      architecture_(read_architecture(checkpoint)),
      compute_(compute),
      device_(device) {
  GenerationWeights reader(checkpoint, compute, device);
  for (int64_t i = 0; i < architecture_.blocks; ++i) {
    Graph graph = architecture_.block(i);
    weights_.push_back(reader.load(graph));
    size_t shape = 0;
    while (shape < shapes_.size() && !same_shape(shapes_[shape].graph, graph)) ++shape;
    if (shape == shapes_.size()) {
      shapes_.push_back({std::move(graph), {}});
      for (auto& program : shapes_.back().single)
        program = std::make_unique<Program>(shapes_.back().graph, options(1));
    }
    shape_of_.push_back(shape);
  }
  const Graph head = architecture_.head();
  head_weights_ = reader.load(head);
  head_ = std::make_unique<Program>(head, options(1));
  if (device_.is_cuda()) best_ = Buffer(sizeof(XentRow), device_);
}

ProgramOptions Generator::options(int64_t rows) const {
  return {.batch = 1,
          .seq_len = rows,
          .compute = compute_,
          .device = device_,
          .timed = !device_.is_cuda()};
}

void Generator::begin(int64_t capacity) {
  caches_.clear();
  const DType dtype = device_.is_cuda() ? compute_ : DType::kF32;
  for (const size_t shape : shape_of_)
    caches_.emplace_back(shapes_[shape].graph, capacity, device_, dtype);
}

const float* Generator::feed(std::span<const int32_t> ids) {
  const int64_t most = device_.is_cuda() ? prompt_rows_ : static_cast<int64_t>(ids.size());
  const float* last = nullptr;
  for (size_t first = 0; first < ids.size(); first += static_cast<size_t>(most)) {
    const auto piece = ids.subspan(first, std::min(ids.size() - first, static_cast<size_t>(most)));
    const auto rows = static_cast<int64_t>(piece.size());
    const int64_t bytes = rows * architecture_.hidden * 4;
    if (host_rows_.bytes() < bytes) {
      host_rows_ = Buffer(bytes, {device_.is_cuda() ? Device::Kind::kPinned : Device::Kind::kCpu});
      if (device_.is_cuda()) rows_ = Buffer(bytes, device_);
    }
    if (first > 0 && device_.is_cuda()) synchronize();  // the last piece's rows were copied
    {
      const DeviceScope host({});
      embed_tokens(checkpoint_, architecture_, piece, host_rows_.as<float>());
    }
    if (device_.is_cuda()) copy_to_device(rows_.data(), host_rows_.data(), bytes);
    last = run_blocks(rows);
  }
  return last;
}

// Logits behind the last of the rows that feed() left.
const float* Generator::run_blocks(int64_t rows) {
  struct Pair {
    std::unique_ptr<Program> programs[2];
  };
  std::vector<Pair> wide(rows > 1 ? shapes_.size() : 0);
  const float* input = device_.is_cuda() ? rows_.as<float>() : host_rows_.as<float>();
  for (size_t i = 0; i < weights_.size(); ++i) {
    const size_t shape = shape_of_[i];
    auto& program = rows > 1 ? wide[shape].programs[i % 2] : shapes_[shape].single[i % 2];
    if (!program) program = std::make_unique<Program>(shapes_[shape].graph, options(rows));
    program->read_input_from(input);
    program->forward(*weights_[i], &caches_[i]);
    input = program->output();
  }
  head_->read_input_from(input + (rows - 1) * architecture_.hidden);
  head_->forward(*head_weights_);
  if (rows > 1 && device_.is_cuda()) synchronize();  // before these programs go
  return head_->output();
}

std::vector<float> Generator::to_host(const float* logits) const {
  std::vector<float> host(static_cast<size_t>(architecture_.vocab));
  copy_from_current(host.data(), logits, architecture_.vocab * 4);
  return host;
}

int32_t Generator::next_token(const float* logits, const SampleOptions& options,
                              PythonRandom& random) {
  if (!device_.is_cuda()) return sample_token(logits, architecture_.vocab, options, random);
  if (options.temperature > 0)
    return sample_token(to_host(logits).data(), architecture_.vocab, options, random);
  xent_fwd(1, architecture_.vocab, {logits, architecture_.vocab}, {}, {best_.as<XentRow>(), 1});
  XentRow row;
  copy_to_host(&row, best_.data(), sizeof row);
  if (!std::isfinite(row.max)) fail_not_finite(row.argmax, row.max);
  return row.argmax;
}

std::vector<float> Generator::next_logits(const std::vector<int32_t>& ids) {
  require(!ids.empty(), "generate", "an empty prompt has no next token");
  const DeviceScope scope(device_);
  begin(static_cast<int64_t>(ids.size()));
  return to_host(feed(ids));
}

std::vector<int32_t> Generator::generate(const std::vector<int32_t>& prompt,
                                         const SampleOptions& options,
                                         const std::function<bool(int32_t)>& on_token) {
  require(!prompt.empty(), "generate", "the prompt has no tokens");
  const DeviceScope scope(device_);
  times_ = {};
  auto start = std::chrono::steady_clock::now();
  begin(static_cast<int64_t>(prompt.size()) + options.max_tokens);
  PythonRandom random(options.seed);
  std::vector<int32_t> tokens;
  const float* logits = options.max_tokens > 0 ? feed(prompt) : nullptr;
  for (int64_t n = 0; n < options.max_tokens; ++n) {
    const int32_t token = next_token(logits, options, random);
    if (n == 0) {
      times_.prompt_seconds = seconds_since(start);
      start = std::chrono::steady_clock::now();
    } else {
      times_.seconds_per_token = seconds_since(start) / static_cast<double>(n);
    }
    if (std::find(options.stop.begin(), options.stop.end(), token) != options.stop.end()) break;
    tokens.push_back(token);
    if (on_token && !on_token(token)) break;
    if (n + 1 < options.max_tokens) logits = feed({&token, 1});
  }
  return tokens;
}

int32_t sample_token(const float* logits, int64_t vocab, const SampleOptions& options,
                     PythonRandom& random) {
  const auto best = static_cast<int32_t>(std::max_element(logits, logits + vocab) - logits);
  if (!std::isfinite(logits[best])) fail_not_finite(best, logits[best]);
  if (options.temperature <= 0) return best;
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::vector<double> p(order.size());
  for (size_t i = 0; i < p.size(); ++i)
    p[i] = std::exp((double(logits[i]) - double(logits[best])) / options.temperature);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)];
  });
  const double total = std::accumulate(p.begin(), p.end(), 0.0);
  double kept = 0;
  size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options.top_p * total))
    kept += p[static_cast<size_t>(order[count++])];
  double draw = random.uniform() * kept;
  for (size_t i = 0; i < count; ++i) {
    draw -= p[static_cast<size_t>(order[i])];
    if (draw < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace signround
