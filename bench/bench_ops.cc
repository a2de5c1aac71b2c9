// The products of linear layers and the row operations at the shapes of SmolLM2-135M,
// Qwen2.5-1.5B and Llama-3-8B. Row operations read and write each value
// once, so the rate is bytes moved per second, and `of_copy` is its share of what a copy of as many
// bytes reaches here. Caches are as the repetition leaves them: warm for the small shapes, of no
// use for the large ones.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/panels.h"
#include "signround/ops/activation.h"
#include "signround/ops/add.h"
#include "signround/ops/convert.h"
#include "signround/ops/layer_norm.h"
#include "signround/ops/matmul.h"
#include "signround/ops/mse_loss.h"
#include "signround/ops/rms_norm.h"
#include "signround/ops/rope.h"
#include "signround/ops/xent.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

double seconds_of(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Of the runs that Google Benchmark asks for, the fastest in seconds.
double best_of(benchmark::State& state, const std::function<void()>& run) {
  double best = 1e9;
  for (auto _ : state) {
    const double seconds = seconds_of(run);
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
  }
  return best;
}

// Bytes per second of a copy that reads bytes / 2 and writes as many, with the threads of
// parallel_for. Best of 9.
double copy_rate(int64_t bytes) {
  static std::map<int64_t, double> known;
  double& rate = known[bytes];
  if (rate > 0) return rate;
  const int64_t half = bytes / 2;
  Buffer from(half), to(half);
  std::memset(from.data(), 1, static_cast<size_t>(half));
  for (int i = 0; i < 9; ++i) {
    const double seconds = seconds_of([&] {
      parallel_for(half, 1 << 16, [&](int64_t begin, int64_t end) {
        std::memcpy(to.as<char>() + begin, from.as<char>() + begin,
                    static_cast<size_t>(end - begin));
      });
    });
    rate = std::max(rate, static_cast<double>(2 * half) / seconds);
  }
  return rate;
}

struct Shape {
  int64_t n, d;
};
constexpr Shape kShapes[] = {{1024, 576}, {1024, 1536}, {2048, 4096}, {2048, 14336}};

// Matrices of one shape; `dtype` is that of every output.
struct Data {
  Data(Shape s, DType type)
      : shape(s), dtype(type), saved(static_cast<size_t>(s.n), 1.0f), sums(saved.size()) {
    for (Buffer* b : {&a, &b_, &c}) {
      *b = Buffer(s.n * s.d * 4);
      const auto row = testing::random_normal(s.d, 1);
      for (int64_t i = 0; i < s.n; ++i) std::copy(row.begin(), row.end(), b->as<float>() + i * s.d);
    }
    out1 = Buffer(s.n * s.d * 4);
    out2 = Buffer(s.n * s.d * 4);
    w = testing::random_normal(s.d, 2);
  }
  RowsIn x() { return {a.as<float>(), shape.d}; }
  RowsIn y() { return {b_.as<float>(), shape.d}; }
  RowsIn z() { return {c.as<float>(), shape.d}; }
  RowsOut o1() { return {out1.data(), dtype, shape.d}; }
  RowsOut o2() { return {out2.data(), dtype, shape.d}; }
  HeadShape rows() const { return {shape.n, 1, shape.d}; }
  HeadShape heads() const { return {shape.n, shape.d / 64, 64}; }

  Shape shape;
  DType dtype;
  Buffer a, b_, c, out1, out2;
  std::vector<float> w, saved;
  std::vector<double> sums;
};

struct Op {
  const char* name;
  int reads, writes;  // f32 values, and values of the output type, per element
  std::function<void(Data&)> run;
};

const std::vector<Op>& ops() {
  static const RopeTable table = [] {
    std::vector<float> f(32);
    for (size_t p = 0; p < f.size(); ++p) f[p] = 1.0f / static_cast<float>(p + 1);
    return rope_table(f, 1.0, 2048);
  }();
  static const std::vector<Op> list = {
      {"convert", 1, 1, [](Data& d) { convert(d.shape.n, d.shape.d, rows_any(d.x()), d.o1()); }},
      {"add", 2, 1, [](Data& d) { add(d.shape.n, d.shape.d, d.x(), d.y(), d.o1()); }},
      {"rms_norm_fwd", 1, 1,
       [](Data& d) { rms_norm_fwd(d.rows(), d.x(), d.w, {}, d.o1(), d.saved); }},
      {"rms_norm_bwd", 2, 1,
       [](Data& d) { rms_norm_bwd(d.rows(), d.x(), d.w, d.saved, d.y(), {}, d.o1(), false); }},
      {"layer_norm_fwd", 1, 1,
       [](Data& d) { layer_norm_fwd(d.rows(), d.x(), d.w, d.w, 1e-5f, d.o1(), {}, d.saved); }},
      {"rope_fwd", 1, 1,
       [](Data& d) {
         rope_fwd(d.heads(), d.x(), table, {RopeStyle::kHalfSplit, 0, 2048}, d.o1());
       }},
      {"rope_interleaved_fwd", 1, 1,
       [](Data& d) {
         rope_fwd(d.heads(), d.x(), table, {RopeStyle::kInterleaved, 0, 2048}, d.o1());
       }},
      {"silu_mul_fwd", 2, 1,
       [](Data& d) { glu_fwd(Activation::kSilu, d.shape.n, d.shape.d, d.x(), d.y(), d.o1()); }},
      {"silu_mul_bwd", 3, 2,
       [](Data& d) {
         glu_bwd(Activation::kSilu, d.shape.n, d.shape.d, d.x(), d.y(), d.z(), d.o1(), d.o2(),
                 false);
       }},
      {"gelu_tanh_mul_fwd", 2, 1,
       [](Data& d) { glu_fwd(Activation::kGeluTanh, d.shape.n, d.shape.d, d.x(), d.y(), d.o1()); }},
      {"gelu_tanh_mul_bwd", 3, 2,
       [](Data& d) {
         glu_bwd(Activation::kGeluTanh, d.shape.n, d.shape.d, d.x(), d.y(), d.z(), d.o1(), d.o2(),
                 false);
       }},
      {"gelu_erf_fwd", 1, 1,
       [](Data& d) { activation_fwd(Activation::kGeluErf, d.shape.n, d.shape.d, d.x(), d.o1()); }},
      {"mse_loss_fwd_bwd", 2, 1,
       [](Data& d) {
         mse_loss_fwd_bwd(d.shape.n, d.shape.d, d.x(), rows_any(d.y()), {}, 1.0f, d.sums, d.o1());
       }},
  };
  return list;
}

// The rates are those of the fastest iteration, as the copy's: what others do on the machine shows
// in the time only.
void measure(benchmark::State& state, int64_t bytes, const std::function<void()>& run) {
  const double copy = copy_rate(bytes);
  const double best = best_of(state, run);
  state.counters["GB/s"] = static_cast<double>(bytes) * 1e-9 / best;
  state.counters["of_copy"] = static_cast<double>(bytes) / best / copy;
}

void run_op(benchmark::State& state, const Op& op, Shape shape, DType dtype) {
  Data data(shape, dtype);
  measure(state, shape.n * shape.d * (4 * op.reads + size_of(dtype) * op.writes),
          [&] { op.run(data); });
}

void run_add_rms_norm(benchmark::State& state, Shape shape, DType dtype) {
  Data d(shape, dtype);
  const RowsOut sum{d.out2.data(), DType::kF32, shape.d};
  measure(state, shape.n * shape.d * (12 + size_of(dtype)),
          [&] { add_rms_norm_fwd(shape.n, shape.d, d.x(), d.y(), d.w, {}, sum, d.o1(), d.saved); });
}

void run_embedding(benchmark::State& state, Shape shape) {
  Data d(shape, DType::kF32);
  std::vector<int32_t> ids(static_cast<size_t>(shape.n));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % ids.size());
  const RowsAny table{d.a.data(), DType::kBF16, shape.d};
  measure(state, shape.n * shape.d * 6,
          [&] { embedding(ids, shape.n, shape.d, table, 1.0f, d.o1()); });
}

