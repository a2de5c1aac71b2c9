#include "signround/quant/grid.h"

namespace signround {

float round_scale(float scale, DType scale_dtype) {
  return kernels::rounded_scale(scale, scale_dtype);
}

float scale_floor_of(DType scale_dtype) {
  // 0x1.5p-17 is 1e-5 rounded to F16, and to BF16 as well.
  return scale_dtype == DType::kF32 ? 1e-8f : 0x1.5p-17f;
}

kernels::ScaleLimits scale_limits(DType scale_dtype) {
  return {scale_dtype, scale_floor_of(scale_dtype)};
}

float floored_scale(float scale, DType scale_dtype) {
  return kernels::limited_scale(scale, scale_limits(scale_dtype));
}

}  // namespace signround
