// Products by cuBLASLt. Its matrices are column-major: a row-major C = A B is its C^T = B^T A^T, so
// B comes first.
#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <memory>

#include "signround/base/error.h"
#include "signround/device/cuda/stream.h"
#include "signround/kernels/cuda.h"
#include "signround/tensor/buffer.h"

namespace signround::kernels::cuda {
namespace {

using signround::cuda::stream;

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail(ErrorKind::kDevice, "cublasLt", what, ": ", cublasLtGetStatusString(status));
}

// Of the calling thread on the current device.
struct Library {
  cublasLtHandle_t handle = nullptr;
  Buffer workspace;
  Library() { check(cublasLtCreate(&handle), "cublasLtCreate"); }
  ~Library() { cublasLtDestroy(handle); }
};
Library& library() {
  thread_local std::array<std::unique_ptr<Library>, 64> all;
  auto& mine = all[static_cast<size_t>(current_device().index)];
  if (!mine) {
    mine = std::make_unique<Library>();
    mine->workspace = Buffer(kProductWorkspace, current_device());
  }
  return *mine;
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::kBF16 ? CUDA_R_16BF : CUDA_R_32F; }

struct Descriptions {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  ~Descriptions() {
    if (c) cublasLtMatrixLayoutDestroy(c);
    if (b) cublasLtMatrixLayoutDestroy(b);
    if (a) cublasLtMatrixLayoutDestroy(a);
    if (product) cublasLtMatmulDescDestroy(product);
  }
};

class Product : public MatmulPlan {
 public:
  explicit Product(const MatmulSpec& spec) : spec_(spec), library_(library()) {
    const auto transposed = [](bool t) { return t ? CUBLAS_OP_T : CUBLAS_OP_N; };
    const cublasOperation_t first = transposed(spec.trans_b), second = transposed(spec.trans_a);
    check(cublasLtMatmulDescCreate(&d_.product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
    check(cublasLtMatmulDescSetAttribute(d_.product, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                         sizeof first),
          "trans_a");
    check(cublasLtMatmulDescSetAttribute(d_.product, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                         sizeof second),
          "trans_b");
    const auto layout = [](cublasLtMatrixLayout_t* to, DType dtype, int64_t rows, int64_t cols,
                           int64_t stride) {
      check(cublasLtMatrixLayoutCreate(to, type_of(dtype), static_cast<uint64_t>(rows),
                                       static_cast<uint64_t>(cols), stride),
            "layout");
    };
    layout(&d_.a, spec.in, spec.trans_b ? spec.k : spec.n, spec.trans_b ? spec.n : spec.k, spec.ldb);
    layout(&d_.b, spec.in, spec.trans_a ? spec.m : spec.k, spec.trans_a ? spec.k : spec.m, spec.lda);
    layout(&d_.c, spec.out, spec.n, spec.m, spec.ldc);
    choose();
  }

  void run(const void* a, const void* b, const float* bias, void* c,
           const float* from) const override {
    const float one = 1, beta = spec_.accumulate ? 1 : 0;
    check(cublasLtMatmul(library_.handle, d_.product, &one, b, d_.a, a, d_.b, &beta,
                         from != nullptr ? from : c, d_.c, c, d_.c, &algorithm_,
                         library_.workspace.data(), static_cast<size_t>(kProductWorkspace), stream()),
          "cublasLtMatmul");
    if (spec_.bias) add_bias(spec_.m, spec_.n, bias, {c, spec_.out, spec_.ldc});
  }

 private:
  // The library's own first choice: the same at every run.
  void choose() {
    cublasLtMatmulPreference_t preference = nullptr;
    check(cublasLtMatmulPreferenceCreate(&preference), "preference");
    const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, void (*)(cublasLtMatmulPreference_t)>
        owner(preference, [](cublasLtMatmulPreference_t p) { cublasLtMatmulPreferenceDestroy(p); });
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t what, auto value) {
      check(cublasLtMatmulPreferenceSetAttribute(preference, what, &value, sizeof value),
            "preference");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kProductWorkspace));
    // Planned buffers and rows of theirs: what a stride of this many values leaves aligned.
    const auto alignment = [](int64_t stride, DType dtype) {
      return static_cast<uint32_t>(
          std::min<int64_t>(16, (stride & -stride) * (dtype == DType::kBF16 ? 2 : 4)));
    };
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(spec_.ldb, spec_.in));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(spec_.lda, spec_.in));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(spec_.ldc, spec_.out));
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(spec_.ldc, spec_.out));
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    check(cublasLtMatmulAlgoGetHeuristic(library_.handle, d_.product, d_.a, d_.b, d_.c, d_.c,
                                         preference, 1, &found, &count),
          "heuristics");
    if (count == 0)
      fail(ErrorKind::kDevice, "cublasLt", "knows no product of (", spec_.m, ", ", spec_.k, ") by (",
           spec_.k, ", ", spec_.n, ") of ", name_of(spec_.in), " to ", name_of(spec_.out));
    algorithm_ = found.algo;
  }

  MatmulSpec spec_;
  Library& library_;
  Descriptions d_;
  cublasLtMatmulAlgo_t algorithm_{};
};

}  // namespace

std::unique_ptr<MatmulPlan> matmul(const MatmulSpec& spec) {
  return std::make_unique<Product>(spec);
}

}  // namespace signround::kernels::cuda
