#include "signround/graph/program.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <map>

#include "signround/base/error.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/ops/attention.h"
#include "signround/testing/complex_step.h"
#include "signround/testing/random.h"

namespace signround {
namespace {

using Complex = std::complex<double>;
using kernels::MatmulSpec;

constexpr int64_t kHidden = 8, kHeads = 2, kKvHeads = 1, kHeadDim = 4, kInner = 12;

// The switches of the llama-like family.
struct Toy {
  bool bias = false, qk_norm = false, parallel = false;
  int64_t window = 0;
};

RopeSpec toy_rope() { return {.inv_freq = {1.0, 0.1}, .factor = 1.1}; }

Graph toy_block(const Toy& toy) {
  Graph g;
  const Value x = g.input(kHidden);
  const Value h = g.rms_norm(x, {"norm1", kHidden}, 1e-5f);
  const auto qkv = g.linears(h, {{"q", kHeads * kHeadDim, kHidden, toy.bias},
                                 {"k", kKvHeads * kHeadDim, kHidden, toy.bias},
                                 {"v", kKvHeads * kHeadDim, kHidden, toy.bias}});
  Value q = qkv[0], k = qkv[1];
  if (toy.qk_norm) {
    q = g.rms_norm(q, {"q_norm", kHeadDim}, 1e-5f, kHeads);
    k = g.rms_norm(k, {"k_norm", kHeadDim}, 1e-5f, kKvHeads);
  }
  q = g.rope(q, kHeads, kHeadDim, toy_rope());
  k = g.rope(k, kKvHeads, kHeadDim, toy_rope());
  const Value a = g.linear(g.attention(q, k, qkv[2],
                                       {.heads = kHeads,
                                        .kv_heads = kKvHeads,
                                        .head_dim = kHeadDim,
                                        .scale = 0.5f,
                                        .window = toy.window}),
                           {"o", kHidden, kHeads * kHeadDim, false});
  const Value x1 = g.add(x, a);
  const Value h1 = toy.parallel ? h : g.rms_norm(x1, {"norm2", kHidden}, 1e-5f);
  const auto gate_up =
      g.linears(h1, {{"gate", kInner, kHidden, false}, {"up", kInner, kHidden, false}});
  const Value m = g.gated(Activation::kSilu, gate_up[0], gate_up[1]);
  g.output(g.add(x1, g.linear(m, {"down", kHidden, kInner, false})));
  return g;
}

// The same block in plain loops, for any number type.
template <class T>
class PlainBlock {
 public:
  PlainBlock(const Toy& toy, int64_t batch, int64_t seq) : toy_(toy), batch_(batch), seq_(seq) {}
  std::map<std::string, std::vector<T>> params;

  std::vector<T> run(const std::vector<T>& x) {
    const auto h = norm(x, "norm1", kHidden);
    auto q = linear(h, "q", kHidden), k = linear(h, "k", kHidden);
    const auto v = linear(h, "v", kHidden);
    if (toy_.qk_norm) q = norm(q, "q_norm", kHeadDim), k = norm(k, "k_norm", kHeadDim);
    rotate(q, kHeads), rotate(k, kKvHeads);
    const auto a = linear(attend(q, k, v), "o", kHeads * kHeadDim);
    auto x1 = x;
    for (size_t i = 0; i < x1.size(); ++i) x1[i] += a[i];
    const auto h1 = toy_.parallel ? h : norm(x1, "norm2", kHidden);
    auto gate = linear(h1, "gate", kHidden);
    const auto up = linear(h1, "up", kHidden);
    for (size_t i = 0; i < gate.size(); ++i)
      gate[i] = gate[i] / (T(1) + std::exp(-gate[i])) * up[i];
    const auto d = linear(gate, "down", kInner);
    for (size_t i = 0; i < x1.size(); ++i) x1[i] += d[i];
    return x1;
  }

