// Attention at the shapes of real models, every kernel of the table but the reference, with those
// that round to bf16 (their share of the f32 peak can be above 1). The data is
// larger than L2, and for the longer shapes larger than L3. Work is counted for the pairs of query
// and key that the mask lets through: 4 operations per pair and value forward, 10 backward.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "bench/fma_peak.h"
#include "signround/base/parallel.h"
#include "signround/ops/attention.h"
#include "signround/tensor/buffer.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

struct Workload {
  const char* name;
  AttentionShape shape;
};

AttentionShape shape_of(int64_t batch, int64_t q_len, int64_t kv_len, int64_t heads,
                        int64_t kv_heads, int64_t dim) {
  return {batch, q_len, kv_len, heads, kv_heads, dim, 1 / std::sqrt(static_cast<float>(dim))};
}

std::vector<Workload> workloads() {
  std::vector<Workload> list = {
      {"SmolLM2-135M/len:256", shape_of(4, 256, 256, 9, 3, 64)},
      {"SmolLM2-135M/len:512", shape_of(8, 512, 512, 9, 3, 64)},
      {"SmolLM2-135M/len:2048", shape_of(1, 2048, 2048, 9, 3, 64)},
      {"Llama-3-8B/len:2048", shape_of(1, 2048, 2048, 32, 8, 128)},
      {"Gemma-2-2B/len:1024", shape_of(1, 1024, 1024, 8, 4, 256)},
      {"Phi-3-mini/len:512", shape_of(1, 512, 512, 32, 32, 96)},
      {"SmolLM2-135M/generate:1024", shape_of(1, 1, 1024, 9, 3, 64)},
      {"Llama-3-8B/generate:8192", shape_of(1, 1, 8192, 32, 8, 128)},
  };
  list[4].shape.softcap = 50;
  list[4].shape.window = 512;
  return list;
}

double visible_pairs(const AttentionShape& s) {
  double pairs = 0;
  for (int64_t i = 0; i < s.q_len; ++i) pairs += static_cast<double>(s.end_key(i) - s.first_key(i));
  return pairs * static_cast<double>(s.batch * s.heads);
}

// Random values in memory as the program has it (large pages).
struct Values {
  Values(int64_t n, uint64_t seed, DType type)
      : buffer(n * int64_t{sizeof(float)}), size(n), dtype(type) {
    const auto block = testing::random_normal(std::min<int64_t>(n, 65536), seed);
    for (int64_t i = 0; i < n; ++i) {
      const float value = block[static_cast<size_t>(i) % block.size()];
      if (dtype == DType::kBF16)
        buffer.as<BF16>()[i] = to_bf16(value);
      else
        buffer.as<float>()[i] = value;
    }
  }
  RowsAny in(int64_t cols) { return {buffer.data(), dtype, cols}; }
  RowsOut out(int64_t cols) { return {buffer.data(), dtype, cols}; }
  Buffer buffer;
  int64_t size;
  DType dtype;
};

// With bf16 products all but lse is bf16, as the program has it then.
struct Data {
  Data(const AttentionShape& s, DType dtype)
      : q_cols(s.heads * s.head_dim),
        kv_cols(s.kv_heads * s.head_dim),
        q(s.batch * s.q_len * q_cols, 1, dtype),
        k(s.batch * s.kv_len * kv_cols, 2, dtype),
        v(s.batch * s.kv_len * kv_cols, 3, dtype),
        d_y(q.size, 4, dtype),
        y(q.size, 5, dtype),
        d_q(q.size, 6, dtype),
        d_k(k.size, 7, dtype),
        d_v(k.size, 8, dtype),
        lse(s.batch * s.heads * s.q_len, 9, DType::kF32) {}
  int64_t q_cols, kv_cols;
  Values q, k, v, d_y, y, d_q, d_k, d_v, lse;
};

void run(benchmark::State& state, const AttentionKernel& kernel, const AttentionShape& s, bool fwd,
         bool bwd, double peak) {
  Data d(s, kernel.name == "hwy" ? DType::kF32 : DType::kBF16);
  Buffer scratch(std::max(kernel.scratch_bytes(s, false), kernel.scratch_bytes(s, true)));
  const RowsAny q = d.q.in(d.q_cols), k = d.k.in(d.kv_cols), v = d.v.in(d.kv_cols);
  float* lse = d.lse.buffer.as<float>();
  const auto run_fwd = [&] { kernel.fwd(s, q, k, v, d.y.out(d.q_cols), lse, scratch.data()); };
  run_fwd();
  for (auto _ : state) {
    if (fwd) run_fwd();
    if (bwd)
      kernel.bwd(s, q, k, v, d.y.in(d.q_cols), lse, d.d_y.in(d.q_cols), d.d_q.out(d.q_cols),
                 d.d_k.out(d.kv_cols), d.d_v.out(d.kv_cols), scratch.data());
  }
  const double work = visible_pairs(s) * static_cast<double>(s.head_dim * (4 * fwd + 10 * bwd));
  const double times = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(work * times * 1e-9, benchmark::Counter::kIsRate);
  state.counters["of_peak"] = benchmark::Counter(work * times / peak, benchmark::Counter::kIsRate);
  if (s.q_len == 1) {
    const double bytes = 2.0 * size_of(d.k.dtype) * static_cast<double>(d.k.size);
    state.counters["GB/s"] = benchmark::Counter(bytes * times * 1e-9, benchmark::Counter::kIsRate);
  }
}

}  // namespace
}  // namespace signround

int main(int argc, char** argv) {
  using namespace signround;
  const double peak = fma_peak();
  std::printf("%d threads, fused multiply-add peak %.1f GFLOP/s\n", num_threads(), peak * 1e-9);
  for (const AttentionKernel& kernel : attention_kernels(true)) {
    if (kernel.name == "ref" || kernel.why_not() != nullptr) continue;
    for (const Workload& w : workloads()) {
      if (!kernel.fits(w.shape)) continue;
      for (int pass : {1, 2, 3}) {
        if (w.shape.q_len == 1 && pass != 1) continue;
        const char* passes[] = {"", "fwd", "bwd", "fwd+bwd"};
        const std::string name = std::string("attention/kernel:") + std::string(kernel.name) + "/" +
                                 w.name + "/" + passes[pass];
        benchmark::RegisterBenchmark(
            name.c_str(),
            [=](benchmark::State& state) { run(state, kernel, w.shape, pass & 1, pass & 2, peak); })
            ->UseRealTime()
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
