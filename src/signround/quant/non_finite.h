// Weights that are NaN or infinite. A checkpoint should have none; where it has, the rest of the
// group is still rounded well, and the caller is told how many there were.
#pragma once

#include <cstdint>

#include "signround/tensor/dtype.h"

namespace signround {

// How many weights of a matrix were not finite, and the index (row * in + column) of the first; -1:
// none.
struct NonFinite {
  int64_t count = 0, first = -1;

  void merge(const NonFinite& other) {
    count += other.count;
    if (other.first >= 0 && (first < 0 || other.first < first)) first = other.first;
  }
};

// Replaces them in one group of n weights: NaN by 0, an infinity by the largest finite magnitude of
// the group with the infinity's sign. `index` is the matrix index of group[0].
NonFinite replace_non_finite(float* group, int64_t n, int64_t index);
NonFinite replace_non_finite(BF16* group, int64_t n, int64_t index);

}  // namespace signround