 private:
  std::vector<T> norm(const std::vector<T>& x, const std::string& name, int64_t dim) {
    auto y = x;
    for (size_t r = 0; r < x.size(); r += static_cast<size_t>(dim)) {
      T sum{};
      for (int64_t j = 0; j < dim; ++j)
        sum += x[r + static_cast<size_t>(j)] * x[r + static_cast<size_t>(j)];
      const T scale = T(1) / std::sqrt(sum / T(double(dim)) + T(1e-5));
      for (int64_t j = 0; j < dim; ++j)
        y[r + static_cast<size_t>(j)] *= scale * params.at(name)[static_cast<size_t>(j)];
    }
    return y;
  }
  std::vector<T> linear(const std::vector<T>& x, const std::string& name, int64_t in) {
    const auto& w = params.at(name);
    const int64_t out = static_cast<int64_t>(w.size()) / in,
                  rows = static_cast<int64_t>(x.size()) / in;
    std::vector<T> y(static_cast<size_t>(rows * out));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t o = 0; o < out; ++o) {
        T sum =
            params.count(name + ".bias") ? params.at(name + ".bias")[static_cast<size_t>(o)] : T(0);
        for (int64_t i = 0; i < in; ++i)
          sum += x[static_cast<size_t>(r * in + i)] * w[static_cast<size_t>(o * in + i)];
        y[static_cast<size_t>(r * out + o)] = sum;
      }
    return y;
  }
  void rotate(std::vector<T>& x, int64_t heads) {
    const RopeSpec rope = toy_rope();
    for (int64_t t = 0; t < batch_ * seq_; ++t)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < 2; ++i) {
          const double angle =
              static_cast<double>(t % seq_) * rope.inv_freq[static_cast<size_t>(i)];
          const double c = rope.factor * std::cos(angle), s = rope.factor * std::sin(angle);
          T& a = x[static_cast<size_t>((t * heads + h) * kHeadDim + i)];
          T& b = x[static_cast<size_t>((t * heads + h) * kHeadDim + i + 2)];
          const T a0 = a, b0 = b;
          a = a0 * T(c) - b0 * T(s), b = b0 * T(c) + a0 * T(s);
        }
  }
  std::vector<T> attend(const std::vector<T>& q, const std::vector<T>& k, const std::vector<T>& v) {
    std::vector<T> y(q.size());
    for (int64_t b = 0; b < batch_; ++b)
      for (int64_t i = 0; i < seq_; ++i)
        for (int64_t h = 0; h < kHeads; ++h) {
          const auto at = [&](int64_t token, int64_t head, int64_t heads, int64_t d) {
            return static_cast<size_t>(((b * seq_ + token) * heads + head) * kHeadDim + d);
          };
          std::vector<T> p;
          const int64_t first = toy_.window > 0 ? std::max<int64_t>(0, i - toy_.window + 1) : 0;
          T sum{};
          for (int64_t j = first; j <= i; ++j) {
            T score{};
            for (int64_t d = 0; d < kHeadDim; ++d)
              score += q[at(i, h, kHeads, d)] * k[at(j, h / 2, kKvHeads, d)];
            p.push_back(std::exp(score * T(0.5)));
            sum += p.back();
          }
          for (int64_t j = first; j <= i; ++j)
            for (int64_t d = 0; d < kHeadDim; ++d)
              y[at(i, h, kHeads, d)] +=
                  p[static_cast<size_t>(j - first)] / sum * v[at(j, h / 2, kKvHeads, d)];
        }
    return y;
  }
  Toy toy_;
  int64_t batch_, seq_;
};

struct ToyModel {
  Graph graph;
  BlockWeights weights;
  std::map<std::string, std::vector<float>> values;

