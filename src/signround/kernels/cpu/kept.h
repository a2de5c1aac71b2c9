// Room that a thread keeps from one product to the next, since making memory costs page faults.
#pragma once

#include <cstdint>

#include "signround/tensor/buffer.h"

namespace signround::kernels {

template <class T>
T* room(Buffer& kept, int64_t values) {
  const int64_t bytes = values * int64_t{sizeof(T)};
  if (kept.bytes() < bytes) kept = Buffer(bytes);
  return kept.as<T>();
}

}  // namespace signround::kernels
