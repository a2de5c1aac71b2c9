#include "signround/quant/imatrix.h"

#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/second_moments.h"

namespace signround {

void add_second_moments(const float* x, int64_t rows, int64_t cols, int64_t stride, double* sums) {
  const auto add = kernels::second_moments_kernel().add;
  // Whole cache lines of x per thread, and at least 64 K elements.
  const int64_t lines = (cols + 15) / 16;
  parallel_for(lines, std::max<int64_t>(1, 4096 / std::max<int64_t>(rows, 1)),
               [&](int64_t begin, int64_t end) {
                 const int64_t first = begin * 16, last = std::min(cols, end * 16);
                 add(x + first, rows, last - first, stride, sums + first);
               });
}

std::vector<float> importance_of(const std::vector<double>& sums, int64_t rows) {
  require(rows >= 1, "imatrix", "sums over ", rows, " rows, expected at least 1");
  std::vector<float> importance;
  for (double sum : sums) importance.push_back(static_cast<float>(sum / static_cast<double>(rows)));
  return importance;
}

}  // namespace signround
