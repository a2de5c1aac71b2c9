#include "signround/kernels/cpu/panel_plan.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>
#include <vector>

namespace signround::kernels::panels {
namespace {

TEST(PanelPlan, PiecesCoverAShareOnceAndEachIsToldOfTheNext) {
  for (const int64_t columns : {kNarrowColumns, kBlockColumns})
    for (const int64_t m1 : {4, 12, 27})
      for (const int64_t n1 : {3, 18, 50})
        for (const int64_t depth : {1, 9, 64}) {
          std::set<std::tuple<int64_t, int64_t, int64_t>> seen;
          std::vector<Piece> nows, nexts;
          for_each_piece(3, m1, 2, n1, columns, depth, 9, [&](const Piece& now, const Piece& next) {
            nows.push_back(now), nexts.push_back(next);
            EXPECT_LE(now.m1 - now.m0, kBlockRows);
            EXPECT_LE(now.n1 - now.n0, columns);
            EXPECT_LE(now.k1 - now.k0, 9);
            for (int64_t i = now.m0; i < now.m1; ++i)
              for (int64_t j = now.n0; j < now.n1; ++j)
                for (int64_t k = now.k0; k < now.k1; ++k)
                  EXPECT_TRUE(seen.insert({i, j, k}).second) << i << " " << j << " " << k;
          });
          EXPECT_EQ(static_cast<int64_t>(seen.size()), (m1 - 3) * (n1 - 2) * depth);
          const auto same = [](const Piece& a, const Piece& b) {
            return std::tie(a.m0, a.m1, a.n0, a.n1, a.k0, a.k1) ==
                   std::tie(b.m0, b.m1, b.n0, b.n1, b.k0, b.k1);
          };
          for (size_t i = 0; i < nows.size(); ++i)
            EXPECT_TRUE(same(nexts[i], nows[std::min(i + 1, nows.size() - 1)])) << i;
        }
}

// Lines of 64 bytes that all products of `now` fetch, of panels whose lines lie as `lines` says.
template <class Of>
std::set<const char*> fetched(const Piece& now, Of&& ahead_of) {
  std::set<const char*> seen;
  for (int64_t i = now.m0; i < now.m1; ++i)
    for (int64_t j = now.n0; j < now.n1; ++j) {
      const Ahead ahead = ahead_of(i, j);
      for (int64_t step = 0; step < now.k1 - now.k0; ++step)
        for (int64_t line = 0; line < kLinesAhead; ++line)
          seen.insert(static_cast<const char*>(ahead.line) + step * ahead.step + line * ahead.row);
    }
  return seen;
}

TEST(PanelPlan, ProductsOfAPieceFetchAllOfTheNextOne) {
  constexpr int64_t kTiles = 18, kPanelBytes = kTiles * kStep * 2;
  const std::vector<char> panels(20 * kPanelBytes);
  const Lines packed = packed_lines(panels.data(), kPanelBytes);
  // The same panels as rows of one matrix, whose lines lie kTiles * 64 bytes apart.
  const Lines in_place{panels.data(), kTiles * 64, 64, kPanel * kTiles * 64};
  const Piece now{0, 8, 0, 12, 0, 9}, next{8, 16, 3, 15, 9, 18};
  for (const Lines& lines : {packed, in_place}) {
    const auto lines_of = [&](int64_t begin, int64_t end) {
      std::set<const char*> all;
      for (int64_t panel = begin; panel < end; ++panel)
        for (int64_t k = next.k0; k < next.k1; ++k)
          for (int64_t line = 0; line < kPanel; ++line)
            all.insert(panels.data() + panel * lines.panel + k * lines.step + line * lines.row);
      return all;
    };
    EXPECT_EQ(fetched(now, [&](int64_t i, int64_t j) { return of_next_a(lines, now, next, i, j); }),
              lines_of(8, 16));
    EXPECT_EQ(fetched(now, [&](int64_t i, int64_t j) { return of_next_b(lines, now, next, i, j); }),
              lines_of(3, 15));
  }
}

}  // namespace
}  // namespace signround::kernels::panels
