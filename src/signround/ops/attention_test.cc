#include "signround/ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <functional>
#include <limits>
#include <ostream>
#include <string>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/device/device.h"
#include "signround/kernels/cpu/attention_ref.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/testing/complex_step.h"
#include "signround/testing/random.h"

namespace signround {

void PrintTo(const AttentionKernel& kernel, std::ostream* os) { *os << kernel.name; }

std::ostream& operator<<(std::ostream& os, const AttentionShape& s) {
  return os << "batch " << s.batch << " q_len " << s.q_len << " kv_len " << s.kv_len << " heads "
            << s.heads << "/" << s.kv_heads << " dim " << s.head_dim << " causal " << s.causal
            << " window " << s.window << " softcap " << s.softcap;
}

namespace {

using kernels::HeadRows;

constexpr double kEps = 0x1p-23;  // twice the error of one rounded f32 operation

AttentionShape make_shape(int64_t batch, int64_t q_len, int64_t kv_len, int64_t heads,
                          int64_t kv_heads, int64_t dim) {
  return {batch, q_len, kv_len, heads, kv_heads, dim, static_cast<float>(1 / std::sqrt(dim))};
}

// Rows of heads in T, `pad` values of which belong to nobody.
template <class T>
struct Rows {
  int64_t rows, cols, stride, dim;
  std::vector<T> values;

