// Where tuning with free scales starts, found on a GPU: search_start() of quant/scale_start.h, with
// the same scales and zero points.
#pragma once

#include "signround/quant/scheme.h"
#include "signround/tensor/rows.h"

namespace signround {

// Queued in the scope of a device, where all pointers lie. w (out, in): kF32 or kBF16, all finite.
// importance: (in) as channel_importance() gives it, or null: all equal. Written: scale and zero,
// (out, groups).
void search_start_cuda(const RowsAny& w, int64_t out, int64_t in, const QuantScheme& scheme,
                       const float* importance, float* scale, float* zero);

}  // namespace signround
