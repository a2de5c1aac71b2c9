// Reference conversion of one row.
#pragma once

#include "signround/kernels/cpu/ref.h"

namespace signround::kernels {

template <class In, class Out>
void convert_row(const In* x, float scale, int64_t n, Out* y) {
  for (int64_t j = 0; j < n; ++j) assign(y[j], scale == 1.0f ? widen(x[j]) : widen(x[j]) * scale);
}

}  // namespace signround::kernels