  Rows(int64_t tokens, int64_t heads, int64_t head_dim, int64_t pad = 0)
      : rows(tokens),
        cols(heads * head_dim),
        stride(cols + pad),
        dim(head_dim),
        values(static_cast<size_t>(rows * stride)) {}
  template <class From>
  explicit Rows(const Rows<From>& from) : Rows(from.rows, from.cols / from.dim, from.dim) {
    for (int64_t t = 0; t < rows; ++t)
      for (int64_t c = 0; c < cols; ++c) at(t, c) = T(from.at(t, c));
  }
  T& at(int64_t t, int64_t c) { return values[static_cast<size_t>(t * stride + c)]; }
  const T& at(int64_t t, int64_t c) const { return values[static_cast<size_t>(t * stride + c)]; }
  HeadRows<T> heads() { return {values.data(), stride, dim}; }
  HeadRows<const T> heads() const { return {values.data(), stride, dim}; }
  RowsIn in() const { return {values.data(), stride}; }
  RowsAny any() const {
    return {values.data(), std::is_same_v<T, BF16> ? DType::kBF16 : DType::kF32, stride};
  }
  RowsOut out() {
    return {values.data(), std::is_same_v<T, BF16> ? DType::kBF16 : DType::kF32, stride};
  }
};

Rows<float> random_rows(int64_t rows, int64_t heads, int64_t dim, int64_t pad, uint64_t seed,
                        double sigma = 1) {
  Rows<float> r(rows, heads, dim, pad);
  r.values = testing::random_normal(rows * r.stride, seed, sigma);
  return r;
}

template <class T>
struct Tensors {
  Rows<T> q, k, v, d_y;
};

Tensors<float> random_tensors(const AttentionShape& s, int64_t pad, double sigma = 1) {
  return {random_rows(s.batch * s.q_len, s.heads, s.head_dim, pad, 1, sigma),
          random_rows(s.batch * s.kv_len, s.kv_heads, s.head_dim, pad + 1, 2, sigma),
          random_rows(s.batch * s.kv_len, s.kv_heads, s.head_dim, pad + 2, 3),
          random_rows(s.batch * s.q_len, s.heads, s.head_dim, pad + 3, 4)};
}

// What the reference says, in double, and how far a sum in f32 may be from it.
struct Expected {
  Rows<double> y, d_q, d_k, d_v;
  Rows<double> y_tol, d_q_tol, d_k_tol, d_v_tol;
  std::vector<double> lse, lse_tol;
};

double dot(const double* a, const double* b, int64_t n, bool absolute = false) {
  double sum = 0;
  for (int64_t d = 0; d < n; ++d) sum += absolute ? std::abs(a[d] * b[d]) : a[d] * b[d];
  return sum;
}

// Worst-case error of f32 attention, first order, to be added up over all rows i and keys j:
//   score  e_s  = (D + 4) eps scale sum_d |q_d k_d|, + 8 eps softcap for a tanh of a few ulp
//   P      P*r, r = e_s_j + max e_s (through the sum) + eps (4 |s| + 4 |lse| + n + 8)
//   y      sum_j P_j |v_j| (r_j + n eps)
//   dP     e_p  = D eps sum_d |d_y_d v_d|,   row term: e_m = D eps sum_d |d_y_d y_d| + |d_y| .
//   y_tol dS     e_ds = slope P (r (|dP| + |m|) + e_p + e_m + 4 eps (|dP| + |m|)) + P (|dP| + |m|)
//   e_slope,
//          where the slope 1 - tanh^2 moves by e_slope = 2 e_s / softcap + 4 eps
//   d_q    scale sum_j |k_j| (e_ds + (n + 4) eps |dS|), d_k likewise over rows, d_v over P and d_y
// y_eps is the rounding of a stored bf16 y (2^-8) and 0 for f32.
//
// u is the rounding of what is multiplied, 2^-9 for bf16: each side of a product has it, so that a
// term x y moves by both = (1 + u)^2 - 1. It adds to e_s both scale sum |q_d k_d|, to e_p both sum
// |d_y_d v_d|, and to the terms of y, d_v, d_k and d_q both of themselves, on top of their own
// error. Inputs that are in bf16 already are not rounded: u_in = 0, and the weights alone have u.
// With u, r is no longer small against 1: P moves by e^r - 1. A kernel that rounds so may also be
// off by 2^-18 in 2^x, which moves P twice, once through the sum.
Expected expect(const AttentionShape& s, const Tensors<float>& f, double y_eps, double u,
                double u_in) {
  const double both = (1 + u) * (1 + u_in) - 1, both_in = (1 + u_in) * (1 + u_in) - 1;
  const double exp2_eps = u > 0 ? 2 * 0x1p-18 : 0;
  const Tensors<double> t{Rows<double>(f.q), Rows<double>(f.k), Rows<double>(f.v),
                          Rows<double>(f.d_y)};
  const int64_t dim = s.head_dim, n_sum = s.kv_len + s.q_len * s.group();
  const Rows<double> zero_q(s.batch * s.q_len, s.heads, dim),
      zero_k(s.batch * s.kv_len, s.kv_heads, dim);
  Expected e{zero_q, zero_q, zero_k, zero_k, zero_q, zero_q, zero_k, zero_k, {}, {}};
  e.lse.resize(size_t(s.batch * s.heads * s.q_len));
  e.lse_tol = e.lse;
  kernels::attention_fwd_ref<double>(s, t.q.heads(), t.k.heads(), t.v.heads(), e.y.heads(),
                                     e.lse.data());
  kernels::attention_bwd_ref<double>(s, t.q.heads(), t.k.heads(), t.v.heads(), e.lse.data(),
                                     t.d_y.heads(), e.d_q.heads(), e.d_k.heads(), e.d_v.heads());
  std::vector<double> score, slope, e_s;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.q_len; ++i) {
        const int64_t row = b * s.q_len + i, kv_row = b * s.kv_len + s.first_key(i),
                      g = h / s.group();
        const size_t flat = size_t((b * s.heads + h) * s.q_len + i);
        kernels::attention_scores_ref<double>(s, b, h, i, t.q.heads(), t.k.heads(), score, slope);
        const int64_t n = int64_t(score.size());
        const double *q = t.q.heads()(row, h), *d_y = t.d_y.heads()(row, h),
                     *y = e.y.heads()(row, h);
        double *y_tol = e.y_tol.heads()(row, h), *d_q_tol = e.d_q_tol.heads()(row, h);
        e_s.assign(score.size(), 0);
        double top = 0, top_score = 0;
        for (int64_t j = 0; j < n; ++j) {
          const double* k = t.k.heads()(kv_row + j, g);
          e_s[j] = (double(dim + 4) * kEps + both_in) * s.scale * dot(q, k, dim, true) +
                   8 * kEps * s.softcap;
          top = std::max(top, e_s[j]);
          top_score = std::max(top_score, std::abs(score[j]));
        }
        const double shared =
            top + kEps * (4 * top_score + 4 * std::abs(e.lse[flat]) + double(n) + 8) + exp2_eps;
        e.lse_tol[flat] = shared;
        for (int64_t j = 0; j < n; ++j) {
          const double* v = t.v.heads()(kv_row + j, g);
          const double r = std::expm1(e_s[j] + shared) + double(n) * kEps;
          for (int64_t d = 0; d < dim; ++d)
            y_tol[d] +=
                std::exp(score[j] - e.lse[flat]) * std::abs(v[d]) * ((1 + r) * (1 + both) - 1);
        }
        const double m = dot(d_y, y, dim);
        const double e_m =
            (double(dim) * kEps + y_eps) * dot(d_y, y, dim, true) + dot(d_y, y_tol, dim, true);
        for (int64_t j = 0; j < n; ++j) {
          const double *k = t.k.heads()(kv_row + j, g), *v = t.v.heads()(kv_row + j, g);
          double *d_k_tol = e.d_k_tol.heads()(kv_row + j, g),
                 *d_v_tol = e.d_v_tol.heads()(kv_row + j, g);
          const double p = std::exp(score[j] - e.lse[flat]), r = std::expm1(e_s[j] + shared);
          const double d_p = dot(d_y, v, dim), size = std::abs(d_p) + std::abs(m);
          const double e_p = (double(dim) * kEps + both_in) * dot(d_y, v, dim, true);
          const double e_slope = s.softcap > 0 ? 2 * e_s[j] / s.softcap + 4 * kEps : 0;
          const double e_ds = slope[j] * p * (r * size + (1 + r) * (e_p + e_m) + 4 * kEps * size) +
                              p * size * e_slope;
          const double d_s = std::abs(p * (d_p - m) * slope[j]);
          const double sum = double(n_sum + 4) * kEps * d_s + both * (d_s + e_ds);
          for (int64_t d = 0; d < dim; ++d) {
            d_q_tol[d] += s.scale * std::abs(k[d]) * (e_ds + sum);
            d_k_tol[d] += s.scale * std::abs(q[d]) * (e_ds + sum);
            d_v_tol[d] +=
                std::abs(d_y[d]) * p * ((1 + r) * (1 + both) - 1 + double(n_sum + 4) * kEps);
          }
        }
      }
  return e;
}
Expected expect(const AttentionShape& s, const Tensors<float>& f, double y_eps = 0, double u = 0) {
  return expect(s, f, y_eps, u, u);
}

float as_f32(float v) { return v; }
float as_f32(BF16 v) { return to_f32(v); }

// out_eps: rounding of the output's type.
template <class T>
void expect_near(const char* name, const Rows<T>& got, const Rows<double>& want,
                 const Rows<double>& tol, double out_eps = 0) {
  for (int64_t t = 0; t < want.rows; ++t)
    for (int64_t c = 0; c < want.cols; ++c)
      ASSERT_NEAR(as_f32(got.at(t, c)), want.at(t, c),
                  (1 + out_eps) * tol.at(t, c) + out_eps * std::abs(want.at(t, c)) + 1e-30)
          << name << " row " << t << " column " << c;
}

template <class Out>
struct Result {
  Rows<Out> y, d_q, d_k, d_v;
  std::vector<float> lse;
};

template <class Out, class In>
Result<Out> run(const AttentionKernel& kernel, const AttentionShape& s, const Tensors<In>& t,
                int64_t pad) {
  Rows<Out> like_q(s.batch * s.q_len, s.heads, s.head_dim, pad),
      like_k(s.batch * s.kv_len, s.kv_heads, s.head_dim, pad);
  for (auto* rows : {&like_q, &like_k}) {  // whatever lies in the gaps must stay
    if constexpr (std::is_same_v<Out, float>)
      std::fill(rows->values.begin(), rows->values.end(), 77.0f);
    else
      std::fill(rows->values.begin(), rows->values.end(), to_bf16(77.0f));
  }
  Result<Out> r{like_q, like_q, like_k, like_k,
                std::vector<float>(size_t(s.batch * s.heads * s.q_len), 77.0f)};
  Buffer scratch(std::max(kernel.scratch_bytes(s, false), kernel.scratch_bytes(s, true)));
  kernel.fwd(s, t.q.any(), t.k.any(), t.v.any(), r.y.out(), r.lse.data(), scratch.data());
  kernel.bwd(s, t.q.any(), t.k.any(), t.v.any(), r.y.any(), r.lse.data(), t.d_y.any(), r.d_q.out(),
             r.d_k.out(), r.d_v.out(), scratch.data());
  for (const Rows<Out>* rows : {&r.y, &r.d_q, &r.d_k, &r.d_v})
    for (int64_t t0 = 0; t0 < rows->rows; ++t0)
      for (int64_t c = rows->cols; c < rows->stride; ++c)
        EXPECT_EQ(as_f32(rows->at(t0, c)), 77.0f) << "wrote between two rows";
  return r;
}

// Rounds the tensors and returns them in bf16 as well, pad values between rows.
Tensors<BF16> rounded(Tensors<float>& wide, int64_t pad) {
  const auto round = [&](Rows<float>& from) {
    Rows<BF16> to(from.rows, from.cols / from.dim, from.dim, pad);
    for (int64_t t = 0; t < from.rows; ++t)
      for (int64_t c = 0; c < from.cols; ++c) {
        to.at(t, c) = to_bf16(from.at(t, c));
        from.at(t, c) = to_f32(to.at(t, c));
      }
    return to;
  };
  return {round(wide.q), round(wide.k), round(wide.v), round(wide.d_y)};
}

// What is read in bf16 gives the bits of f32 rows that hold the same values. pad: values between
// the bf16 rows.
void expect_type_of_inputs_means_nothing(const AttentionKernel& kernel, const AttentionShape& s,
                                         int64_t pad = 5) {
  Tensors<float> wide = random_tensors(s, 3);
  const Tensors<BF16> narrow = rounded(wide, pad);
  const Result<float> want = run<float>(kernel, s, wide, 0), got = run<float>(kernel, s, narrow, 0);
  EXPECT_EQ(got.lse, want.lse);
  EXPECT_EQ(got.y.values, want.y.values);
  EXPECT_EQ(got.d_q.values, want.d_q.values);
  EXPECT_EQ(got.d_k.values, want.d_k.values);
  EXPECT_EQ(got.d_v.values, want.d_v.values);
}

template <class Out>
constexpr double kOutEps = std::is_same_v<Out, BF16> ? 0x1p-8 : 0;

template <class Out>
void check(const Result<Out>& got, const Expected& want) {
  for (size_t i = 0; i < want.lse.size(); ++i)
    ASSERT_NEAR(got.lse[i], want.lse[i], want.lse_tol[i]) << "lse " << i;
  expect_near("y", got.y, want.y, want.y_tol, kOutEps<Out>);
  expect_near("d_q", got.d_q, want.d_q, want.d_q_tol, kOutEps<Out>);
  expect_near("d_k", got.d_k, want.d_k, want.d_k_tol, kOutEps<Out>);
  expect_near("d_v", got.d_v, want.d_v, want.d_v_tol, kOutEps<Out>);
}

// The reference: backward against complex steps through the forward pass.
TEST(AttentionReference, BackwardMatchesComplexStep) {
  using C = std::complex<double>;
  for (int variant = 0; variant < 5; ++variant) {
    AttentionShape s = make_shape(2, variant == 4 ? 3 : 5, 5, 2, 1, 8);
    s.causal = variant != 0;
    s.window = variant == 2 ? 2 : 0;
    s.softcap = variant == 3 ? 1.5f : 0;
    SCOPED_TRACE(::testing::PrintToString(variant));
    const Tensors<float> f = random_tensors(s, 0);
    Tensors<C> t{Rows<C>(f.q), Rows<C>(f.k), Rows<C>(f.v), Rows<C>(f.d_y)};
    Rows<C> y(t.q);
    std::vector<C> lse(size_t(s.batch * s.heads * s.q_len));
    const auto loss = [&] {
      kernels::attention_fwd_ref<C>(s, t.q.heads(), t.k.heads(), t.v.heads(), y.heads(),
                                    lse.data());
      C sum{};
      for (size_t i = 0; i < y.values.size(); ++i) sum += y.values[i] * t.d_y.values[i];
      return sum;
    };
    const Expected e = expect(s, f);
    const auto compare = [&](const char* name, Rows<C>& x, const Rows<double>& got) {
      const auto want = testing::complex_step_grad({x.values.data(), x.rows, x.cols}, loss);
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(got.values[i], want[i], 1e-12) << name << " at " << i;
    };
    compare("d_q", t.q, e.d_q);
    compare("d_k", t.k, e.d_k);
    compare("d_v", t.v, e.d_v);
  }
}

// The kernels of a GPU as rows of a table. They read the host's memory: an emulated GPU does, and
// a real one in programs of testing/pinned_memory.cc.
AttentionShape as_on_cuda(AttentionShape s, bool bf16_products) {
  s.bf16_products = bf16_products;
  return s;
}
template <bool kBf16>
constexpr AttentionKernel kCuda = {
    "cuda",
    [] { return why_no_cuda(); },
    [](const AttentionShape&) { return true; },
    [](const AttentionShape& s, bool backward) {
      return kernels::cuda::attention_scratch_bytes(as_on_cuda(s, kBf16), backward);
    },
    [](const AttentionShape& s, RowsAny q, RowsAny k, RowsAny v, RowsOut y, float* lse, void*) {
      const DeviceScope scope({Device::Kind::kCuda, 0});
      set_blocking_launches(true);
      const AttentionShape shape = as_on_cuda(s, kBf16);
      Buffer scratch(kernels::cuda::attention_scratch_bytes(shape, false), current_device());
      kernels::cuda::attention_fwd(shape, q, k, v, y, lse, scratch.data());
    },
    [](const AttentionShape& s, RowsAny q, RowsAny k, RowsAny v, RowsAny y, const float* lse,
       RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v, void*) {
      const DeviceScope scope({Device::Kind::kCuda, 0});
      set_blocking_launches(true);
      const AttentionShape shape = as_on_cuda(s, kBf16);
      Buffer scratch(kernels::cuda::attention_scratch_bytes(shape, true), current_device());
      kernels::cuda::attention_bwd(shape, q, k, v, y, lse, d_y, d_q, d_k, d_v, scratch.data());
    }};

template <bool kBf16>
std::vector<AttentionKernel> all_kernels() {
  const auto table = attention_kernels(kBf16);
  std::vector<AttentionKernel> all(table.begin(), table.end());
  if (why_no_cuda() == nullptr) all.push_back(kCuda<kBf16>);
  return all;
}

class Attention : public ::testing::TestWithParam<AttentionKernel> {
 protected:
  // Threads have a test of their own; the others are about arithmetic.
  void SetUp() override { set_num_threads(1); }
  void TearDown() override { set_num_threads(0); }

