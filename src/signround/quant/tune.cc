#include "signround/quant/tune.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "signround/base/error.h"
#include "signround/base/random.h"
#include "signround/kernels/cuda.h"
#include "signround/ops/mse_loss.h"

namespace signround {

SampleOrder::SampleOrder(int64_t samples, int64_t batch, uint64_t seed)
    : batch_(batch),
      position_(static_cast<size_t>(samples)),
      order_(static_cast<size_t>(samples)),
      seed_(seed) {
  require(batch > 0 && batch <= samples, "tune", "batches of ", batch,
          " samples cannot be drawn from ", samples);
}

const int64_t* SampleOrder::next() {
  if (position_ + static_cast<size_t>(batch_) > order_.size()) {
    std::iota(order_.begin(), order_.end(), int64_t{0});
    PythonRandom random(seed_ + (epoch_++ << 32));
    random.shuffle(order_);
    position_ = 0;
  }
  const int64_t* batch = order_.data() + position_;
  position_ += static_cast<size_t>(batch_);
  return batch;
}

namespace {

// The samples of one step, run through the block in micro-batches; on a GPU nobody waits for that
// before a loss is asked for.
class StepRunner {
 public:
  StepRunner(Program& program, BlockWeights& weights, const ActivationStream& inputs,
             const ActivationStream& targets, const TokenMasks& masks, int64_t batch, int iters,
             bool recorded, Timings& timings)
      : program_(program),
        weights_(weights),
        inputs_(inputs),
        targets_(targets),
        masks_(masks),
        timings_(timings),
        micro_(program.rows() / inputs.seq_len()),
        row_sums_(program.rows() * 8, program.device()) {
    if (!program.device().is_cuda()) return;
    recorded_ = recorded && masks.empty() && batch == micro_;
    target_rows_ =
        Buffer(program.rows() * inputs.cols() * size_of(targets.dtype()), program.device());
    if (!masks.empty()) mask_ = Buffer(program.rows(), program.device());
    sums_ = Buffer((batch / micro_ + 1) * 8, program.device());
    history_ = Buffer(std::max(iters, 1) * 8, program.device());
  }

  int64_t micro() const { return micro_; }

  int64_t valid_rows(const int64_t* samples, int64_t count) const {
    if (masks_.empty()) return count * inputs_.seq_len();
    int64_t rows = 0;
    for (int64_t i = 0; i < count; ++i)
      for (uint8_t m : masks_[static_cast<size_t>(samples[i])]) rows += m != 0;
    return rows;
  }

  // All micro-batches of `count` samples. With `backward`, gradients of loss / valid elements of
  // the whole step, `scale` being 1 / valid elements. The sum of squared errors is sum()'s.
  void run(const int64_t* samples, int64_t count, bool backward, float scale) {
    sum_ = 0;
    for (int64_t first = 0; first < count; first += micro_) {
      if (program_.device().is_cuda())
        run_on_gpu(samples + first, backward, first / micro_, scale);
      else
        run_micro(samples + first, backward, first > 0, scale);
    }
    pieces_ = count / micro_;
  }

  // Of the last run. Waits for a GPU.
  double sum() {
    if (!program_.device().is_cuda()) return sum_;
    return timings_.timed("wait", 0, [&] {
      double sum = 0;
      add_pieces();
      copy_to_host(&sum, sums_.data(), 8);
      return sum;
    });
  }

  // The sum of the last run is kept as that of iteration i, for sums_of(): nobody waits.
  void remember(int i) {
    add_pieces();
    copy_on_device(history_.as<double>() + i, sums_.data(), 8);
  }
  std::vector<double> remembered() const {
    std::vector<double> sums(static_cast<size_t>(history_.bytes() / 8));
    copy_to_host(sums.data(), history_.data(), history_.bytes());
    return sums;
  }