// Each logit is read once from memory; the other passes over a row find it in the second cache.
void run_kl(benchmark::State& state, int64_t n, int64_t vocab, bool backward) {
  Data d({n, vocab}, DType::kF32);
  std::vector<KlRow> rows(static_cast<size_t>(n));
  kl_fwd(n, vocab, d.x(), d.y(), {}, rows);
  measure(state, n * vocab * (backward ? 12 : 8), [&] {
    if (backward)
      kl_bwd(n, vocab, d.x(), d.y(), rows, {}, 1.0f, d.o1());
    else
      kl_fwd(n, vocab, d.x(), d.y(), {}, rows);
  });
}

void run_xent(benchmark::State& state, int64_t n, int64_t vocab) {
  Data d({n, vocab}, DType::kF32);
  std::vector<XentRow> rows(static_cast<size_t>(n));
  measure(state, n * vocab * 4, [&] { xent_fwd(n, vocab, d.x(), {}, rows); });
}

// The three products of a linear layer with `out` rows of weights, for `rows` tokens. `of_probe` is
// the share of what the probe measured that chooses the precision.
struct LayerShape {
  int64_t rows, in, out;
};
// SmolLM2-135M, Qwen2.5-1.5B, Llama-3-8B; an expert of Mixtral's, which sees a quarter of the
// tokens.
constexpr LayerShape kLayers[] = {
    {1024, 576, 960},    {1024, 576, 576},    {1024, 576, 3072},  {1024, 1536, 576},
    {4096, 576, 3072},   {4096, 1536, 576},   {16384, 576, 3072}, {16384, 1536, 576},
    {1024, 1536, 2048},  {1024, 1536, 17920}, {2048, 4096, 6144}, {2048, 4096, 4096},
    {2048, 4096, 28672}, {2048, 14336, 4096}, {512, 4096, 28672}, {512, 14336, 4096}};

