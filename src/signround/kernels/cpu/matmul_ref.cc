#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels {
namespace {

class RefPlan : public MatmulPlan {
 public:
  explicit RefPlan(const MatmulSpec& spec) : s_(spec) {}

  void run(const void* a, const void* b, const float* bias, void* c,
           const float* from) const override {
    if (s_.int8) return run_int8(a, b, c, from);
    parallel_for(s_.m, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < s_.n; ++j) {
          double sum = s_.bias ? bias[j] : 0.0;
          for (int64_t p = 0; p < s_.k; ++p) sum += double(a_at(a, i, p)) * double(b_at(b, p, j));
          write(c, from, i * s_.ldc + j, sum);
        }
      }
    });
  }

 private:
  // Of a row of A or a column of B, what one step serves.
  struct Rounded {
    std::vector<int64_t> q;
    float step;
    template <class At>
    Rounded(int64_t begin, int64_t end, At&& at) {
      float most = 0;
      for (int64_t p = begin; p < end; ++p) {
        const float magnitude = std::fabs(at(p));
        if (!(magnitude <= most)) most = std::isnan(most) ? most : magnitude;
      }
      step = int8_step(most);
      for (int64_t p = begin; p < end; ++p)
        q.push_back(step > 0 ? std::lrint(at(p) * int8_inverse(step)) : 0);
    }
  };

  void write(void* c, const float* from, int64_t at, double sum) const {
    if (s_.out == DType::kBF16) {
      static_cast<BF16*>(c)[at] = to_bf16(static_cast<float>(sum));
      return;
    }
    float& out = static_cast<float*>(c)[at];
    out =
        static_cast<float>(s_.accumulate ? static_cast<double>(from ? from[at] : out) + sum : sum);
  }

  void run_int8(const void* a, const void* b, void* c, const float* from) const {
    std::vector<double> sums(static_cast<size_t>(s_.m * s_.n));
    for (int64_t begin = 0; begin < s_.k; begin += kInt8StepValues) {
      const int64_t end = std::min(s_.k, begin + kInt8StepValues);
      std::vector<Rounded> columns;
      for (int64_t j = 0; j < s_.n; ++j)
        columns.emplace_back(begin, end, [&](int64_t p) { return b_at(b, p, j); });
      for (int64_t i = 0; i < s_.m; ++i) {
        const Rounded row(begin, end, [&](int64_t p) { return a_at(a, i, p); });
        for (int64_t j = 0; j < s_.n; ++j) {
          const Rounded& column = columns[static_cast<size_t>(j)];
          const int64_t sum =
              std::inner_product(row.q.begin(), row.q.end(), column.q.begin(), int64_t{0});
          sums[static_cast<size_t>(i * s_.n + j)] +=
              double(sum) * double(row.step) * double(column.step);
        }
      }
    }
    for (int64_t i = 0; i < s_.m; ++i)
      for (int64_t j = 0; j < s_.n; ++j)
        write(c, from, i * s_.ldc + j, sums[static_cast<size_t>(i * s_.n + j)]);
  }

  float a_at(const void* a, int64_t i, int64_t p) const {
    return at(a, s_.trans_a ? p * s_.lda + i : i * s_.lda + p);
  }
  float b_at(const void* b, int64_t p, int64_t j) const {
    return at(b, s_.trans_b ? j * s_.ldb + p : p * s_.ldb + j);
  }
  float at(const void* data, int64_t index) const {
    return s_.in == DType::kBF16 ? to_f32(static_cast<const BF16*>(data)[index])
                                 : static_cast<const float*>(data)[index];
  }
  MatmulSpec s_;
};

}  // namespace

std::unique_ptr<MatmulPlan> matmul_ref(const MatmulSpec& spec) {
  return std::make_unique<RefPlan>(spec);
}

}  // namespace signround::kernels
