// What products through tile registers have in common: how C is cut for threads and caches, and
// room for packed operands.
#pragma once

#include <algorithm>
#include <cstdint>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/amx_tiles.h"
#include "signround/kernels/cpu/kept.h"
#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels::amx {

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to; }

// Packed operands of the product that this thread runs, and A and the sums of the block that it
// computes.
struct Workspace {
  Buffer a, b, bias, steps, block, sums;
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

// body(m0, m1, n0, n1), in panels, of every thread's share, which may use tiles.
template <class Body>
void for_each_share(const Split& split, int64_t panels_m, int64_t panels_n, Body&& body) {
  parallel_for(split.rows * split.cols, 1, [&](int64_t begin, int64_t end) {
    start();
    for (int64_t share = begin; share < end; ++share) {
      const int64_t r = share / split.cols, c = share % split.cols;
      body(panels_m * r / split.rows, panels_m * (r + 1) / split.rows, panels_n * c / split.cols,
           panels_n * (c + 1) / split.cols);
    }
    stop();
  });
}

// A share is computed block of C by block: so many panels of A and, in about equal parts, of B. For
// a piece of k (of `piece` tiles at most) a block's panels stay in the second cache, and one of A
// in the first, for which B passes through it, fetched kAhead tiles ahead.
constexpr int64_t kBlockRows = 8, kBlockColumns = 20, kAhead = 2;
constexpr int64_t kBlockSums = kBlockRows * kBlockColumns * kPanel * kPanel;

template <class Block>  // block(m0, m1, n0, n1, k0, k1) in panels and tiles
void for_each_block(int64_t m0, int64_t m1, int64_t n0, int64_t n1, int64_t depth, int64_t piece,
                    Block&& block) {
  const int64_t parts = up(n1 - n0, kBlockColumns), pieces = up(depth, piece);
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t m = m0; m < m1; m += kBlockRows)
      for (int64_t p = 0; p < pieces; ++p)
        block(m, std::min(m1, m + kBlockRows), n0 + (n1 - n0) * part / parts,
              n0 + (n1 - n0) * (part + 1) / parts, depth * p / pieces, depth * (p + 1) / pieces);
}

// Whether C can be, and should be, stored past the caches.
inline bool streams(const MatmulSpec& s, const void* c) {
  return s.cold && !s.accumulate && s.ldc * size_of(s.out) % 64 == 0 &&
         reinterpret_cast<uintptr_t>(c) % 64 == 0;
}

// Of a product, what is packed at a time.
struct Strip {
  Operand x, y;       // of A and B, where they lie
  int64_t m, n, k;    // values, not panels
  int64_t column;     // its first one in C
  int64_t at;         // where its part of C begins, in values
  bool first, last;   // of those along k
  bool new_x, new_y;  // not those of the strip before
};

// Strips of at most depth tiles of `tile` values along k, m panels of A and n of B.
template <class Body>
void for_each_strip(const MatmulSpec& s, int64_t depth, int64_t tile, int64_t m_panels,
                    int64_t n_panels, const void* a, const void* b, Body&& body) {
  const auto* a_values = static_cast<const BF16*>(a);
  const auto* b_values = static_cast<const BF16*>(b);
  const int64_t one_a = s.trans_a ? s.lda : 1, one_b = s.trans_b ? 1 : s.ldb;  // to the next k
  const int64_t row_a = s.trans_a ? 1 : s.lda, col_b = s.trans_b ? s.ldb : 1;
  for (int64_t k = 0; k < s.k; k += depth * tile)
    for (int64_t m = 0; m < s.m; m += m_panels * kPanel)
      for (int64_t n = 0; n < s.n; n += n_panels * kPanel) {
        Strip strip{.m = std::min(s.m - m, m_panels * kPanel),
                    .n = std::min(s.n - n, n_panels * kPanel),
                    .k = std::min(s.k - k, depth * tile),
                    .column = n,
                    .at = m * s.ldc + n,
                    .first = k == 0,
                    .last = k + depth * tile >= s.k,
                    .new_x = n == 0,
                    .new_y = m == 0 || s.n > n_panels * kPanel};
        strip.x = {a_values + m * row_a + k * one_a, strip.m, strip.k, s.lda, s.trans_a};
        strip.y = {b_values + n * col_b + k * one_b, strip.n, strip.k, s.ldb, !s.trans_b};
        body(strip);
      }
}

}  // namespace signround::kernels::amx