  ToyModel(const Toy& toy, DType compute) : graph(toy_block(toy)), weights(graph, compute) {
    uint64_t seed = 100;
    for (const auto& p : graph.linear_params()) {
      auto& w = values[p.name] = testing::random_normal(p.out * p.in, ++seed, 0.4);
      const WeightView place = weights.weight(p.name);
      for (int64_t i = 0; i < p.out * p.in; ++i) {
        float& v = w[static_cast<size_t>(i)];
        v = round_to_bf16(v);  // so that both compute types see the same weight
        if (compute == DType::kBF16)
          static_cast<BF16*>(place.data)[i / p.in * place.stride + i % p.in] = to_bf16(v);
        else
          static_cast<float*>(place.data)[i / p.in * place.stride + i % p.in] = v;
      }
    }
    for (const auto& p : graph.vector_params()) {
      auto& v = values[p.name] = testing::random_normal(p.size, ++seed, 0.3);
      for (float& f : v) f += 1;
      std::copy(v.begin(), v.end(), weights.vector(p.name).begin());
    }
    weights.allocate_gradients();
  }
  template <class T>
  PlainBlock<T> plain(const Toy& toy, int64_t batch, int64_t seq) const {
    PlainBlock<T> block(toy, batch, seq);
    for (const auto& [name, v] : values) block.params[name] = std::vector<T>(v.begin(), v.end());
    return block;
  }
};

const Toy kToys[] = {{},
                     {.bias = true},
                     {.qk_norm = true},
                     {.parallel = true},
                     {.window = 2},
                     {.bias = true, .qk_norm = true, .window = 3}};

// Sums of up to 12 f32 products through about 10 layers: relative error of a few hundred eps of the
// largest value.
constexpr double kRelative = 300 * 6e-8;

double largest(const std::vector<double>& values) {
  double m = 0;
  for (double v : values) m = std::max(m, std::abs(v));
  return m;
}

const float* gradient_of(const WeightView& view) {
  return static_cast<const float*>(view.gradient.data);
}

TEST(Program, ForwardAndAllGradientsMatchComplexStep) {
  const int64_t batch = 2, seq = 3, rows = batch * seq;
  for (const Toy& toy : kToys) {
    ToyModel setup(toy, DType::kF32);
    Program program(setup.graph, {.batch = batch,
                                  .seq_len = seq,
                                  .train = true,
                                  .input_gradient = true,
                                  .norm_gradients = true,
                                  .bias_gradients = true});
    setup.weights.allocate_norm_gradients();
    setup.weights.allocate_bias_gradients();
    setup.weights.zero_vector_gradients();
    const auto x = testing::random_normal(rows * kHidden, 1),
               d_y = testing::random_normal(rows * kHidden, 2);
    std::copy(x.begin(), x.end(), program.input());
    program.forward(setup.weights);
    const std::vector<float> y(program.output(), program.output() + rows * kHidden);
    std::copy(d_y.begin(), d_y.end(), program.output_gradient());
    program.backward(setup.weights, false);

    auto plain = setup.plain<Complex>(toy, batch, seq);
    std::vector<Complex> input(x.begin(), x.end());
    const auto want_y = plain.run(input);
    for (size_t i = 0; i < y.size(); ++i) EXPECT_NEAR(y[i], want_y[i].real(), kRelative * 20) << i;
    const auto loss = [&] {
      Complex sum{};
      const auto out = plain.run(input);
      for (size_t i = 0; i < out.size(); ++i) sum += out[i] * double(d_y[i]);
      return sum;
    };
    for (const auto& p : setup.graph.linear_params()) {
      auto& w = plain.params.at(p.name);
      const auto want = testing::complex_step_grad({w.data(), p.out, p.in}, loss);
      const WeightView place = setup.weights.weight(p.name);
      for (int64_t i = 0; i < p.out * p.in; ++i)
        ASSERT_NEAR(gradient_of(place)[i / p.in * place.gradient.stride + i % p.in],
                    want[static_cast<size_t>(i)], kRelative * largest(want))
            << p.name << " " << i;
    }
    for (const auto& p : setup.graph.vector_params()) {
      auto& v = plain.params.at(p.name);
      const auto want = testing::complex_step_grad({v.data(), 1, p.size}, loss);
      const auto found = setup.weights.vector_gradient(p.name);
      ASSERT_EQ(found.size(), want.size()) << p.name;
      for (size_t i = 0; i < want.size(); ++i)
        ASSERT_NEAR(found[i], want[i], kRelative * largest(want)) << p.name << " " << i;
    }
    const auto want_x = testing::complex_step_grad({input.data(), rows, kHidden}, loss);
    for (int64_t i = 0; i < rows * kHidden; ++i)
      ASSERT_NEAR(program.input_gradient()[i], want_x[static_cast<size_t>(i)],
                  kRelative * largest(want_x))
          << i;
  }
}

