// What products of panels have in common: how C is cut for threads and caches, and room for packed
// operands.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "signround/base/parallel.h"
#include "signround/kernels/cpu/kept.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/panels.h"

namespace signround::kernels::panels {

inline int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to; }

// Packed operands of the product that this thread runs, and A and the sums of the block that it
// computes.
struct Workspace {
  Buffer a, b, bias, steps, excess, block, sums;
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

// body(m0, m1, n0, n1), in panels, of every thread's share, where products of the unit can run.
template <class AnyUnit, class Body>
void for_each_share(const AnyUnit& unit, const Split& split, int64_t panels_m, int64_t panels_n,
                    Body&& body) {
  parallel_for(split.rows * split.cols, 1, [&](int64_t begin, int64_t end) {
    unit.start();
    for (int64_t share = begin; share < end; ++share) {
      const int64_t r = share / split.cols, c = share % split.cols;
      body(panels_m * r / split.rows, panels_m * (r + 1) / split.rows, panels_n * c / split.cols,
           panels_n * (c + 1) / split.cols);
    }
    unit.stop();
  });
}

// A share is computed block of C by block: so many panels of A and, in about equal parts, of B. For
// a piece of k (of `piece` tiles at most) a block's panels stay in the second cache, and one of A
// in the first, for which B passes through it, fetched kAhead tiles ahead. Blocks are as wide as
// they may be where the second cache holds all of k of their B from block to block (at most
// kShortDepth tiles), or where A is packed anew for each part of B; else narrower, so that it holds
// the next piece too.
constexpr int64_t kBlockRows = 8, kBlockColumns = 20, kNarrowColumns = 12, kShortDepth = 24,
                  kAhead = 2;
constexpr int64_t kBlockSums = kBlockRows * kBlockColumns * kPanel * kPanel;

// Panels of A [m0, m1) and of B [n0, n1), tiles [k0, k1) along k.
struct Piece {
  int64_t m0, m1, n0, n1, k0, k1;
};

template <class Body>  // body(piece, next): next is the one after it, or the same where it is last
void for_each_piece(int64_t m0, int64_t m1, int64_t n0, int64_t n1, int64_t columns, int64_t depth,
                    int64_t piece, Body&& body) {
  const int64_t parts = up(n1 - n0, columns), pieces = up(depth, piece);
  std::optional<Piece> before;
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t m = m0; m < m1; m += kBlockRows)
      for (int64_t p = 0; p < pieces; ++p) {
        const Piece now{m,
                        std::min(m1, m + kBlockRows),
                        n0 + (n1 - n0) * part / parts,
                        n0 + (n1 - n0) * (part + 1) / parts,
                        depth * p / pieces,
                        depth * (p + 1) / pieces};
        if (before) body(*before, now);
        before = now;
      }
  if (before) body(*before, *before);
}

// The 32 lines that a panel's tile of depth is made from: those of panel 0 and tile 0, and how many
// bytes it is from line to line, from tile to tile and from panel to panel.
struct Lines {
  const void* first;
  int64_t row, step, panel;
};
inline Lines packed_lines(const void* panels, int64_t bytes) {
  return {panels, 64, kStep * int64_t{sizeof(BF16)}, bytes};
}

// Of a panel's lines, from tile k on, what part `part` of `parts` fetches: all of them where there
// are 8 parts or more.
inline Ahead ahead(const Lines& lines, int64_t panel, int64_t k, int64_t part, int64_t parts) {
  const int64_t line = std::min(kPanel * part / parts, kPanel - kLinesAhead);
  return {static_cast<const char*>(lines.first) + panel * lines.panel + k * lines.step +
              line * lines.row,
          lines.row, lines.step};
}
// The product of panels i and j of a piece fetches its share of those that take their places in the
// next one: together the piece's products fetch all of it.
inline Ahead of_next_a(const Lines& a, const Piece& now, const Piece& next, int64_t i, int64_t j) {
  return ahead(a, std::min(next.m0 + i - now.m0, next.m1 - 1), next.k0, j - now.n0,
               now.n1 - now.n0);
}
inline Ahead of_next_b(const Lines& b, const Piece& now, const Piece& next, int64_t i, int64_t j) {
  return ahead(b, std::min(next.n0 + j - now.n0, next.n1 - 1), next.k0, i - now.m0,
               now.m1 - now.m0);
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

}  // namespace signround::kernels::panels
