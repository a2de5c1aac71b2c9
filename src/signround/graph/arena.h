// Buffers planned once and reused by lifetime: two that are never alive at the same time share
// memory.
#pragma once

#include <cstdint>
#include <vector>

#include "signround/tensor/buffer.h"

namespace signround {

// Declares buffers with the steps at which they are used, then places all of them in one
// allocation.
class Arena {
 public:
  // A buffer of `bytes`; not alive before the first touch. Returns its number.
  int add(int64_t bytes);
  // The buffer is used at `step`: it is alive from its first to its last touch.
  void touch(int buffer, int step);
  // Chooses offsets: largest buffers first, each at the lowest place where no buffer alive at the
  // same time lies. Returns the bytes of all together.
  int64_t place();
  void allocate(Device device = {});  // after place()
  void* at(int buffer) { return memory_.as<char>() + buffers_[static_cast<size_t>(buffer)].offset; }
  int64_t bytes() const { return bytes_; }
  int64_t bytes_without_reuse() const;

 private:
  struct Placed {
    int64_t bytes = 0, offset = 0;
    int first = -1, last = -1;
  };
  std::vector<Placed> buffers_;
  int64_t bytes_ = 0;
  Buffer memory_;
};

}  // namespace signround
