#include "signround/ops/bias.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cuda.h"
#include "signround/ops/row_checks.h"

namespace signround {
namespace {

constexpr int64_t kColumns = 64;  // that are summed together: their sums stay in registers and L1

double value_of(float v) { return static_cast<double>(v); }
double value_of(BF16 v) { return static_cast<double>(to_f32(v)); }

template <class T>
void add_columns(const T* d_y, int64_t stride, int64_t n, int64_t begin, int64_t end, float* d_b) {
  double sums[kColumns] = {};
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = begin; j < end; ++j) sums[j - begin] += value_of(d_y[i * stride + j]);
  for (int64_t j = begin; j < end; ++j)
    d_b[j] = static_cast<float>(static_cast<double>(d_b[j]) + sums[j - begin]);
}

}  // namespace

void bias_bwd(int64_t n, int64_t d, RowsAny d_y, std::span<float> d_b) {
  const char* op = "bias_bwd";
  detail::check_shape(op, {n, 1, d});
  detail::check_in(op, "d_y", d_y, {n, 1, d});
  require(d_y.dtype == DType::kF32 || d_y.dtype == DType::kBF16, op, "d_y is ", name_of(d_y.dtype),
          ", expected F32 or BF16");
  detail::check_size(op, "d_b", d_b.size(), d);
  if (on_cuda()) return kernels::cuda::bias_bwd(n, d, d_y, d_b.data());
  parallel_for((d + kColumns - 1) / kColumns, 1, [&](int64_t first, int64_t last) {
    for (int64_t tile = first; tile < last; ++tile) {
      const int64_t begin = tile * kColumns, end = std::min(d, begin + kColumns);
      if (d_y.dtype == DType::kF32)
        add_columns(static_cast<const float*>(d_y.data), d_y.stride, n, begin, end, d_b.data());
      else
        add_columns(static_cast<const BF16*>(d_y.data), d_y.stride, n, begin, end, d_b.data());
    }
  });
}

}  // namespace signround
