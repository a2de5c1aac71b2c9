// Products with weights that stay packed: y = x W^T where W is integer codes with group scales and
// zero points, as quant/scheme.h's QuantizedLinear holds them. The seam, as kernels/cuda.h: built
// without CUDA, everything here fails with Error{kDevice}. Layout: kernels/cuda/packed_matmul.cuh.
#pragma once

#include <cstdint>
#include <vector>

#include "signround/tensor/buffer.h"
#include "signround/tensor/rows.h"

namespace signround::kernels {

// W (out, in): weight[o][i] = scale[o][i / group] * (code[o][i] - zero[o][i / group]).
struct PackedSpec {
  int64_t out = 0, in = 0;
  int bits = 4;         // of a code: 2, 3, 4 or 8
  int64_t group = 128;  // weights along `in` that share a scale; <= 0 or > in: a whole row. A
                        // multiple of 16 unless it is a whole row
  int64_t weights_per_scale() const { return group <= 0 || group > in ? in : group; }
  int64_t groups() const { return (in + weights_per_scale() - 1) / weights_per_scale(); }
};

// How W lies on the device: records of 16 rows by 128 columns, their scales behind their codes.
struct PackedLayout {
  int64_t tiles = 0, chunks = 0;  // of 16 rows, of 128 columns; both rounded up
  int groups = 1;                 // scales of a row in a record: 1, 2, 4 or 8
  bool zeros = false;             // a zero point for each scale; else `zero` for all
  int zero = 0;
  bool f16 = true;  // type of the scales: f16 or bf16
  int record_bytes = 0;
};

// A packed weight on a GPU.
class PackedWeight {
 public:
  PackedWeight() = default;
  // On the current device, from host memory: codes (out, in), scales (out, groups), zeros
  // (out, groups). Scales are held as f16, or as bf16 where f16 does not hold all of them exactly.
  // Error{kUnsupported}: scales that neither type holds exactly, groups of other sizes, other bits;
  // Error{kInvalidArgument}: codes or zero points of more than `bits` bits.
  PackedWeight(const PackedSpec& spec, const uint8_t* codes, const float* scales,
               const uint8_t* zeros);
  PackedWeight copy() const;  // on the same device, which is the current one

  const PackedSpec& spec() const { return spec_; }
  const PackedLayout& layout() const { return layout_; }
  const void* data() const { return data_.data(); }
  int64_t bytes() const { return data_.bytes(); }  // that a product reads
  // Of the device that it lies on.
  int multiprocessors() const { return multiprocessors_; }
  int64_t shared_limit() const { return shared_limit_; }  // bytes of shared memory of a block

 private:
  PackedSpec spec_;
  PackedLayout layout_;
  Buffer data_;
  int multiprocessors_ = 1;
  int64_t shared_limit_ = 0;
};

// Which kernel, and how its work is split; results differ between plans in the last bits of their
// sums, and are the same to the bit for the same plan.
struct PackedPlan {
  enum class Kernel : uint8_t { kDecode, kBatch } kernel = Kernel::kDecode;
  int rows = 1;    // of x at a time: kDecode at most 8; kBatch 16, 32 or 64
  int splits = 1;  // of `in`, added up by a second kernel
  int blocks = 1;  // kDecode: of threads along `out`, which take turns
  int stages = 0;  // records on their way to a warp
  int64_t shared_bytes = 0;
};
// What packed_matmul chooses for n rows of x.
PackedPlan plan_packed_matmul(const PackedWeight& w, int64_t n);
// Every plan that can run, for benchmarks and tests.
std::vector<PackedPlan> packed_matmul_plans(const PackedWeight& w, int64_t n);

// Bytes of scratch that a product of n rows needs; 0: none.
int64_t packed_matmul_scratch_bytes(const PackedWeight& w, int64_t n);
int64_t packed_matmul_scratch_bytes(const PackedWeight& w, const PackedPlan& plan, int64_t n);

// What is added to a product, in f32, where there is data: bias (out), the same for every row, and
// rows of f32 (n, out), which may be y.
struct PackedTerms {
  const float* bias = nullptr;
  RowsIn from;
};

// y (n, out) = x (n, in) W^T + terms, queued on the current device, where all pointers lie. x: f32,
// f16 or bf16; values are rounded to bf16. Products of x and code - zero are exact, sums are f32.
// y: f32 or bf16. scratch: aligned to 16, of the size above. Error{kUnsupported}: other types. No
// atomics: the same bits from run to run.
void packed_matmul(const PackedWeight& w, int64_t n, RowsAny x, RowsOut y, void* scratch,
                   const PackedTerms& terms = {});
void packed_matmul(const PackedWeight& w, const PackedPlan& plan, int64_t n, RowsAny x, RowsOut y,
                   void* scratch, const PackedTerms& terms = {});

}  // namespace signround::kernels
