#include "signround/graph/arena.h"

#include <algorithm>
#include <numeric>

#include "signround/base/error.h"

namespace signround {

int Arena::add(int64_t bytes) {
  constexpr int64_t kAlign = 64;
  buffers_.push_back({.bytes = (bytes + kAlign - 1) / kAlign * kAlign});
  return static_cast<int>(buffers_.size()) - 1;
}

void Arena::touch(int buffer, int step) {
  Placed& b = buffers_.at(static_cast<size_t>(buffer));
  b.first = b.first < 0 ? step : std::min(b.first, step);
  b.last = std::max(b.last, step);
}

int64_t Arena::place() {
  std::vector<size_t> order(buffers_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return buffers_[a].bytes > buffers_[b].bytes; });
  std::vector<const Placed*> done;  // by offset
  bytes_ = 0;
  for (size_t i : order) {
    Placed& b = buffers_[i];
    if (b.first < 0) continue;
    int64_t offset = 0;
    for (const Placed* other : done) {
      if (other->last < b.first || other->first > b.last) continue;
      if (other->offset >= offset + b.bytes) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    b.offset = offset;
    done.insert(
        std::upper_bound(done.begin(), done.end(), &b,
                         [](const Placed* x, const Placed* y) { return x->offset < y->offset; }),
        &b);
    bytes_ = std::max(bytes_, offset + b.bytes);
  }
  return bytes_;
}

void Arena::allocate(Device device) { memory_ = Buffer(bytes_, device); }

int64_t Arena::bytes_without_reuse() const {
  int64_t sum = 0;
  for (const Placed& b : buffers_) sum += b.first < 0 ? 0 : b.bytes;
  return sum;
}

}  // namespace signround