// Rows lie as far apart as those of a block.
int64_t apart(int64_t cols) { return spread_stride(cols, DType::kBF16); }
MatmulSpec forward_product(LayerShape s) {
  return {.m = s.rows,
          .n = s.out,
          .k = s.in,
          .trans_b = true,
          .lda = apart(s.in),
          .ldb = apart(s.in),
          .ldc = s.out};
}
MatmulSpec input_gradient_product(LayerShape s) {
  return {.m = s.rows, .n = s.in, .k = s.out, .lda = apart(s.out), .ldb = apart(s.in), .ldc = s.in};
}
MatmulSpec weight_gradient_product(LayerShape s) {
  return {.m = s.out,
          .n = s.in,
          .k = s.rows,
          .trans_a = true,
          .lda = apart(s.out),
          .ldb = apart(s.in),
          .ldc = s.in};
}

// Random, since tiles of zeros multiply faster: they need less power.
Buffer random_values(int64_t values, DType dtype) {
  Buffer x(values * size_of(dtype));
  const auto row = testing::random_normal(4096, 1);
  for (int64_t i = 0; i < values; i += 4096)
    convert(1, std::min<int64_t>(4096, values - i), {row.data(), DType::kF32, 4096},
            {x.as<char>() + i * size_of(dtype), dtype, 4096});
  return x;
}

// dtype kI8: operands in bf16 that are rounded to 8 bits on the way.
void run_product(benchmark::State& state, MatmulSpec spec, DType dtype) {
  spec.int8 = dtype == DType::kI8;
  if (spec.int8) dtype = DType::kBF16;
  spec.in = dtype;
  const Buffer a = random_values((spec.trans_a ? spec.k : spec.m) * spec.lda, dtype),
               b = random_values((spec.trans_b ? spec.n : spec.k) * spec.ldb, dtype);
  Buffer c(spec.m * spec.n * 4);
  const auto plan = make_matmul(spec);
  const auto run = [&] { plan->run(a.data(), b.data(), nullptr, c.as<float>()); };
  run();
  const double best = best_of(state, run);
  const double rate = 2.0 * double(spec.m) * double(spec.n) * double(spec.k) / best;
  state.counters["GFLOP/s"] = rate * 1e-9;
  state.counters["of_probe"] =
      rate / (dtype == DType::kBF16 ? compute_rates().bf16 : compute_rates().f32);
}