// Rounded once: off by at most 2^-9 of the power of two above, so by 2^-8 of themselves, beside
// what the order of sums changes.
TEST(Program, WeightGradientsInBf16AreThoseOfF32Rounded) {
  const ProgramOptions options{.batch = 2, .seq_len = 3, .compute = DType::kBF16, .train = true};
  ASSERT_EQ(Program::gradient_dtype(options, false), DType::kBF16);
  EXPECT_EQ(Program::gradient_dtype(options, true), DType::kF32);
  for (const Toy& toy : kToys) {
    ToyModel wide(toy, DType::kBF16), narrow(toy, DType::kBF16);
    const auto x = testing::random_normal(6 * kHidden, 1),
               d_y = testing::random_normal(6 * kHidden, 2);
    narrow.weights.allocate_gradients(DType::kBF16);
    Program program(wide.graph, options);
    for (ToyModel* setup : {&wide, &narrow}) {
      std::copy(x.begin(), x.end(), program.input());
      program.forward(setup->weights);
      std::copy(d_y.begin(), d_y.end(), program.output_gradient());
      program.backward(setup->weights, false);
    }
    EXPECT_THROW(program.backward(narrow.weights, true), Error);
    for (const auto& p : wide.graph.linear_params()) {
      const WeightView u = wide.weights.weight(p.name), v = narrow.weights.weight(p.name);
      ASSERT_EQ(v.gradient.dtype, DType::kBF16);
      const auto* rounded = static_cast<const BF16*>(v.gradient.data);
      double scale = 0;
      for (int64_t i = 0; i < p.out * p.in; ++i)
        scale = std::max(scale, std::abs(double(gradient_of(u)[i])));
      EXPECT_GT(scale, 0) << p.name;
      for (int64_t i = 0; i < p.out * p.in; ++i)
        ASSERT_NEAR(gradient_of(u)[i], to_f32(rounded[i]),
                    std::abs(double(gradient_of(u)[i])) / 256 + 1e-6 * scale)
            << p.name << " " << i;
    }
  }
}

