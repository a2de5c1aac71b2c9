// What products through tile registers have in common: how threads share C, and room for packed
// operands.
#pragma once

#include <algorithm>
#include <cstdint>

#include "signround/base/parallel.h"
#include "signround/tensor/buffer.h"

namespace signround::kernels::amx {

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to; }

// Packed operands of the product that this thread runs; kept, since making memory costs page
// faults.
struct Workspace {
  Buffer a, b, bias, steps;
  template <class T>
  static T* room(Buffer& buffer, int64_t values) {
    if (buffer.bytes() < values * int64_t{sizeof(T)}) buffer = Buffer(values * int64_t{sizeof(T)});
    return buffer.as<T>();
  }
};

inline Workspace& workspace() {
  thread_local Workspace mine;
  return mine;
}

// Rows times columns of panels in as many about equal rectangles as there are threads. Among splits
// that are as even: the one that reads least, or that of columns alone.
struct Split {
  int64_t rows = 1, cols = 1;
  Split(int64_t panels_m, int64_t panels_n, bool prefer_cols) {
    const int64_t threads = num_threads();
    int64_t best_share = 0, best_edge = 0;
    for (int64_t r = 1; r <= threads; ++r) {
      const int64_t c = threads / r;
      if (r > panels_m || c > panels_n) continue;
      const int64_t m = up(panels_m, r), n = up(panels_n, c), share = m * n,
                    edge = prefer_cols ? r : m + n;
      if (best_share && (share > best_share || (share == best_share && edge >= best_edge)))
        continue;
      best_share = share, best_edge = edge, rows = r, cols = c;
    }
    if (best_share == 0)
      rows = std::min(panels_m, threads), cols = std::min(panels_n, threads / rows);
  }
};

// A product is computed block of C by block: so many panels of A and, in about equal parts, of B. A
// block's panels stay in the second cache for some depth of k, and one of A in the first, for which
// B passes through it: fetched kAhead tiles ahead, since the second cache is what products wait
// for.
constexpr int64_t kBlockRows = 8, kBlockColumns = 20, kAhead = 2;

template <class Block>  // block(m0, m1, n0, n1) in panels
void for_each_block(int64_t m0, int64_t m1, int64_t n0, int64_t n1, Block&& block) {
  const int64_t parts = up(n1 - n0, kBlockColumns);
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t m = m0; m < m1; m += kBlockRows)
      block(m, std::min(m1, m + kBlockRows), n0 + (n1 - n0) * part / parts,
            n0 + (n1 - n0) * (part + 1) / parts);
}

}  // namespace signround::kernels::amx
