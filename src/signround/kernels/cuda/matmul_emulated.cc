// Products on a GPU that is emulated (device/emulated).
#include "signround/kernels/cuda.h"

namespace signround::kernels::cuda {
namespace {

class Product : public MatmulPlan {
 public:
  explicit Product(MatmulSpec spec) {
    spec.device = {};
    plan_ = matmul_onednn(spec);
  }
  void run(const void* a, const void* b, const float* bias, void* c,
           const float* from) const override {
    plan_->run(a, b, bias, c, from);
  }

 private:
  std::unique_ptr<MatmulPlan> plan_;
};

}  // namespace

std::unique_ptr<MatmulPlan> matmul(const MatmulSpec& spec) {
  return std::make_unique<Product>(spec);
}

}  // namespace signround::kernels::cuda