// Rows of 1 KiB get gaps between them (spread_stride). Two layers written down in double.
TEST(Program, RowsWithGapsGiveWhatRowsWithoutGive) {
  constexpr int64_t kWide = 512, kRows = 5;
  Graph g;
  const Value x = g.input(kWide);
  const Value h = g.linear(x, {"first", kWide, kWide, false});
  g.output(g.linear(h, {"second", kWide, kWide, false}));
  const auto w1 = testing::random_normal(kWide * kWide, 1, 0.05),
             w2 = testing::random_normal(kWide * kWide, 2, 0.05),
             input = testing::random_normal(kRows * kWide, 3),
             d_y = testing::random_normal(kRows * kWide, 4);
  const auto multiply = [&](auto&& a, auto&& b) {  // (kRows, kWide) = sum over k of a(i, k) b(j, k)
    std::vector<double> c(static_cast<size_t>(kRows * kWide));
    for (int64_t i = 0; i < kRows; ++i)
      for (int64_t j = 0; j < kWide; ++j)
        for (int64_t k = 0; k < kWide; ++k)
          c[static_cast<size_t>(i * kWide + j)] += a(i, k) * b(j, k);
    return c;
  };
  const auto rows = [&](const auto& m) {
    return [&m](int64_t i, int64_t k) { return double(m[static_cast<size_t>(i * kWide + k)]); };
  };
  const auto columns = [&](const auto& m) {
    return [&m](int64_t j, int64_t k) { return double(m[static_cast<size_t>(k * kWide + j)]); };
  };
  const auto want_h = multiply(rows(input), rows(w1)), want_y = multiply(rows(want_h), rows(w2));
  const auto want_d_h = multiply(rows(d_y), columns(w2)),
             want_d_x = multiply(rows(want_d_h), columns(w1));
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    SCOPED_TRACE(name_of(compute));
    BlockWeights weights(g, compute);
    weights.allocate_gradients();
    for (const auto& [name, w] : {std::pair{"first", &w1}, {"second", &w2}}) {
      const WeightView place = weights.weight(name);
      ASSERT_GT(place.stride, kWide);
      for (int64_t i = 0; i < kWide * kWide; ++i) {
        const int64_t at = i / kWide * place.stride + i % kWide;
        const float value = (*w)[static_cast<size_t>(i)];
        if (compute == DType::kBF16)
          static_cast<BF16*>(place.data)[at] = to_bf16(value);
        else
          static_cast<float*>(place.data)[at] = value;
      }
    }
    Program program(
        g,
        {.batch = 1, .seq_len = kRows, .compute = compute, .train = true, .input_gradient = true});
    std::copy(input.begin(), input.end(), program.input());
    program.forward(weights);
    std::copy(d_y.begin(), d_y.end(), program.output_gradient());
    // Four operands, each rounded by 2^-9 of itself; in f32 the sums are, by 2^-24 for each of 512
    // terms at most.
    const double eps = compute == DType::kBF16 ? 4 * 0x1p-9 : 512 * 0x1p-24;
    for (size_t i = 0; i < want_y.size(); ++i)
      ASSERT_NEAR(program.output()[i], want_y[i], eps * largest(want_y)) << i;
    program.backward(weights, false);
    for (size_t i = 0; i < want_d_x.size(); ++i)
      ASSERT_NEAR(program.input_gradient()[i], want_d_x[i], eps * largest(want_d_x)) << i;
    const float* d_w = gradient_of(weights.weight("second"));
    for (int64_t o = 0; o < kWide; ++o)
      for (int64_t j = 0; j < kWide; ++j) {
        double want = 0;
        for (int64_t t = 0; t < kRows; ++t)
          want += double(d_y[static_cast<size_t>(t * kWide + o)]) *
                  want_h[static_cast<size_t>(t * kWide + j)];
        ASSERT_NEAR(d_w[o * kWide + j], want, eps * largest(want_h) * kRows) << o << " " << j;
      }
  }
}

TEST(Program, GradientsOfMicroBatchesAddUp) {
  const Toy toy{.bias = true};
  ToyModel whole(toy, DType::kF32), parts(toy, DType::kF32);
  const auto x = testing::random_normal(4 * 3 * kHidden, 1),
             d_y = testing::random_normal(4 * 3 * kHidden, 2);
  const auto options = [](int64_t samples) {
    return ProgramOptions{.batch = samples,
                          .seq_len = 3,
                          .train = true,
                          .norm_gradients = true,
                          .bias_gradients = true};
  };
  Program big(whole.graph, options(4)), small(parts.graph, options(1));
  for (ToyModel* setup : {&whole, &parts}) {
    setup->weights.allocate_norm_gradients();
    setup->weights.allocate_bias_gradients();
  }
  std::copy(x.begin(), x.end(), big.input());
  big.forward(whole.weights);
  std::copy(d_y.begin(), d_y.end(), big.output_gradient());
  big.backward(whole.weights, false);
  for (int64_t b = 0; b < 4; ++b) {
    std::copy_n(x.begin() + b * 3 * kHidden, 3 * kHidden, small.input());
    small.forward(parts.weights);
    std::copy_n(d_y.begin() + b * 3 * kHidden, 3 * kHidden, small.output_gradient());
    small.backward(parts.weights, b > 0);
  }
  for (const auto& p : whole.graph.linear_params()) {
    const WeightView a = whole.weights.weight(p.name), b = parts.weights.weight(p.name);
    for (int64_t i = 0; i < p.out * p.in; ++i)
      EXPECT_NEAR(gradient_of(a)[i], gradient_of(b)[i], 1e-4) << p.name;
  }
  for (const auto& p : whole.graph.vector_params()) {
    const auto a = whole.weights.vector_gradient(p.name), b = parts.weights.vector_gradient(p.name);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4) << p.name;
  }
}

