// One thread pool for everything: OpenMP's, which oneDNN uses too.
#pragma once

#include <cstdint>
#include <exception>
#include <utility>

namespace signround {

int num_threads();            // threads that parallel_for will use
void set_num_threads(int n);  // 0 = as many as this process may use (its CPU affinity)

namespace detail {
void parallel_run(int64_t chunks, void (*run)(void* context, int64_t chunk), void* context);
}

// Calls body(begin, end) over [0, n) in contiguous pieces of about equal size, at most one per
// thread, of at least `grain` items. The split depends on n, grain and the thread count only, so
// that results can be reproduced. The first exception that a piece throws is thrown again in the
// caller.
template <class Body>
void parallel_for(int64_t n, int64_t grain, Body&& body) {
  if (n <= 0) return;
  int64_t chunks = num_threads();
  if (grain > 1 && chunks > (n + grain - 1) / grain) chunks = (n + grain - 1) / grain;
  if (chunks > n) chunks = n;
  if (chunks <= 1) return body(int64_t{0}, n);
  struct Context {
    int64_t n, chunks;
    Body* body;
  } context{n, chunks, &body};
  detail::parallel_run(
      chunks,
      [](void* raw, int64_t chunk) {
        const auto& c = *static_cast<Context*>(raw);
        (*c.body)(c.n * chunk / c.chunks, c.n * (chunk + 1) / c.chunks);
      },
      &context);
}

}  // namespace signround
