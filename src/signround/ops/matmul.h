// Matrix products: checks, choice of kernel, and the measurement that decides in which precision
// they run.
#pragma once

#include <memory>
#include <string>

#include "signround/kernels/cpu/matmul.h"

namespace signround {

using kernels::MatmulPlan;
using kernels::MatmulSpec;

// A product of fixed shape. Error{kInvalidArgument} for sizes or strides that do not fit each
// other.
std::unique_ptr<MatmulPlan> make_matmul(const MatmulSpec& spec);
// The row of the kernel table that make_matmul takes on a CPU: "amx", "avx512", "onednn" or "ref".
std::string matmul_kernel_name(const MatmulSpec& spec);

// Bytes that the calling thread keeps after a product of this shape, for its next ones of any
// shape.
int64_t matmul_workspace_bytes(const MatmulSpec& spec);

// nullptr where this CPU multiplies 8-bit integers, faster than what they are rounded from; else
// why it does not.
const char* why_no_int8_products(DType in);

// What this machine's products reach, measured in about a fifth of a second.
struct ComputeRates {
  double f32 = 0,
         bf16 = 0;  // floating-point operations per second, multiply and add counted as two
};
const ComputeRates& compute_rates();  // measured at the first call
// The faster precision: bf16 only where it is at least 1.2 times as fast as f32, so that noise
// cannot flip the choice on machines where the two are close.
DType fastest_compute_dtype();

}  // namespace signround