// bf16 products round each operand by 2^-9 of itself. Through the block's 7 layers that stays below
// 7 * 2 * 2^-9 of the largest value, which a wrong gradient is far from.
TEST(Program, Bf16ProductsStayNearF32) {
  for (const Toy& toy : kToys) {
    ToyModel exact(toy, DType::kF32), rounded(toy, DType::kBF16);
    const auto x = testing::random_normal(6 * kHidden, 1),
               d_y = testing::random_normal(6 * kHidden, 2);
    Program a(exact.graph, {.batch = 2, .seq_len = 3, .train = true}),
        b(rounded.graph, {.batch = 2, .seq_len = 3, .compute = DType::kBF16, .train = true});
    for (auto [program, setup] : {std::pair(&a, &exact), std::pair(&b, &rounded)}) {
      std::copy(x.begin(), x.end(), program->input());
      program->forward(setup->weights);
      std::copy(d_y.begin(), d_y.end(), program->output_gradient());
      program->backward(setup->weights, false);
    }
    for (const auto& p : exact.graph.linear_params()) {
      const WeightView u = exact.weights.weight(p.name), v = rounded.weights.weight(p.name);
      double scale = 0;
      for (int64_t i = 0; i < p.out * p.in; ++i)
        scale = std::max(scale, std::abs(double(gradient_of(u)[i])));
      for (int64_t i = 0; i < p.out * p.in; ++i)
        ASSERT_NEAR(gradient_of(u)[i], gradient_of(v)[i], 14.0 / 512 * scale) << p.name << " " << i;
    }
  }
}

// One layer's gradients are the products of rounded operands, and not the exact ones.
TEST(Program, Int8GradientsAreProductsOfRoundedOperands) {
  constexpr int64_t kRows = 6, kIn = 10, kOut = 7;
  Graph graph;
  graph.output(graph.linear(graph.input(kIn), {"w", kOut, kIn, false}));
  BlockWeights weights(graph, DType::kBF16);
  weights.allocate_gradients();
  const auto bf16 = [](std::vector<float>& values) {
    std::vector<BF16> narrow;
    for (float& v : values) narrow.push_back(to_bf16(v)), v = to_f32(narrow.back());
    return narrow;
  };
  auto x = testing::random_normal(kRows * kIn, 1), d_y = testing::random_normal(kRows * kOut, 2),
       w = testing::random_normal(kOut * kIn, 3);
  const auto x16 = bf16(x), d_y16 = bf16(d_y), w16 = bf16(w);
  const WeightView place = weights.weight("w");
  for (int64_t o = 0; o < kOut; ++o)
    std::copy_n(w16.data() + o * kIn, kIn, static_cast<BF16*>(place.data) + o * place.stride);
  Program program(graph, {.batch = 2,
                          .seq_len = 3,
                          .compute = DType::kBF16,
                          .train = true,
                          .input_gradient = true,
                          .int8_gradients = true});
  std::copy(x.begin(), x.end(), program.input());
  program.forward(weights);
  std::copy(d_y.begin(), d_y.end(), program.output_gradient());
  program.backward(weights, false);

  const auto product = [](MatmulSpec spec, const std::vector<BF16>& a, const std::vector<BF16>& b) {
    std::vector<float> c(static_cast<size_t>(spec.m * spec.n));
    spec.in = DType::kBF16;
    kernels::matmul_ref(spec)->run(a.data(), b.data(), nullptr, c.data());
    return c;
  };
  MatmulSpec of_w{
      .m = kOut, .n = kIn, .k = kRows, .trans_a = true, .lda = kOut, .ldb = kIn, .ldc = kIn},
      of_x{.m = kRows, .n = kIn, .k = kOut, .lda = kOut, .ldb = kIn, .ldc = kIn};
  const auto exact_w = product(of_w, d_y16, x16), exact_x = product(of_x, d_y16, w16);
  of_w.int8 = of_x.int8 = true;
  const auto want_w = product(of_w, d_y16, x16), want_x = product(of_x, d_y16, w16);
  double off_w = 0, off_x = 0;
  for (int64_t o = 0; o < kOut; ++o)
    for (int64_t i = 0; i < kIn; ++i) {
      const auto at = static_cast<size_t>(o * kIn + i);
      const float got = gradient_of(place)[o * place.gradient.stride + i];
      EXPECT_NEAR(got, want_w[at], 4 * 6e-8 * kRows * 25);  // as in matmul_test.cc
      off_w = std::max(off_w, std::fabs(double(got) - double(exact_w[at])));
    }
  for (size_t i = 0; i < want_x.size(); ++i) {
    EXPECT_NEAR(program.input_gradient()[i], want_x[i], 4 * 6e-8 * kOut * 25);
    off_x = std::max(off_x, std::fabs(double(want_x[i]) - double(exact_x[i])));
  }
  EXPECT_GT(off_w, 1e-3);
  EXPECT_GT(off_x, 1e-3);
}

