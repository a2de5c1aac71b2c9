#include "signround/quant/gptq.h"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/fake_quant.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"

// LAPACK's Cholesky factorization and the inverse from it. Matrices lie column by column.
extern "C" void spotrf_(const char* uplo, const int* n, float* a, const int* lda, int* info);
extern "C" void spotri_(const char* uplo, const int* n, float* a, const int* lda, int* info);

namespace signround {
namespace {

constexpr int64_t kBlock = 128;  // columns between two updates of all columns behind them
constexpr int kEscalations = 4;  // dampings tried, each ten times the one before

// h: (n, n) row-major with its upper triangle filled; becomes U with U^T U = h^-1. For LAPACK the
// upper triangle is the lower one.
bool invert_and_factor(std::vector<float>& h, int n) {
  int info = 0;
  spotrf_("L", &n, h.data(), &n, &info);
  if (info == 0) spotri_("L", &n, h.data(), &n, &info);
  if (info == 0) spotrf_("L", &n, h.data(), &n, &info);
  if (info != 0) return false;
  const auto size = static_cast<size_t>(n);
  for (size_t i = 0; i < size; ++i)
    if (!(h[i * size + i] > 0) || !std::isfinite(h[i * size + i])) return false;
  return true;
}

// Rounds all rows, one block of columns at a time.
class Rounding {
 public:
  // rows: (out, in), in the factor's order.
  Rounding(std::vector<float> rows, const GptqFactor& factor, const GptqOptions& options,
           QuantizedLinear& result)
      : rows_(std::move(rows)),
        factor_(factor),
        static_groups_(options.act_order),
        result_(result),
        group_(result.scheme.group(result.in)),
        groups_(result.groups()),
        errors_(static_cast<size_t>(result.out * kBlock)) {}

  void run() {
    const int64_t out = result_.out, in = result_.in;
    for (int64_t begin = 0; begin < in; begin += kBlock) {
      const int64_t end = std::min(in, begin + kBlock);
      parallel_for(out, 1, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) round_block(r, begin, end);
      });
      if (end < in)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(out),
                    static_cast<int>(in - end), static_cast<int>(end - begin), -1.0f,
                    errors_.data(), kBlock, factor_.upper.data() + begin * in + end,
                    static_cast<int>(in), 1.0f, rows_.data() + end, static_cast<int>(in));
    }
  }

 private:
  void round_block(int64_t r, int64_t begin, int64_t end) {
    const int64_t in = result_.in;
    const float last_code = static_cast<float>(result_.scheme.max_code());
    float* row = rows_.data() + r * in;
    float* errors = errors_.data() + r * kBlock;
    for (int64_t j = begin; j < end; ++j) {
      const int64_t column = factor_.order[static_cast<size_t>(j)];
      const size_t k = static_cast<size_t>(r * groups_ + column / group_);
      if (!static_groups_ && j % group_ == 0) open_group(row, errors, j, begin, end, k);
      const float scale = result_.scales[k], zero = result_.zeros[k];
      const float code = std::clamp(std::nearbyint(row[j] / scale) + zero, 0.0f, last_code);
      result_.codes[static_cast<size_t>(r * in + column)] = static_cast<uint8_t>(code);
      const float* upper = factor_.upper.data() + j * in;
      const float error = (row[j] - scale * (code - zero)) / upper[j];
      errors[j - begin] = error;
      for (int64_t i = j + 1; i < end; ++i) row[i] -= error * upper[i];
    }
  }

  // The grid of the group that begins at j, from its weights as they are now. Those behind the
  // block have not seen the block's errors yet.
  void open_group(const float* row, const float* errors, int64_t j, int64_t begin, int64_t end,
                  size_t k) {
    const int64_t in = result_.in, last = std::min(in, j + group_);
    GroupRange<float> range;
    for (int64_t i = j; i < last; ++i) {
      float w = row[i];
      if (i >= end)
        for (int64_t b = begin; b < j; ++b)
          w -= errors[b - begin] * factor_.upper[static_cast<size_t>(b * in + i)];
      range.min = std::min(range.min, w);
      range.max = std::max(range.max, w);
    }
    const auto grid = group_grid_fwd<float>(result_.scheme, range, 1.0f, 1.0f);
    result_.scales[k] = grid.scale;
    result_.zeros[k] = static_cast<uint8_t>(grid.zero);
  }

  std::vector<float> rows_;
  const GptqFactor& factor_;
  bool static_groups_;
  QuantizedLinear& result_;
  int64_t group_, groups_;
  std::vector<float> errors_;  // (out, kBlock) of the block in work
};

}  // namespace

