#include "signround/pipeline/head_loss.h"

#include <algorithm>

#include "signround/model/load.h"
#include "signround/ops/convert.h"

namespace signround {
namespace {

ProgramOptions options_of(const Graph& graph, DType compute, Device device, int64_t rows,
                          bool train, bool timed = true) {
  ProgramOptions options{.batch = 1,
                         .seq_len = rows,
                         .compute = compute,
                         .train = train,
                         .input_gradient = train,
                         .device = device,
                         .timed = timed};
  for (const auto& param : graph.linear_params()) options.untuned.insert(param.name);
  return options;
}

void copy_rows(const float* from, int64_t rows, int64_t cols, float* to) {
  const RowsAny x{from, DType::kF32, cols};
  convert(rows, cols, x, {to, DType::kF32, cols});
}

void zero(float* values, int64_t count) {
  if (on_cuda())
    zero_on_device(values, count * 4);
  else
    std::fill_n(values, count, 0.0f);
}

}  // namespace

HeadLoss::HeadLoss(const Checkpoint& source, const Architecture& architecture, DType compute,
                   Device device, int64_t rows, bool timed)
    : device_(device),
      most_rows_(rows),
      graph_(architecture.head()),
      weights_(graph_, compute, device),
      program_(graph_, options_of(graph_, compute, device, rows, true, timed)),
      reference_(graph_, options_of(graph_, compute, device, rows, false, timed)),
      hidden_(architecture.hidden),
      vocab_(architecture.vocab),
      rows_(static_cast<size_t>(rows)) {
  const DeviceScope on_host({});
  if (!device.is_cuda()) {
    load_weights(source, graph_, weights_);
    return;
  }
  rows_there_ = Buffer(rows * int64_t{sizeof(KlRow)}, device);
  mask_there_ = Buffer(rows, device);
  BlockWeights staging(graph_, compute, {Device::Kind::kPinned, 0});
  load_weights(source, graph_, staging);
  const DeviceScope scope(device);
  weights_.upload(staging);
  synchronize();  // before the staging goes
}

// Of hidden states (rows, hidden); what is left of the program's rows is zero.
float* HeadLoss::run_head(Program& program, const float* hidden, int64_t rows) {
  copy_rows(hidden, rows, hidden_, program.input());
  zero(program.input() + rows * hidden_, (program.rows() - rows) * hidden_);
  program.forward(weights_);
  return program.output();
}

float* HeadLoss::reference_logits(const float* hidden, int64_t rows) {
  const DeviceScope scope(device_);
  return run_head(reference_, hidden, rows);
}

double HeadLoss::run(const float* hidden, int64_t rows, std::span<const uint8_t> mask, float scale,
                     const Reference& reference, float* d_hidden) {
  const DeviceScope scope(device_);
  double sum = 0;
  for (int64_t first = 0; first < rows; first += most_rows_) {
    const int64_t count = std::min(most_rows_, rows - first);
    const auto part =
        mask.empty() ? mask : mask.subspan(static_cast<size_t>(first), static_cast<size_t>(count));
    const RowsIn ref{reference(first, count), vocab_},
        model{run_head(program_, hidden + first * hidden_, count), vocab_};
    // Where the operations run: rows and the mask.
    std::span<KlRow> found(rows_.data(), static_cast<size_t>(count));
    std::span<const uint8_t> counts = part;
    if (on_cuda()) {
      found = {rows_there_.as<KlRow>(), static_cast<size_t>(count)};
      if (!part.empty()) {
        copy_to_device(mask_there_.data(), part.data(), count);
        counts = {mask_there_.as<uint8_t>(), static_cast<size_t>(count)};
      }
    }
    timings_.timed("head kl", 0, [&] {
      kl_fwd(count, vocab_, model, ref, {}, found);
      float* gradient = program_.output_gradient();
      kl_bwd(count, vocab_, model, ref, found, counts, scale, {gradient, DType::kF32, vocab_});
      zero(gradient + count * vocab_, (most_rows_ - count) * vocab_);
    });
    program_.backward(weights_, false);
    copy_rows(program_.input_gradient(), count, hidden_, d_hidden + first * hidden_);
    if (on_cuda()) copy_to_host(rows_.data(), found.data(), count * int64_t{sizeof(KlRow)});
    for (int64_t r = 0; r < count; ++r)
      if (part.empty() || part[static_cast<size_t>(r)] != 0)
        sum += rows_[static_cast<size_t>(r)].kl;
  }
  return sum;
}

void HeadLoss::add_timings(Timings& timings) const {
  for (const Program* program : {&program_, &reference_})
    for (OpTiming t : program->timings()) {
      t.name = "head " + t.name;
      timings.add({t});
    }
  timings.add(timings_.all());
}

int64_t HeadLoss::bytes_needed(const Architecture& architecture, DType compute, Device device,
                               int64_t rows) {
  const Graph head = architecture.head();
  return BlockWeights::bytes_needed(head, compute, std::nullopt, device) +
         Program::bytes_needed(head, options_of(head, compute, device, rows, true)) +
         Program::bytes_needed(head, options_of(head, compute, device, rows, false)) +
         (device.is_cuda() ? rows * int64_t{sizeof(KlRow) + 1} : 0);
}

}  // namespace signround
