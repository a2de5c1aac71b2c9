#include "signround/base/parallel.h"
#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels {
namespace {

class RefPlan : public MatmulPlan {
 public:
  explicit RefPlan(const MatmulSpec& spec) : s_(spec) {}

  void run(const void* a, const void* b, const float* bias, float* c) const override {
    parallel_for(s_.m, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < s_.n; ++j) {
          double sum = s_.bias ? bias[j] : 0.0;
          for (int64_t p = 0; p < s_.k; ++p)
            sum += double(at(a, s_.trans_a ? p * s_.lda + i : i * s_.lda + p)) *
                   double(at(b, s_.trans_b ? j * s_.ldb + p : p * s_.ldb + j));
          float& out = c[i * s_.ldc + j];
          out = static_cast<float>(s_.accumulate ? out + sum : sum);
        }
      }
    });
  }

 private:
  float at(const void* data, int64_t index) const {
    return s_.in == DType::kBF16 ? to_f32(static_cast<const BF16*>(data)[index]) : static_cast<const float*>(data)[index];
  }
  MatmulSpec s_;
};

}  // namespace

std::unique_ptr<MatmulPlan> matmul_ref(const MatmulSpec& spec) { return std::make_unique<RefPlan>(spec); }

}  // namespace signround::kernels
