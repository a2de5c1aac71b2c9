// Rounding of one weight matrix: GB/s are of the weights that are read (RTN, opt-RTN), or of all
// memory that one step of SignRound must touch: w, d_w, v twice, and the new weight.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "signround/base/random.h"
#include "signround/quant/imatrix.h"
#include "signround/quant/opt_rtn.h"
#include "signround/quant/rtn.h"
#include "signround/quant/signround.h"
#include "signround/tensor/buffer.h"

namespace signround {
namespace {

// o_proj, up_proj and down_proj of Qwen2.5-0.5B, up_proj of Llama-3.2-1B, gate and up of
// Llama-3-8B: 0.8 to 117 million weights.
constexpr int64_t kShapes[][2] = {
    {896, 896}, {4864, 896}, {896, 4864}, {8192, 2048}, {28672, 4096}};

std::vector<float> weights(int64_t n) {
  PythonRandom random(1);
  std::vector<float> pool(4099);
  for (float& v : pool) v = static_cast<float>(0.05 * normal(random));
  std::vector<float> w(static_cast<size_t>(n));
  for (size_t i = 0; i < w.size(); ++i) w[i] = pool[i % pool.size()];
  return w;
}

std::vector<BF16> halves(const std::vector<float>& f) {
  std::vector<BF16> w;
  for (float v : f) w.push_back(to_bf16(v));
  return w;
}

QuantScheme scheme_of(const benchmark::State& state) {
  QuantScheme scheme;
  scheme.bits = static_cast<int>(state.range(1));
  scheme.group_size = state.range(2);
  return scheme;
}

void rate(benchmark::State& state, int64_t weights, int64_t bytes_per_weight) {
  state.SetBytesProcessed(state.iterations() * weights * bytes_per_weight);
  state.counters["weights/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * weights), benchmark::Counter::kIsRate);
}

void bm_rtn(benchmark::State& state) {
  const auto [out, in] = kShapes[state.range(0)];
  const auto w = halves(weights(out * in));
  for (auto _ : state)
    benchmark::DoNotOptimize(rtn(w.data(), out, in, scheme_of(state)).codes.data());
  rate(state, out * in, 2);
}
BENCHMARK(bm_rtn)
    ->Name("rtn_bf16")
    ->ArgNames({"shape", "bits", "group"})
    ->Args({1, 4, 128})
    ->Args({3, 4, 128})
    ->Args({3, 4, 32})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void bm_opt_rtn(benchmark::State& state) {
  const auto [out, in] = kShapes[state.range(0)];
  const auto w = halves(weights(out * in));
  std::vector<float> importance = weights(in);
  for (float& v : importance) v *= v;
  const float* given = state.range(3) != 0 ? importance.data() : nullptr;
  for (auto _ : state)
    benchmark::DoNotOptimize(opt_rtn(w.data(), out, in, scheme_of(state), given).codes.data());
  rate(state, out * in, 2);
}
BENCHMARK(bm_opt_rtn)
    ->Name("opt_rtn_bf16")
    ->ArgNames({"shape", "bits", "group", "importance"})
    ->Args({0, 4, 128, 0})
    ->Args({0, 4, 128, 1})
    ->Args({0, 4, 32, 0})
    ->Args({0, 3, 128, 0})
    ->Args({0, 2, 64, 0})
    ->Args({0, 8, 128, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void bm_step(benchmark::State& state) {
  const auto [out, in] = kShapes[state.range(0)];
  const auto w = halves(weights(out * in));
  const auto gradient = halves(weights(out * in));
  Buffer d_w(out * in * 2), weight(out * in * 2);  // on large pages, as a block's
  std::copy(gradient.begin(), gradient.end(), d_w.as<BF16>());
  QuantScheme scheme = scheme_of(state);
  scheme.symmetry = static_cast<Symmetry>(state.range(3));
  SignRoundSlot slot(w.data(), out, in, scheme, {.iters = 200});
  const auto step = [&] {
    slot.step({d_w.data(), DType::kBF16, in}, 1, weight.data(), DType::kBF16, in);
  };
  step();  // its memory is touched for the first time
  for (auto _ : state) step();
  rate(state, out * in, 2 + 2 + 4 + 2);
}
BENCHMARK(bm_step)
    ->Name("signround_step_bf16")
    ->ArgNames({"shape", "bits", "group", "symmetry"})
    ->Args({0, 4, 64, 0})
    ->Args({0, 4, 128, 0})
    ->Args({1, 4, 128, 0})
    ->Args({3, 4, 128, 0})
    ->Args({3, 4, 128, 1})
    ->Args({3, 2, 32, 0})
    ->Args({4, 4, 128, 0})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void bm_second_moments(benchmark::State& state) {
  constexpr int64_t rows = 2048, cols = 4864;
  const auto x = weights(rows * cols);
  std::vector<double> sums(cols);
  for (auto _ : state) add_second_moments(x.data(), rows, cols, cols, sums.data());
  rate(state, rows * cols, 4);
}
BENCHMARK(bm_second_moments)
    ->Name("second_moments_f32")
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void bm_copy(benchmark::State& state) {
  const std::vector<float> from(size_t{1} << 25);
  std::vector<float> to(from.size());
  for (auto _ : state) {
    std::copy(from.begin(), from.end(), to.begin());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(from.size()) * 8);
}
BENCHMARK(bm_copy)->Name("memory_copy_one_thread")->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace signround

BENCHMARK_MAIN();
