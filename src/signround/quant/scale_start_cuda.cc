#include "signround/quant/scale_start_cuda.h"

#include "signround/base/error.h"
#include "signround/kernels/search_cuda.h"
#include "signround/quant/grid.h"
#include "signround/quant/rtn.h"
#include "signround/quant/scale_start.h"

namespace signround {

void search_start_cuda(const RowsAny& w, int64_t out, int64_t in, const QuantScheme& scheme,
                       const float* importance, float* scale, float* zero) {
  check_rounding("search_start", out, in, scheme);
  require(w.dtype == DType::kF32 || w.dtype == DType::kBF16, "search_start", "weights are ",
          name_of(w.dtype), ", expected F32 or BF16");
  require(w.stride >= in, "search_start", "rows of ", in, " weights are ", w.stride,
          " elements apart");
  kernels::cuda::search_scales({w, out, in, scheme.group(in)},
                               {range_rule(scheme), kSearchFactors, kSearchRefits,
                                kSmallestSearchFactor, kLargestSearchFactor},
                               importance, scale, zero);
}

}  // namespace signround
