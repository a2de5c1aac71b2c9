// C = A * B or C += A * B, optionally plus a row of biases. The one product that everything else
// waits for.
#pragma once

#include <cstdint>
#include <memory>

#include "signround/kernels/cpu/panel_unit.h"
#include "signround/tensor/buffer.h"
#include "signround/tensor/dtype.h"

namespace signround::kernels {

// A is (m, k), B is (k, n), C is (m, n). A transposed operand is stored the other way round:
// trans_a means that memory holds (k, m) row-major. Strides count elements from one stored row to
// the next.
struct MatmulSpec {
  int64_t m = 0, n = 0, k = 0;
  DType in = DType::kF32;   // of A and B: kF32 or kBF16; sums are f32
  DType out = DType::kF32;  // of C: kF32, or kBF16, where each sum is rounded once
  bool trans_a = false, trans_b = false;
  int64_t lda = 0, ldb = 0, ldc = 0;
  bool accumulate = false;  // C += instead of C =; C is f32
  bool bias = false;        // plus n f32 values, the same for every row of C
  // Operands are first rounded to 8 bits, every row of A and every column of B by steps of its own,
  // one for each 4096 values along k (int8_step.h): what is not finite makes NaN of the whole row
  // or column. Not with bias; C of bf16 only where one step serves all of k.
  bool int8 = false;
  // C is read only after much else, and was not touched for long: kernels may store it past the
  // caches.
  bool cold = false;
  Device device = {};  // where A, B and C lie
  bool operator==(const MatmulSpec&) const = default;
};

// A product of fixed shape, made once and run many times.
class MatmulPlan {
 public:
  virtual ~MatmulPlan() = default;
  // from: with `accumulate`, what the product is added to instead of what C holds; f32, with C's
  // stride.
  virtual void run(const void* a, const void* b, const float* bias, void* c,
                   const float* from = nullptr) const = 0;
};

// Three loops in double: the definition.
std::unique_ptr<MatmulPlan> matmul_ref(const MatmulSpec& spec);
// oneDNN's matmul primitive; compiles with 2.x and 3.x.
std::unique_ptr<MatmulPlan> matmul_onednn(const MatmulSpec& spec);
// bf16 operands, packed at each run into panels, which one of the units multiplies. The sums of a
// value of C come in the same order for any number of threads. Error{kUnsupported} where
// why_not_matmul_panels() gives a reason.
// Both operands are packed strip by strip: at most `k` values of k, and then as many rows of A, or
// columns of B, as fit in `bytes`. A product of a usual size has one strip.
struct PanelStrip {
  int64_t k = 4096, bytes = int64_t{16} << 20;
};
std::unique_ptr<MatmulPlan> matmul_panels(PanelUnit unit, const MatmulSpec& spec,
                                          const PanelStrip& strip = {});
// What the calling thread keeps of packed operands after such a product, at most.
int64_t matmul_panels_workspace_bytes(const MatmulSpec& spec);
// nullptr where it can run here, else the reason
const char* why_not_matmul_panels(PanelUnit unit);
// The same for spec.int8, at about twice the rate. Packed operands are strips of at most
// strip_bytes, or one panel.
std::unique_ptr<MatmulPlan> matmul_panels_int8(PanelUnit unit, const MatmulSpec& spec,
                                               int64_t strip_bytes = PanelStrip{}.bytes);
int64_t matmul_panels_int8_workspace_bytes(const MatmulSpec& spec);
const char* why_not_matmul_panels_int8(PanelUnit unit);
// The same by oneDNN, where the CPU has AVX-512 VNNI; from f32 too. C of many rows is computed
// piece by piece.
std::unique_ptr<MatmulPlan> matmul_onednn_int8(const MatmulSpec& spec);
int64_t matmul_onednn_int8_workspace_bytes(const MatmulSpec& spec);
const char* why_not_matmul_onednn_int8();

}  // namespace signround::kernels
