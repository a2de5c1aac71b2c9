// Random data for tests, the same with every compiler. The seed belongs into the failure text.
#pragma once

#include <cstdint>
#include <vector>

#include "signround/base/random.h"

namespace signround::testing {

// n normal values with the given standard deviation (0.05: like the weights of a real layer).
inline std::vector<float> random_normal(int64_t n, uint64_t seed, double sigma = 1.0) {
  PythonRandom random(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(sigma * normal(random));
  return values;
}

}  // namespace signround::testing