  // The scalar reference and a GPU have one form; all else is checked on each instruction set.
  static void on_every_target(const std::function<void(const AttentionKernel&)>& body) {
    if (GetParam().name == "ref" || GetParam().name == "cuda") return body(GetParam());
    int targets = 0;
    for_each_hwy_target([&](const char* target) {
      SCOPED_TRACE(target);
      body(GetParam());
      ++targets;
    });
    EXPECT_GT(targets, 0);
  }

  template <class Out>
  static void check_everywhere(const AttentionShape& s, int64_t in_pad, int64_t out_pad) {
    SCOPED_TRACE(::testing::Message() << s);
    const Tensors<float> t = random_tensors(s, in_pad);
    const Expected want = expect(s, t, kOutEps<Out>);
    on_every_target([&](const AttentionKernel& kernel) {
      if (!HasFatalFailure()) check(run<Out>(kernel, s, t, out_pad), want);
    });
  }
};

// Gradients that are not wanted are not written; the others do not depend on what is wanted.
void expect_only_wanted_gradients(const AttentionKernel& kernel, const AttentionShape& s,
                                  const Tensors<float>& t) {
  const Result<float> all = run<float>(kernel, s, t, 0);
  Buffer scratch(kernel.scratch_bytes(s, true));
  for (int wanted = 0; wanted < 8; ++wanted) {
    Result<float> r = all;
    for (Rows<float>* rows : {&r.d_q, &r.d_k, &r.d_v})
      std::fill(rows->values.begin(), rows->values.end(), 0.0f);
    kernel.bwd(s, t.q.in(), t.k.in(), t.v.in(), {r.y.values.data(), DType::kF32, r.y.stride},
               r.lse.data(), t.d_y.in(), wanted & 1 ? r.d_q.out() : RowsOut{},
               wanted & 2 ? r.d_k.out() : RowsOut{}, wanted & 4 ? r.d_v.out() : RowsOut{},
               scratch.data());
    EXPECT_EQ(r.d_q.values == all.d_q.values, (wanted & 1) != 0);
    EXPECT_EQ(r.d_k.values == all.d_k.values, (wanted & 2) != 0);
    EXPECT_EQ(r.d_v.values == all.d_v.values, (wanted & 4) != 0);
  }
}

TEST_P(Attention, MatchesTheReferenceForAllSmallLengths) {
  std::vector<int64_t> lengths = {63, 64, 65, 127, 128, 129, 130};
  for (int64_t n = 1; n < 10; ++n) lengths.push_back(n);
  for (int64_t n : lengths) {
    AttentionShape s = make_shape(1, n, n, 3, 1, n % 2 == 0 ? 16 : 24);
    s.causal = n % 3 != 0;
    check_everywhere<float>(s, n % 4, n % 5);
  }
}

TEST_P(Attention, MatchesTheReferenceForAllMasksAndGroups) {
  for (int64_t group : {1, 3, 8})
    for (int64_t q_len : {1, 2, 17, 70})
      for (int64_t window : {0, 1, 5, 40, 100})
        for (float softcap : {0.0f, 2.0f}) {
          if (softcap > 0 && window % 2 != 0) continue;
          AttentionShape s = make_shape(2, q_len, 75, 2 * group, 2, 8);
          s.window = window;
          s.softcap = softcap;
          check_everywhere<float>(s, 0, 0);
        }
}

TEST_P(Attention, MatchesTheReferenceForAllHeadDims) {
  for (int64_t dim : {1, 7, 8, 40, 64, 72, 80, 96, 112, 128, 192, 256})
    check_everywhere<float>(make_shape(1, 50, 70, 2, 1, dim), 16, 3);
}

TEST_P(Attention, RoundsBf16OutputsOnce) {
  for (int64_t dim : {24, 64}) {
    const AttentionShape s = make_shape(2, 33, 40, 4, 2, dim);
    check_everywhere<BF16>(s, 0, 5);
    const Tensors<float> t = random_tensors(s, 0);
    on_every_target([&](const AttentionKernel& kernel) {
      const Result<float> wide = run<float>(kernel, s, t, 0);
      const Result<BF16> narrow = run<BF16>(kernel, s, t, 0);
      for (size_t i = 0; i < wide.y.values.size(); ++i)
        ASSERT_EQ(narrow.y.values[i].bits, to_bf16(wide.y.values[i]).bits) << i;
    });
  }
}

// More threads than kv heads: rows are cut into parts, and for generation keys into chunks.
TEST_P(Attention, EveryThreadCountIsRightAndGivesTheSameBitsEveryTime) {
  AttentionShape windowed = make_shape(1, 2, 1500, 6, 2, 16);
  windowed.window = 600;
  for (const AttentionShape& s :
       {make_shape(1, 150, 150, 6, 2, 32), make_shape(1, 1, 1500, 6, 2, 16), windowed}) {
    const Tensors<float> t = random_tensors(s, 0);
    const Expected want = expect(s, t);
    for (int threads : {1, 2, 5}) {
      SCOPED_TRACE(::testing::Message() << s << " threads " << threads);
      set_num_threads(threads);
      const Result<float> first = run<float>(GetParam(), s, t, 0);
      const Result<float> again = run<float>(GetParam(), s, t, 0);
      EXPECT_EQ(first.y.values, again.y.values);
      EXPECT_EQ(first.lse, again.lse);
      EXPECT_EQ(first.d_q.values, again.d_q.values);
      EXPECT_EQ(first.d_k.values, again.d_k.values);
      EXPECT_EQ(first.d_v.values, again.d_v.values);
      check(first, want);
    }
  }
}

// Two keys with scores 0 and -x, values 0 and 1: y = e^-x / (1 + e^-x). Relative to that, the
// exponent is rounded twice (x eps in all), 2^x is below 1 ulp off (eps), and the sum, its inverse
// and the product with it are rounded (3 eps / 2).
TEST_P(Attention, WeightsAreWithinAFewRoundings) {
  AttentionShape s = make_shape(2000, 1, 2, 1, 1, 1);
  Tensors<float> t = random_tensors(s, 0);
  for (int64_t b = 0; b < s.batch; ++b) {
    t.q.at(b, 0) = 1;
    t.k.at(2 * b, 0) = 0;
    t.k.at(2 * b + 1, 0) = -0.0015f * static_cast<float>(b);
    t.v.at(2 * b, 0) = 0;
    t.v.at(2 * b + 1, 0) = 1;
  }
  on_every_target([&](const AttentionKernel& kernel) {
    const Result<float> r = run<float>(kernel, s, t, 0);
    for (int64_t b = 0; b < s.batch; ++b) {
      const double x = -double(t.k.at(2 * b + 1, 0)), want = 1 / (1 + std::exp(x));
      ASSERT_NEAR(r.y.at(b, 0), want, want * kEps * (x + 2.5)) << "x " << x;
    }
  });
}

TEST_P(Attention, HugeAndTinyScoresGiveFiniteResults) {
  on_every_target([](const AttentionKernel& kernel) {
    for (double sigma : {1e-15, 1e4, 1e15}) {  // scores of 1e-30 to 1e30
      for (float softcap : {0.0f, 30.0f}) {
        AttentionShape s = make_shape(1, 40, 90, 2, 1, 16);
        s.softcap = softcap;
        const Tensors<float> t = random_tensors(s, 0, sigma);
        const Result<float> r = run<float>(kernel, s, t, 0);
        for (const Rows<float>* rows : {&r.y, &r.d_v})
          for (float v : rows->values)
            ASSERT_TRUE(std::isfinite(v) && std::abs(v) < 1e3) << "sigma " << sigma;
        for (const Rows<float>* rows : {&r.d_q, &r.d_k})
          for (float v : rows->values) ASSERT_TRUE(std::isfinite(v)) << "sigma " << sigma;
        for (float v : r.lse) ASSERT_TRUE(std::isfinite(v));
      }
    }
  });
}

// Generation: where keys are split among blocks, all types of rows, the last piece not whole.
TEST_P(Attention, MatchesTheReferenceForFewQueriesOfManyKeys) {
  struct Case {
    int64_t batch, q_len, kv_len, heads, kv_heads, dim, window;
    float softcap;
  };
  for (const Case& c : std::vector<Case>{{1, 1, 256, 4, 1, 16, 0, 0},
                                         {1, 1, 257, 4, 1, 16, 0, 0},
                                         {2, 1, 700, 2, 2, 64, 0, 2},
                                         {1, 1, 1100, 8, 1, 128, 0, 0},
                                         {1, 2, 1000, 6, 2, 128, 300, 0},
                                         {1, 8, 321, 4, 2, 24, 0, 0},
                                         {1, 3, 400, 3, 1, 80, 5, 0},
                                         {1, 8, 300, 2, 1, 32, 290, 1},
                                         {1, 1, 300, 16, 1, 256, 0, 0},
                                         {1, 5, 290, 2, 1, 200, 0, 0},
                                         {1, 1, 4500, 1, 1, 7, 0, 0}}) {
    AttentionShape s = make_shape(c.batch, c.q_len, c.kv_len, c.heads, c.kv_heads, c.dim);
    s.window = c.window;
    s.softcap = c.softcap;
    SCOPED_TRACE(::testing::Message() << s);
    Tensors<float> wide = random_tensors(s, 1);
    const Tensors<BF16> aligned = rounded(wide, 8), other = rounded(wide, 3);
    const Expected want = expect(s, wide), want16 = expect(s, wide, kOutEps<BF16>);
    on_every_target([&](const AttentionKernel& kernel) {
      if (!HasFatalFailure()) check(run<float>(kernel, s, wide, 1), want);
      if (!HasFatalFailure()) check(run<float>(kernel, s, aligned, 0), want);
      if (!HasFatalFailure()) check(run<BF16>(kernel, s, other, 3), want16);
    });
  }
}

TEST_P(Attention, RowWithOneKeyCopiesItsValue) {
  on_every_target([](const AttentionKernel& kernel) {
    AttentionShape s = make_shape(1, 20, 20, 2, 2, 16);
    s.window = 1;
    const Tensors<float> t = random_tensors(s, 0, 100);
    const Result<float> r = run<float>(kernel, s, t, 0);
    for (int64_t i = 0; i < 20; ++i)
      for (int64_t c = 0; c < 32; ++c) ASSERT_EQ(r.y.at(i, c), t.v.at(i, c)) << i;
  });
}

TEST_P(Attention, NanReachesEveryRowThatSeesIt) {
  on_every_target([](const AttentionKernel& kernel) {
    const AttentionShape s = make_shape(1, 70, 70, 1, 1, 16);
    Tensors<float> t = random_tensors(s, 0);
    t.k.at(30, 3) = std::numeric_limits<float>::quiet_NaN();
    const Result<float> r = run<float>(kernel, s, t, 0);
    for (int64_t i = 0; i < 70; ++i)
      for (int64_t c = 0; c < 16; ++c) {
        ASSERT_EQ(std::isnan(r.y.at(i, c)), i >= 30) << i;
        ASSERT_TRUE(i < 30 || std::isnan(r.d_q.at(i, c))) << i;
      }
  });
}

TEST_P(Attention, AGradientThatIsNotWantedChangesNoOther) {
  on_every_target([](const AttentionKernel& kernel) {
    const AttentionShape s = make_shape(2, 30, 66, 4, 2, 16);
    const Tensors<float> t = random_tensors(s, 0);
    expect_only_wanted_gradients(kernel, s, t);
  });
}

TEST_P(Attention, KeysThatNoQuerySeesGetZeroGradients) {
  on_every_target([](const AttentionKernel& kernel) {
    AttentionShape s = make_shape(1, 3, 200, 1, 1, 8);
    s.window = 4;
    const Result<float> r = run<float>(kernel, s, random_tensors(s, 0), 0);
    for (int64_t j = 0; j < 200; ++j)
      for (int64_t c = 0; c < 8; ++c) {
        ASSERT_EQ(r.d_k.at(j, c) != 0, j >= 194) << j;
        ASSERT_EQ(r.d_v.at(j, c) != 0, j >= 194) << j;
      }
  });
}

TEST_P(Attention, TheTypeOfInputsMeansNothing) {
  on_every_target([](const AttentionKernel& kernel) {
    for (int64_t dim : {7, 16, 24}) {
      expect_type_of_inputs_means_nothing(kernel, make_shape(2, 50, 70, 4, 2, dim));
      expect_type_of_inputs_means_nothing(kernel, make_shape(1, 1, 90, 2, 1, dim));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Kernels, Attention, ::testing::ValuesIn(all_kernels<false>()),
                         [](const auto& row) { return std::string(row.param.name); });

// Products that round their inputs to bf16: every kernel that is allowed to, and can run here.
class Bf16Attention : public ::testing::Test {
 protected:
  void SetUp() override { set_num_threads(1); }
  void TearDown() override { set_num_threads(0); }

  static void on_every_kernel(const AttentionShape& s,
                              const std::function<void(const AttentionKernel&)>& body) {
    for (const AttentionKernel& kernel : all_kernels<true>()) {
      if (kernel.why_not() != nullptr || !kernel.fits(s)) continue;
      SCOPED_TRACE(std::string(kernel.name));
      body(kernel);
    }
  }

  template <class Out>
  static void check_everywhere(const AttentionShape& s, int64_t in_pad, int64_t out_pad) {
    SCOPED_TRACE(::testing::Message() << s);
    const Tensors<float> t = random_tensors(s, in_pad);
    const Expected want = expect(s, t, kOutEps<Out>, 0x1p-9);
    on_every_kernel(s, [&](const AttentionKernel& kernel) {
      if (!HasFatalFailure()) check(run<Out>(kernel, s, t, out_pad), want);
    });
  }
};

TEST_F(Bf16Attention, MatchesTheReferenceForAllSmallLengths) {
  std::vector<int64_t> lengths = {63, 64, 65, 95, 96, 97, 127, 128, 129, 257, 300};
  for (int64_t n = 11; n < 40; ++n) lengths.push_back(n);
  for (int64_t n : lengths) {
    AttentionShape s = make_shape(1, n, n, 3, 1, 32);
    s.causal = n % 3 != 0;
    check_everywhere<float>(s, n % 4, n % 5);
  }
}

TEST_F(Bf16Attention, MatchesTheReferenceForAllMasksAndGroups) {
  for (int64_t group : {1, 3, 8})
    for (int64_t q_len : {4, 32, 43, 70})
      for (int64_t window : {0, 1, 5, 40, 100}) {
        AttentionShape s = make_shape(2, q_len, 135, 2 * group, 2, 32);
        s.window = window;
        check_everywhere<float>(s, 0, 0);
      }
}

// Weights alone are rounded, by at most 2^-8, so that the bounds are several times tighter. Tiles
// of 32, 64 and 128 rows end inside and at the end of these lengths, windows within a tile and
// behind it.
TEST_F(Bf16Attention, MatchesTheReferenceForBf16Inputs) {
  struct Case {
    int64_t batch, q_len, kv_len, heads, kv_heads, dim, window;
    float softcap;
    bool causal;
  };
  for (const Case& c : std::vector<Case>{{1, 128, 128, 2, 2, 128, 0, 0, true},
                                         {2, 70, 135, 4, 2, 128, 0, 0, true},
                                         {1, 129, 129, 3, 1, 128, 40, 2, true},
                                         {1, 192, 257, 2, 1, 64, 100, 0, true},
                                         {2, 257, 257, 2, 1, 64, 0, 20, true},
                                         {1, 100, 90, 4, 1, 64, 0, 0, false},
                                         {1, 150, 170, 2, 1, 96, 33, 0, true},
                                         {1, 65, 97, 2, 1, 96, 0, 5, false},
                                         {1, 90, 90, 2, 1, 80, 0, 0, true},
                                         {1, 60, 61, 2, 2, 48, 1, 0, true},
                                         {1, 33, 40, 2, 1, 16, 0, 1, true},
                                         {3, 16, 300, 8, 2, 112, 64, 0, true},
                                         {1, 300, 300, 2, 1, 32, 130, 0, true}}) {
    AttentionShape s = make_shape(c.batch, c.q_len, c.kv_len, c.heads, c.kv_heads, c.dim);
    s.window = c.window;
    s.softcap = c.softcap;
    s.causal = c.causal;
    SCOPED_TRACE(::testing::Message() << s);
    Tensors<float> wide = random_tensors(s, 0);
    const Tensors<BF16> narrow = rounded(wide, 8);
    const Expected want = expect(s, wide, 0, 0x1p-8, 0),
                   want16 = expect(s, wide, 0x1p-8, 0x1p-8, 0);
    on_every_kernel(s, [&](const AttentionKernel& kernel) {
      if (!HasFatalFailure()) check(run<float>(kernel, s, narrow, 0), want);
      if (!HasFatalFailure()) check(run<BF16>(kernel, s, narrow, 2), want16);
    });
  }
}

// Keys are cut into blocks, the last of which is not whole.
TEST_F(Bf16Attention, MatchesTheReferenceForManyKeys) {
  for (int64_t kv_len : {255, 256, 257, 511, 513, 1100, 2048})
    for (int64_t window : {0, 40, 300}) {
      AttentionShape s = make_shape(1, 150, kv_len, 2, 1, 32);
      s.window = window;
      check_everywhere<float>(s, 0, 0);
    }
  AttentionShape all = make_shape(1, 40, 1100, 2, 1, 32);
  all.causal = false;
  check_everywhere<float>(all, 0, 0);
}

TEST_F(Bf16Attention, MatchesTheReferenceForAllHeadDims) {
  for (int64_t dim : {32, 64, 96, 128, 160, 256}) {
    check_everywhere<float>(make_shape(1, 50, 70, 2, 1, dim), 16, 3);
    check_everywhere<BF16>(make_shape(1, 50, 70, 2, 1, dim), 1, 5);
  }
}

TEST_F(Bf16Attention, EveryThreadCountIsRightAndGivesTheSameBitsEveryTime) {
  const AttentionShape s = make_shape(1, 150, 170, 6, 2, 32);
  const Tensors<float> t = random_tensors(s, 0);
  const Expected want = expect(s, t, 0, 0x1p-9);
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    on_every_kernel(s, [&](const AttentionKernel& kernel) {
      const Result<float> first = run<float>(kernel, s, t, 0);
      const Result<float> again = run<float>(kernel, s, t, 0);
      EXPECT_EQ(first.y.values, again.y.values);
      EXPECT_EQ(first.d_q.values, again.d_q.values);
      EXPECT_EQ(first.d_k.values, again.d_k.values);
      EXPECT_EQ(first.d_v.values, again.d_v.values);
      check(first, want);
    });
  }
}

TEST_F(Bf16Attention, HugeAndTinyScoresGiveFiniteResults) {
  for (double sigma : {1e-15, 1e4, 1e15}) {
    const AttentionShape s = make_shape(1, 40, 90, 2, 1, 32);
    const Tensors<float> t = random_tensors(s, 0, sigma);
    on_every_kernel(s, [&](const AttentionKernel& kernel) {
      const Result<float> r = run<float>(kernel, s, t, 0);
      for (const Rows<float>* rows : {&r.y, &r.d_v, &r.d_q, &r.d_k})
        for (float v : rows->values) ASSERT_TRUE(std::isfinite(v)) << "sigma " << sigma;
      for (float v : r.lse) ASSERT_TRUE(std::isfinite(v));
    });
  }
}

TEST_F(Bf16Attention, NanReachesEveryRowThatSeesIt) {
  const AttentionShape s = make_shape(1, 70, 70, 1, 1, 32);
  Tensors<float> t = random_tensors(s, 0);
  t.k.at(30, 3) = std::numeric_limits<float>::quiet_NaN();
  on_every_kernel(s, [&](const AttentionKernel& kernel) {
    const Result<float> r = run<float>(kernel, s, t, 0);
    for (int64_t i = 0; i < 70; ++i)
      for (int64_t c = 0; c < 32; ++c) {
        ASSERT_EQ(std::isnan(r.y.at(i, c)), i >= 30) << i;
        ASSERT_TRUE(i < 30 || std::isnan(r.d_q.at(i, c))) << i;
      }
  });
}

TEST_F(Bf16Attention, TheTypeOfInputsMeansNothing) {
  for (int64_t dim : {32, 96}) {
    const AttentionShape s = make_shape(2, 45, 70, 6, 2, dim);
    on_every_kernel(s, [&](const AttentionKernel& kernel) {
      expect_type_of_inputs_means_nothing(kernel, s);
      expect_type_of_inputs_means_nothing(kernel, s, 8);  // rows of whole 16 bytes
    });
  }
}

TEST_F(Bf16Attention, AGradientThatIsNotWantedChangesNoOther) {
  const AttentionShape s = make_shape(2, 30, 66, 4, 2, 32);
  const Tensors<float> t = random_tensors(s, 0);
  on_every_kernel(s, [&](const AttentionKernel& kernel) {
    expect_only_wanted_gradients(kernel, s, t);
  });
}

TEST_F(Bf16Attention, KeysThatNoQuerySeesGetZeroGradients) {
  AttentionShape s = make_shape(1, 32, 200, 1, 1, 32);
  s.window = 4;
  on_every_kernel(s, [&](const AttentionKernel& kernel) {
    const Result<float> r = run<float>(kernel, s, random_tensors(s, 0), 0);
    for (int64_t j = 0; j < 200; ++j)
      for (int64_t c = 0; c < 32; ++c) {
        ASSERT_EQ(r.d_k.at(j, c) != 0, j >= 165) << j;
        ASSERT_EQ(r.d_v.at(j, c) != 0, j >= 165) << j;
      }
  });
}

TEST(AttentionOp, RoundsToBf16OnlyWhereAllowed) {
  if (!forced_kernel().empty()) return;
  AttentionShape s = make_shape(1, 40, 40, 2, 1, 32);
  const auto bf16 = attention_kernels(true);
  const AttentionKernel& best = *std::find_if(
      bf16.begin(), bf16.end(), [](const AttentionKernel& k) { return k.why_not() == nullptr; });
  const AttentionKernel& exact = attention_kernels().front();
  EXPECT_TRUE(exact.name == "hwy" || exact.name == "ref") << exact.name;
  EXPECT_EQ(attention_scratch_bytes(s, true), exact.scratch_bytes(s, true));
  s.bf16_products = true;
  EXPECT_EQ(attention_scratch_bytes(s, true), best.scratch_bytes(s, true));
  for (const auto& spoil : std::vector<std::function<void(AttentionShape&)>>{
           [](AttentionShape& x) { x.softcap = 5; }, [](AttentionShape& x) { x.head_dim = 40; },
           [](AttentionShape& x) { x.q_len = 2; }}) {
    AttentionShape other = s;
    spoil(other);
    EXPECT_FALSE(best.fits(other));
    EXPECT_EQ(attention_scratch_bytes(other, true), exact.scratch_bytes(other, true));
  }
}

TEST(AttentionOp, RunsTheForcedKernelAndElseTheFirst) {
  const AttentionShape s = make_shape(1, 4, 4, 1, 1, 8);
  const std::string_view forced = forced_kernel();
  const AttentionKernel& first = attention_kernels().front();
  const AttentionKernel& want = forced == "ref" ? attention_kernels().back() : first;
  EXPECT_EQ(attention_scratch_bytes(s, true), want.scratch_bytes(s, true));
  const Tensors<float> t = random_tensors(s, 0);
  const Result<float> r = run<float>(want, s, t, 0);
  Rows<float> y(4, 1, 8), d_q = y, d_k = y, d_v = y;
  std::vector<float> lse(4);
  attention_fwd(s, t.q.in(), t.k.in(), t.v.in(), y.out(), lse.data());
  attention_bwd(s, t.q.in(), t.k.in(), t.v.in(), {y.values.data(), DType::kF32, 8}, lse.data(),
                t.d_y.in(), d_q.out(), d_k.out(), d_v.out());
  EXPECT_EQ(y.values, r.y.values);
  EXPECT_EQ(d_k.values, r.d_k.values);
}

TEST(AttentionOp, SaysWhatIsWrongWithItsArguments) {
  const AttentionShape good = make_shape(1, 4, 4, 2, 1, 8);
  const Tensors<float> t = random_tensors(good, 0);
  Rows<float> y(4, 2, 8);
  const auto message =
      [&](const std::function<void(AttentionShape&, RowsAny&, RowsOut&)>& spoil) -> std::string {
    AttentionShape s = good;
    RowsAny q = t.q.in();
    RowsOut out = y.out();
    spoil(s, q, out);
    try {
      attention_fwd(s, q, t.k.in(), t.v.in(), out, nullptr);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message([](auto&, auto&, auto&) {}), "no error");
  EXPECT_EQ(message([](auto& s, auto&, auto&) { s.heads = 3, s.kv_heads = 2; }),
            "[attention] there are 3 query heads, expected a multiple of the 2 kv heads");
  EXPECT_EQ(message([](auto& s, auto&, auto&) { s.q_len = 5; }),
            "[attention] there are 5 queries, expected at most the 4 keys of a causal mask");
  EXPECT_EQ(message([](auto& s, auto&, auto&) { s.causal = false, s.window = 2; }),
            "[attention] the window is 2, expected 0 without a causal mask");
  EXPECT_EQ(message([](auto& s, auto&, auto&) { s.kv_len = 0; }),
            "[attention] a size is 0, expected 1 to 2^31");
  EXPECT_EQ(message([](auto& s, auto&, auto&) { s.scale = std::nanf(""); }),
            "[attention] the scale is nan, expected a positive number");
  EXPECT_EQ(message([](auto&, auto& q, auto&) { q.stride = 15; }),
            "[attention] rows of q are 15 values apart, expected at least 16");
  EXPECT_EQ(message([](auto&, auto& q, auto&) { q.dtype = DType::kF16; }),
            "[attention] q is F16, expected F32 or BF16");
  EXPECT_EQ(message([](auto&, auto&, auto& out) { out.dtype = DType::kF16; }),
            "[attention] y is F16, expected F32 or BF16");
}

}  // namespace
}  // namespace signround
