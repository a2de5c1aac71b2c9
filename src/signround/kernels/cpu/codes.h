// Loops over one group of codes of a rounded layer, weight = scale * (code - zero).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "signround/tensor/dtype.h"

namespace signround::kernels {

// All rows of the table give the same bits. No alignment needed.
struct CodesKernel {
  std::string_view name;
  const char* (*why_not)();
  // The n weights: one rounding, and for bf16 a second one to the nearest even.
  void (*write_f32)(const uint8_t* codes, int64_t n, float scale, float zero,
                    float* weight) noexcept;
  void (*write_bf16)(const uint8_t* codes, int64_t n, float scale, float zero,
                     BF16* weight) noexcept;
  // Sum of d * (code - zero), the gradient of a loss by the scale from those by its weights: in 16
  // partial sums (element i goes to sum i mod 16), f32 and not fused, that are then added in
  // order, in double.
  double (*dot)(const float* d, const uint8_t* codes, int64_t n, float zero) noexcept;
};

std::span<const CodesKernel> codes_kernels();
const CodesKernel& codes_kernel();  // the one to use; see kernels/dispatch.h

}  // namespace signround::kernels