 private:
  void run_micro(const int64_t* samples, bool backward, bool accumulate, float scale) {
    const int64_t rows = program_.rows(), cols = inputs_.cols();
    const double bytes = static_cast<double>(rows * cols) * 4;
    timings_.timed("gather", 2 * bytes, [&] { inputs_.gather(samples, micro_, program_.input()); });
    program_.forward(weights_);
    timings_.timed("loss", (backward ? 3 : 2) * bytes, [&] {
      for (int64_t i = 0; i < micro_; ++i) add_loss(i, samples[i], backward, scale);
    });
    if (backward) program_.backward(weights_, accumulate);
    const auto* sums = row_sums_.as<double>();
    sum_ += std::accumulate(sums, sums + rows, 0.0);
  }

  // Of sample `place` of the micro-batch, against its target where that lies in the stream.
  void add_loss(int64_t place, int64_t sample, bool backward, float scale) {
    std::span<const uint8_t> mask;
    if (!masks_.empty())
      mask = std::span(masks_[static_cast<size_t>(sample)])
                 .first(static_cast<size_t>(inputs_.seq_len()));
    compare(place * inputs_.seq_len(), inputs_.seq_len(), targets_.sample(sample), mask, backward,
            scale);
  }

  // Loss of `rows` rows of the output from row `first` on.
  void compare(int64_t first, int64_t rows, RowsAny ref, std::span<const uint8_t> mask,
               bool backward, float scale) {
    const int64_t cols = inputs_.cols(), at = first * cols;
    const RowsIn pred{program_.output() + at, cols};
    const std::span<double> sums(row_sums_.as<double>() + first, static_cast<size_t>(rows));
    if (backward)
      mse_loss_fwd_bwd(rows, cols, pred, ref, mask, scale, sums,
                       {program_.output_gradient() + at, DType::kF32, cols});
    else
      mse_loss_fwd(rows, cols, pred, ref, mask, sums);
  }

  // What a step does to one micro-batch whose samples are in place.
  void queue(bool backward, int64_t piece, float scale) {
    program_.forward(weights_);
    const std::span<const uint8_t> mask(mask_.as<uint8_t>(), static_cast<size_t>(mask_.bytes()));
    compare(0, program_.rows(), {target_rows_.data(), targets_.dtype(), inputs_.cols()}, mask,
            backward, scale);
    if (backward) program_.backward(weights_, piece > 0);
    kernels::cuda::total(row_sums_.as<double>(), program_.rows(), sums_.as<double>() + 1 + piece);
  }

  void run_on_gpu(const int64_t* samples, bool backward, int64_t piece, float scale) {
    inputs_.gather(samples, micro_, program_.input());
    targets_.copy(samples, micro_, target_rows_.data());
    if (!masks_.empty())
      for (int64_t i = 0; i < micro_; ++i)
        copy_to_device(mask_.as<char>() + i * inputs_.seq_len(),
                       masks_[static_cast<size_t>(samples[i])].data(), inputs_.seq_len());
    // The first time plans are made and memory is taken; from the second on it is one graph.
    if (!recorded_ || !backward || runs_++ == 0) return queue(backward, piece, scale);
    if (!graph_.recorded()) graph_.record([&] { queue(backward, piece, scale); });
    graph_.launch();
  }

  void add_pieces() {
    kernels::cuda::total(sums_.as<double>() + 1, pieces_, sums_.as<double>());
  }

  Program& program_;
  BlockWeights& weights_;
  const ActivationStream &inputs_, &targets_;
  const TokenMasks& masks_;
  Timings& timings_;
  int64_t micro_, pieces_ = 0;
  Buffer row_sums_;
  double sum_ = 0;
  // Of a GPU:
  bool recorded_ = false;  // forward, loss and backward of a step are one graph
  int64_t runs_ = 0;
  Buffer target_rows_, mask_, sums_, history_;  // sums_: of all pieces, then of each
  DeviceGraph graph_;
};

// The factor of each step, and when the last one is.
class Schedule {
 public:
  Schedule(int iters, int64_t window, double early_stop)
      : iters_(iters), end_(iters), window_(window), early_stop_(early_stop) {}

