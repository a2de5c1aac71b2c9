#include "signround/quant/grid.h"

namespace signround {

float round_scale(float scale, DType scale_dtype) {
  switch (scale_dtype) {
    case DType::kF16:
      return std::clamp(round_to_f16(scale), -65504.0f, 65504.0f);
    case DType::kBF16:
      return std::clamp(round_to_bf16(scale), -0x1.fep127f, 0x1.fep127f);
    default:
      return std::clamp(scale, -0x1.fffffep127f, 0x1.fffffep127f);
  }
}

float scale_floor_of(DType scale_dtype) {
  // 0x1.5p-17 is 1e-5 rounded to F16, and to BF16 as well.
  return scale_dtype == DType::kF32 ? 1e-8f : 0x1.5p-17f;
}

float floored_scale(float scale, DType scale_dtype) {
  const float rounded = round_scale(scale, scale_dtype), floor = scale_floor_of(scale_dtype);
  // Signs are as good as random: no branch. Adding 0 makes -0 positive.
  return std::copysign(std::max(std::abs(rounded), floor), rounded + 0.0f);
}

}  // namespace signround