TEST(Program, TokenByTokenWithACacheEqualsOnePass) {
  for (const Toy& toy : kToys) {
    ToyModel setup(toy, DType::kF32);
    const int64_t seq = 7;
    const auto x = testing::random_normal(seq * kHidden, 5);
    Program all(setup.graph, {.batch = 1, .seq_len = seq});
    std::copy(x.begin(), x.end(), all.input());
    all.forward(setup.weights);
    KvCache cache(setup.graph, seq);
    Program prompt(setup.graph, {.batch = 1, .seq_len = 3}),
        one(setup.graph, {.batch = 1, .seq_len = 1});
    for (int64_t t = 0; t < seq;) {
      Program& program = t == 0 ? prompt : one;
      std::copy_n(x.begin() + t * kHidden, program.rows() * kHidden, program.input());
      program.forward(setup.weights, &cache);
      for (int64_t i = 0; i < program.rows() * kHidden; ++i)
        EXPECT_NEAR(program.output()[i], all.output()[t * kHidden + i], 1e-5) << t;
      t += program.rows();
    }
    EXPECT_THROW(one.forward(setup.weights, &cache), Error);  // full
  }
}

TEST(Program, PlansLessThanTheSumOfItsBuffersAndSkipsUnwantedGradients) {
  const Graph graph = toy_block({});
  const int64_t forward = Program::bytes_needed(graph, {.batch = 8, .seq_len = 64});
  const int64_t train = Program::bytes_needed(graph, {.batch = 8, .seq_len = 64, .train = true});
  EXPECT_LT(forward, train);
  // Kernels keep at least what attention's backward pass asks for.
  const ProgramOptions how{.batch = 8, .seq_len = 64, .train = true};
  for (const Op& op : graph.ops())
    if (const auto* o = std::get_if<AttentionOp>(&op)) {
      EXPECT_GE(Program::workspace_bytes(graph, how),
                attention_scratch_bytes({.batch = 8,
                                         .q_len = 64,
                                         .kv_len = 64,
                                         .heads = o->spec.heads,
                                         .kv_heads = o->spec.kv_heads,
                                         .head_dim = o->spec.head_dim,
                                         .scale = o->spec.scale,
                                         .causal = true},
                                        true));
    }
  ToyModel setup({}, DType::kF32);
  Program program(
      setup.graph,
      {.batch = 1, .seq_len = 3, .train = true, .untuned = {"gate", "up", "down", "o"}});
  EXPECT_THROW(program.input_gradient(), Error);
  const auto x = testing::random_normal(3 * kHidden, 1);
  std::copy(x.begin(), x.end(), program.input());
  program.forward(setup.weights);
  std::copy(x.begin(), x.end(), program.output_gradient());
  program.backward(setup.weights, false);
  for (const char* name : {"gate", "up", "down", "o"})
    EXPECT_EQ(gradient_of(setup.weights.weight(name))[0], 0) << name;
  EXPECT_NE(gradient_of(setup.weights.weight("q"))[0], 0);
}

}  // namespace
}  // namespace signround