  bool is_last(int i) const { return i + 1 >= end_; }
  bool stopped_early() const { return end_ < iters_; }
  double decay(int i) const {
    const double usual = 1.0 - static_cast<double>(i) / iters_;
    if (!stopped_early() || i < stop_) return usual;
    return at_stop_ * (1.0 - static_cast<double>(i - stop_) / (end_ - stop_));
  }
  // The loss of step i.
  void add(int i, double loss) {
    sum_ += loss;
    if (early_stop_ <= 0 || (i + 1) % window_ != 0) return;
    const bool falls = before_ < 0 || !(sum_ >= (1 - early_stop_) * before_);  // NaN: goes on
    before_ = sum_, sum_ = 0;
    if (falls || stopped_early()) return;
    const double at_stop = decay(i + 1);
    stop_ = i + 1, at_stop_ = at_stop;
    end_ = std::min(iters_, stop_ + std::max(1, iters_ / 8));
  }
  void begin_again() { *this = Schedule(iters_, window_, early_stop_); }

 private:
  int iters_, end_, stop_ = 0;  // stop_: the first step of those that fall to 0 at end_
  int64_t window_;
  double early_stop_, at_stop_ = 0, sum_ = 0, before_ = -1;  // losses of this window, of the last
};

}  // namespace

TuneResult tune_block(Program& program, BlockWeights& weights, std::vector<TunedLayer>& layers,
                      const ActivationStream& inputs, const ActivationStream& targets,
                      const TokenMasks& masks, const TuneOptions& options,
                      const std::function<void(int)>& on_iteration,
                      std::span<TunedVector> vectors) {
  const int64_t batch = std::min(inputs.samples(), options.batch_size * options.accumulate_steps);
  Timings nobodys;
  Timings& timings = options.timings != nullptr ? *options.timings : nobodys;
  const DeviceScope scope(program.device());
  StepRunner runner(program, weights, inputs, targets, masks, batch, options.iters,
                    !options.profile, timings);
  require(runner.micro() > 0 && batch % runner.micro() == 0, "tune", "a step of ", batch,
          " samples cannot be cut into micro-batches of ", runner.micro());
  require(inputs.samples() == targets.samples() && inputs.seq_len() == targets.seq_len() &&
              inputs.cols() == targets.cols(),
          "tune", "inputs and targets of different shapes");
  require(masks.empty() || masks.size() == static_cast<size_t>(inputs.samples()), "tune",
          masks.size(), " masks for ", inputs.samples(), " samples");
  SampleOrder order(inputs.samples(), batch, options.seed);
  weights.allocate_gradients(program.gradient_dtype(batch > runner.micro()));
  // Of one step, at least: the gradient and the weight are read, offsets read and written, the
  // fake-quantized weight written.
  double step_bytes = 0;
  for (TunedLayer& layer : layers) {
    const WeightView place = weights.weight(layer.name);
    layer.slot->write_weight(place.data, place.dtype, place.stride);
    step_bytes += static_cast<double>(place.out * place.in *
                                      (size_of(weights.gradient_dtype()) +
                                       2 * int64_t{sizeof(int16_t)} + 2 * size_of(place.dtype)));
  }
  if (!vectors.empty()) {
    weights.allocate_norm_gradients();
    weights.allocate_bias_gradients();
  }
  const auto write_vector = [&](const TunedVector& vector) {
    const std::span<float> place = weights.vector(vector.name);
    if (!on_cuda()) return vector.tuner.write(place);
    std::vector<float> values(place.size());
    vector.tuner.write(values);
    copy_to_device(place.data(), values.data(), static_cast<int64_t>(values.size()) * 4);
    synchronize();
  };
  const auto vector_gradient = [&](const TunedVector& vector) {
    const std::span<float> place = weights.vector_gradient(vector.name);
    std::vector<float> values(place.size());
    copy_from_current(values.data(), place.data(), static_cast<int64_t>(values.size()) * 4);
    return values;
  };
  for (const TunedVector& vector : vectors) write_vector(vector);

  // Batches of the samples that judge, spread over all.
  std::vector<int64_t> judges;
  if (!options.keep_best && options.judged > 0) {
    const int64_t count =
        std::min(inputs.samples() / batch, (options.judged + batch - 1) / batch) * batch;
    for (int64_t j = 0; j < count; ++j) judges.push_back(j * inputs.samples() / count);
  }
  const auto judge = [&] {
    double sum = 0;
    const auto count = static_cast<int64_t>(judges.size());
    for (int64_t first = 0; first < count; first += batch) {
      runner.run(judges.data() + first, batch, false, 1.0f);
      sum += runner.sum();
    }
    return sum / static_cast<double>(runner.valid_rows(judges.data(), count) * inputs.cols());
  };
  const int64_t pass = std::max<int64_t>(1, inputs.samples() / batch);
  Schedule schedule(options.iters, (kStopWindow + pass - 1) / pass * pass, options.early_stop);
  const auto is_judged = [&](int i) {
    return !judges.empty() && (i == 0 || i == options.iters / 4 || schedule.is_last(i));
  };

  TuneResult result;
  double best = std::numeric_limits<double>::max(), step_factor = 1;
  const auto begin_again = [&] {
    step_factor *= kRestartFactor;
    schedule.begin_again();
    for (TunedLayer& layer : layers) {
      const WeightView place = weights.weight(layer.name);
      layer.slot->restart();
      layer.slot->write_weight(place.data, place.dtype, place.stride);
    }
    for (TunedVector& vector : vectors) {
      vector.tuner.restart();
      write_vector(vector);
    }
  };
  bool last = options.iters == 0;
  int unread = 0;
  for (int i = 0; !last; ++i) {
    if (is_judged(i)) {
      const double loss = judge();
      if (i == 0 && result.restarts == 0) result.loss_first = loss;
      if (loss <= result.loss_first) {
        if (schedule.is_last(i)) best = loss;
      } else if (result.restarts < kRestarts) {
        ++result.restarts;
        begin_again();
        i = 0;
      }
    }
    const int64_t* samples = order.next();
    const int64_t valid = runner.valid_rows(samples, batch) * inputs.cols();
    require(valid > 0, "tune", "no token of the samples counts in the loss");
    last = schedule.is_last(i);  // parameters after it are never evaluated: no step is taken
    double loss = 0;
    if (!last || judges.empty()) {
      if (!vectors.empty()) weights.zero_vector_gradients();
      runner.run(samples, batch, !last, static_cast<float>(1.0 / static_cast<double>(valid)));
      // On a GPU, losses that decide nothing are read in the end.
      if (on_cuda() && !options.keep_best && options.early_stop == 0 && i > 0 && !last)
        runner.remember(i), ++unread;
      else
        loss = runner.sum() / static_cast<double>(valid);
    }
    if (!std::isfinite(loss)) ++result.non_finite_losses;
    if (judges.empty() && i == 0) result.loss_first = loss;
    bool keep = false;
    if (options.keep_best) {
      keep = loss < best;
      if (keep) best = loss;
    } else if (last) {
      if (judges.empty() && std::isfinite(loss)) best = loss;
      keep = best < std::numeric_limits<double>::max();
    }
    if (keep) {
      result.best_iteration = i;
      timings.timed("keep best", 0, [&] {
        for (TunedLayer& layer : layers) layer.slot->keep_best();
        for (TunedVector& vector : vectors) vector.tuner.keep_best();
      });
    }
    ++result.iterations;
    if (!last) {
      const double decay = step_factor * schedule.decay(i);
      schedule.add(i, loss);
      timings.timed("step and fake quantization", step_bytes, [&] {
        for (TunedLayer& layer : layers) {
          const WeightView place = weights.weight(layer.name);
          layer.slot->step(place.gradient, decay, place.data, place.dtype, place.stride);
        }
        for (TunedVector& vector : vectors) {
          vector.tuner.step(vector_gradient(vector), decay);
          write_vector(vector);
        }
      });
    }
    if (on_iteration) on_iteration(i);
  }
  if (unread > 0)
    for (double sum : runner.remembered()) result.non_finite_losses += !std::isfinite(sum);
  result.stopped_early = schedule.stopped_early();
  result.loss_best = result.best_iteration < 0 ? result.loss_first : best;
  return result;
}

}  // namespace signround