// Products of 32 x 32 values over 288 of k on every thread, with nothing around them: `panels` of A
// times as many of B. One of each (36 KB) stays in the first cache, 8 and 20 (500 KB) in the
// second.
void run_tiles(benchmark::State& state, const kernels::panels::Unit& unit, int64_t panels_a,
               int64_t panels_b) {
  using namespace kernels::panels;
  constexpr int64_t kTiles = 9;
  const int64_t rounds = 4096 / (panels_a * panels_b) + 1, threads = num_threads();
  const auto run = [&] {
    parallel_for(threads, 1, [&](int64_t, int64_t) {
      thread_local Buffer a, b;
      if (a.bytes() != panels_a * kTiles * kStep * 2) {
        a = random_values(panels_a * kTiles * kStep, DType::kBF16);
        b = random_values(panels_b * kTiles * kStep, DType::kBF16);
      }
      alignas(64) float c[kPanel * kPanel];
      const auto panel = [&](const Buffer& x, int64_t i) {
        return x.as<BF16>() + i * kTiles * kStep;
      };
      unit.start();
      for (int64_t round = 0; round < rounds; ++round)
        for (int64_t i = 0; i < panels_a; ++i)
          for (int64_t j = 0; j < panels_b; ++j)
            unit.multiply({.a = panel(a, i),
                           .b = panel(b, j),
                           .next_b = panel(b, (j + 1) % panels_b),
                           .depth = kTiles,
                           .c = c,
                           .stride = kPanel,
                           .from = nullptr,
                           .from_stride = 0,
                           .bias = nullptr});
      unit.stop();
    });
  };
  run();
  const double best = best_of(state, run);
  const double products = double(threads * rounds * panels_a * panels_b);
  const double rate = products * 2 * kPanel * kPanel * kTiles * kDepth / best;
  state.counters["GFLOP/s"] = rate * 1e-9;
  state.counters["of_probe"] = rate / compute_rates().bf16;
}

void register_all() {
  auto add_one = [](const std::string& name, auto body) {
    benchmark::RegisterBenchmark(name.c_str(), body)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  };
  for (Shape s : kShapes) {
    const std::string size = "/" + std::to_string(s.n) + "x" + std::to_string(s.d);
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string suffix = (dtype == DType::kF32 ? "/f32" : "/bf16") + size;
      for (const Op& op : ops())
        add_one(op.name + suffix,
                [&op, s, dtype](benchmark::State& state) { run_op(state, op, s, dtype); });
      add_one("add_rms_norm_fwd" + suffix,
              [s, dtype](benchmark::State& state) { run_add_rms_norm(state, s, dtype); });
    }
    add_one("embedding/bf16_table" + size,
            [s](benchmark::State& state) { run_embedding(state, s); });
  }
  for (LayerShape s : kLayers)
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string size = (dtype == DType::kF32 ? "/f32/" : "/bf16/") +
                               std::to_string(s.rows) + "x" + std::to_string(s.in) + "x" +
                               std::to_string(s.out);
      add_one("product_fwd" + size, [s, dtype](benchmark::State& state) {
        run_product(state, forward_product(s), dtype);
      });
      add_one("product_d_x" + size, [s, dtype](benchmark::State& state) {
        run_product(state, input_gradient_product(s), dtype);
      });
      add_one("product_d_w" + size, [s, dtype](benchmark::State& state) {
        run_product(state, weight_gradient_product(s), dtype);
      });
      if (dtype != DType::kBF16 || why_no_int8_products(dtype) != nullptr) continue;
      const std::string int8 = "/int8/" + size.substr(std::strlen("/bf16/"));
      add_one("product_d_x" + int8, [s](benchmark::State& state) {
        run_product(state, input_gradient_product(s), DType::kI8);
      });
      add_one("product_d_w" + int8, [s](benchmark::State& state) {
        run_product(state, weight_gradient_product(s), DType::kI8);
      });
    }
  using namespace kernels::panels;
  for (const auto& [name, unit] : {std::pair{"amx/", &kAmx}, {"avx512/", &kAvx512}})
    for (const auto& [a, b] : {std::pair<int64_t, int64_t>{1, 1}, {8, 20}, {16, 40}, {64, 64}})
      if (unit->why_not() == nullptr)
        add_one("tiles/" + std::string(name) + std::to_string(a) + "x" + std::to_string(b),
                [unit = unit, a = a, b = b](benchmark::State& state) {
                  run_tiles(state, *unit, a, b);
                });
  add_one("xent_fwd/64x49152", [](benchmark::State& state) { run_xent(state, 64, 49152); });
  add_one("kl_fwd/64x49152", [](benchmark::State& state) { run_kl(state, 64, 49152, false); });
  add_one("kl_bwd/64x49152", [](benchmark::State& state) { run_kl(state, 64, 49152, true); });
}

}  // namespace
}  // namespace signround

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  signround::register_all();
  benchmark::RunSpecifiedBenchmarks();
}
