// Gradients by complex step: nothing is subtracted, so the step can be 1e-30 and the answer is exact to rounding
// (Squire and Trapp, SIAM Review 40, 1998).
#pragma once

#include <complex>
#include <vector>

#include "signround/tensor/mat.h"

namespace signround::testing {

// d loss / d x = Im(loss(x + ih)) / h for every element of x. loss() reads x through the caller's view.
template <class Loss>
std::vector<double> complex_step_grad(Mat<std::complex<double>> x, Loss&& loss) {
  constexpr double h = 1e-30;
  std::vector<double> grad(static_cast<size_t>(x.size()));
  for (int64_t i = 0; i < x.size(); ++i) {
    const auto saved = x.data[i];
    x.data[i] = saved + std::complex<double>(0, h);
    grad[static_cast<size_t>(i)] = loss().imag() / h;
    x.data[i] = saved;
  }
  return grad;
}

}  // namespace signround::testing