GptqFactor gptq_factor(std::vector<float> hessian, int64_t in, const GptqOptions& options) {
  require(in > 0 && hessian.size() == static_cast<size_t>(in * in), "gptq", "a Hessian of ",
          hessian.size(), " numbers for ", in, " inputs");
  openblas_set_num_threads(num_threads());
  require(options.damp > 0, "gptq", "damp ", options.damp, ", expected more than 0");
  GptqFactor factor;
  factor.in = in;
  factor.moments.resize(static_cast<size_t>(in));
  double sum = 0;
  for (int64_t i = 0; i < in; ++i) {
    float& d = hessian[static_cast<size_t>(i * in + i)];
    require(std::isfinite(d) && d >= 0, "gptq", "the second moment of input ", i, " is ", d,
            ", expected a finite number of at least 0");
    factor.moments[static_cast<size_t>(i)] = d;
    if (d == 0) {
      ++factor.dead;
      d = 1;
    }
    sum += static_cast<double>(d);
  }
  factor.order.resize(static_cast<size_t>(in));
  std::iota(factor.order.begin(), factor.order.end(), int64_t{0});
  if (options.act_order)
    std::stable_sort(factor.order.begin(), factor.order.end(), [&](int64_t a, int64_t b) {
      return factor.moments[static_cast<size_t>(a)] > factor.moments[static_cast<size_t>(b)];
    });
  // Permuted once; every damping begins from it.
  std::vector<float> ordered(hessian.size());
  parallel_for(in, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t j = i; j < in; ++j) {
        const auto [a, b] =
            std::minmax(factor.order[static_cast<size_t>(i)], factor.order[static_cast<size_t>(j)]);
        ordered[static_cast<size_t>(i * in + j)] = hessian[static_cast<size_t>(a * in + b)];
      }
  });
  const double mean = sum / static_cast<double>(in);
  factor.damp = options.damp;
  for (int attempt = 0; attempt < kEscalations; ++attempt, factor.damp *= 10) {
    hessian = ordered;
    for (int64_t i = 0; i < in; ++i)
      hessian[static_cast<size_t>(i * in + i)] += static_cast<float>(factor.damp * mean);
    if (invert_and_factor(hessian, static_cast<int>(in))) {
      factor.upper = std::move(hessian);
      break;
    }
  }
  return factor;
}

int64_t gptq_bytes(int64_t out, int64_t in) { return 12 * in * in + out * (9 * in + 4 * kBlock); }

QuantizedLinear gptq(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                     const GptqFactor& factor, const GptqOptions& options, GptqNotes* notes) {
  openblas_set_num_threads(num_threads());
  require(factor.in == in, "gptq", "a factor of ", factor.in, " inputs for ", in);
  GptqNotes found;
  // The grids of the given weights, and codes that stand where nothing can be done.
  QuantizedLinear result = rtn(w, out, in, scheme, &found.non_finite);
  found.plain_rtn = factor.upper.empty();
  if (notes != nullptr) *notes = found;
  if (found.plain_rtn) return result;

  std::vector<float> rows(static_cast<size_t>(out * in));
  const int64_t group = scheme.group(in);
  parallel_for(out, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(in));
    for (int64_t r = begin; r < end; ++r) {
      std::copy_n(w + r * in, in, row.begin());
      if (found.non_finite.count > 0)
        for (int64_t at = 0; at < in; at += group)
          replace_non_finite(row.data() + at, std::min(group, in - at), r * in + at);
      for (int64_t j = 0; j < in; ++j) {
        const auto column = static_cast<size_t>(factor.order[static_cast<size_t>(j)]);
        rows[static_cast<size_t>(r * in + j)] = factor.moments[column] == 0 ? 0.0f : row[column];
      }
    }
  });
  Rounding(std::move(rows), factor, options, result).run();
  return result;
}

}  // namespace signround
