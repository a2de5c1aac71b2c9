#include <algorithm>
#include <cstring>
#include <numeric>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/panel_plan.h"
#include "signround/kernels/cpu/panels.h"

namespace signround::kernels {
namespace {

using panels::kDepth;
using panels::kPanel;
using panels::kStep;
using panels::Lines;
using panels::Piece;
using panels::Split;
using panels::Strip;
using panels::up;
using panels::Workspace;

constexpr int64_t kBlockDepth = 9;  // tiles along k: 18 KiB of a panel

// Can tiles of A be read from where it lies? They need whole tiles along k and rows that share no
// cache lines; and of a panel's 32 rows at most 8 may fall on one set of the first cache (64 sets),
// or it forgets them before their next use.
bool reads_in_place(const MatmulSpec& s) {
  constexpr int64_t kLine = 64 / 2, kSets = 64;
  if (s.trans_a || s.k % kDepth != 0 || s.lda % kLine != 0) return false;
  return 32 * std::gcd(s.lda / kLine, kSets) / kSets <= 8;
}

class PanelPlan : public MatmulPlan {
 public:
  PanelPlan(const panels::Unit& unit, const MatmulSpec& s, const PanelStrip& strip)
      : unit_(unit), s_(s), in_place_(reads_in_place(s)) {
    depth_ = up(s.k, kDepth);
    // Between strips along k, C holds the sums.
    if (s.out == DType::kF32) depth_ = std::min(depth_, up(strip.k, kDepth));
    const int64_t panels = std::max<int64_t>(1, strip.bytes / (depth_ * kStep * 2));
    m_ = std::min(up(s.m, kPanel), panels);
    n_ = std::min(up(s.n, kPanel), panels);
    packs_blocks_ = !in_place_ && up(n_, Split(m_, n_, false).cols) <= 2 * panels::kBlockColumns;
  }

  // Of an A that is read in place only the last panel is written.
  int64_t workspace_bytes() const {
    const int64_t panels_a = in_place_ ? (s_.m % kPanel != 0) : packs_blocks_ ? 0 : m_;
    const int64_t of_block = (packs_blocks_ ? kBlockPanels * 2 : 0) +
                             (depth_ > kBlockDepth ? panels::kBlockSums * 4 : 0);
    return (panels_a + n_) * depth_ * kStep * 2 + (s_.bias ? up(s_.n, kPanel) * kPanel * 4 : 0) +
           num_threads() * of_block;
  }

  void run(const void* a, const void* b, const float* bias, void* c,
           const float* from) const override {
    if (!s_.accumulate) from = nullptr;
    if (s_.accumulate && from == nullptr) from = static_cast<const float*>(c);
    Workspace& w = panels::workspace();
    const Packed packed{room<BF16>(w.a, packs_blocks_ ? 0 : m_ * depth_ * kStep),
                        room<BF16>(w.b, n_ * depth_ * kStep)};
    const float* padded_bias = s_.bias ? pad_bias(w, bias, c, from) : nullptr;
    const bool streams_c = panels::streams(s_, c);
    panels::for_each_strip(s_, depth_, kDepth, m_, n_, a, b, [&](const Strip& strip) {
      const auto* sums = strip.first ? from : static_cast<const float*>(c);
      multiply(strip, packed,
               {.bias = padded_bias && strip.first ? padded_bias + strip.column : nullptr,
                .from = sums ? sums + strip.at : nullptr,
                .c = static_cast<char*>(c) + strip.at * size_of(s_.out),
                .streams = streams_c && strip.last});
    });
  }

 private:
  struct Packed {
    BF16 *a, *b;
  };

  // Of a strip's part of C: where it lies, and what its sums start from.
  struct Place {
    const float *bias, *from;  // one of them, or none
    void* c;
    bool streams;  // past the caches
  };

  // The bias with room behind it, since tiles read whole panels. Where C is added to, the bias is
  // added first.
  const float* pad_bias(Workspace& w, const float* bias, void* c, const float*& from) const {
    if (s_.accumulate) {
      auto* sums = static_cast<float*>(c);
      for (int64_t i = 0; i < s_.m; ++i)
        for (int64_t j = 0; j < s_.n; ++j) sums[i * s_.ldc + j] = from[i * s_.ldc + j] + bias[j];
      from = sums;
      return nullptr;
    }
    float* padded = room<float>(w.bias, up(s_.n, kPanel) * kPanel);
    std::fill(std::copy_n(bias, s_.n, padded), padded + up(s_.n, kPanel) * kPanel, 0.0f);
    return padded;
  }

  // Of an A that is read in place only the last panel, if it is not whole.
  void pack(const Strip& s, const Packed& to) const {
    const int64_t end_a = packs_blocks_ ? 0 : up(s.m, kPanel),
                  first_a = in_place_ ? s.m / kPanel : 0;
    const int64_t of_a = s.new_x ? end_a - first_a : 0, of_b = s.new_y ? up(s.n, kPanel) : 0;
    parallel_for(of_a + of_b, 1, [&](int64_t begin, int64_t end) {
      if (begin < of_a) panels::pack_a(s.x, first_a + begin, first_a + std::min(end, of_a), to.a);
      if (end > of_a) panels::pack_b(s.y, std::max(begin, of_a) - of_a, end - of_a, to.b);
    });
  }

  // Where nothing of A is packed for all and every thread has columns of its own, it packs what it
  // needs of B itself: threads wait for each other once, not twice.
  void multiply(const Strip& s, const Packed& packed, const Place& place) const {
    const bool whole_a_in_place = in_place_ && s.m % kPanel == 0;
    const int64_t panels_m = up(s.m, kPanel), panels_n = up(s.n, kPanel);
    const Split split(panels_m, panels_n, whole_a_in_place);
    const bool pack_own = (whole_a_in_place || packs_blocks_) && split.rows == 1;
    if (!pack_own) pack(s, packed);
    panels::for_each_share(
        unit_, split, panels_m, panels_n, [&](int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
          if (pack_own && s.new_y) panels::pack_b(s.y, n0, n1, packed.b);
          Workspace& w = panels::workspace();
          Block block{.a = packs_blocks_ ? room<BF16>(w.block, kBlockPanels) : nullptr};
          if (depth_ > kBlockDepth) block.sums = room<float>(w.sums, panels::kBlockSums);
          const int64_t depth = up(s.k, kDepth);
          const bool wide = packs_blocks_ || depth <= panels::kShortDepth;
          panels::for_each_piece(m0, m1, n0, n1,
                                 wide ? panels::kBlockColumns : panels::kNarrowColumns, depth,
                                 kBlockDepth, [&](const Piece& now, const Piece& next) {
                                   block.now = now, block.next = next;
                                   if (packs_blocks_) pack_block(s.x, block);
                                   multiply_block(s, packed, place, block);
                                 });
        });
  }

  // Panels and tiles of a block, and what its thread keeps for it.
  struct Block {
    BF16* a = nullptr;      // its panels of A, if they are packed block by block
    float* sums = nullptr;  // of its values between pieces of k, tile by tile: C's rows often lie a
                            // power of two of bytes apart, and then few fit in the caches at a time
    Piece now, next;
  };

  static void pack_block(const panels::Operand& x, const Block& block) {
    const Piece& b = block.now;
    panels::Operand part = x;
    const int64_t row = b.m0 * kPanel, k = b.k0 * kDepth;
    part.data += x.k_major ? k * x.stride + row : row * x.stride + k;
    part.outer -= row;
    part.k = std::min(x.k, b.k1 * kDepth) - k;
    panels::pack_a(part, 0, b.m1 - b.m0, block.a);
  }

  // Of A, where products or pack_block read it.
  Lines lines_of_a(const Strip& s, const Packed& packed) const {
    if (!packs_blocks_ && !in_place_)
      return panels::packed_lines(packed.a, up(s.k, kDepth) * kStep * 2);
    const int64_t stride = s.x.stride * 2;
    if (s.x.k_major) return {s.x.data, stride, kDepth * stride, kPanel * 2};
    return {s.x.data, stride, kDepth * 2, kPanel * stride};
  }

  void multiply_block(const Strip& s, const Packed& packed, const Place& place,
                      const Block& block) const {
    const Piece &b = block.now, &next = block.next;
    const int64_t depth = up(s.k, kDepth);
    const Lines of_a = lines_of_a(s, packed),
                of_b = panels::packed_lines(packed.b, depth * kStep * 2);
    // Of an A that is read in place and is not deep, most is in the caches without.
    const bool fetches = !in_place_ || depth > panels::kShortDepth;
    const bool first = b.k0 == 0, last = b.k1 == depth;
    for (int64_t i = b.m0; i < b.m1; ++i) {
      const int64_t rows = std::min(kPanel, s.m - i * kPanel);
      const bool in_place = in_place_ && rows == kPanel;
      const BF16* a = in_place        ? s.x.data + i * kPanel * s_.lda + b.k0 * kDepth
                      : packs_blocks_ ? block.a + (i - b.m0) * (b.k1 - b.k0) * kStep
                                      : packed.a + (i * depth + b.k0) * kStep;
      for (int64_t j = b.n0; j < b.n1; ++j) {
        const int64_t next_j = j + 1 < b.n1 ? j + 1 : b.n0,
                      cols = std::min(kPanel, s.n - j * kPanel);
        float* sums = block.sums
                          ? block.sums + ((i - b.m0) * (b.n1 - b.n0) + j - b.n0) * kPanel * kPanel
                          : nullptr;
        panels::Tile tile{.a = a,
                          .a_stride = in_place ? s_.lda : 0,
                          .b = packed.b + (j * depth + b.k0) * kStep,
                          .next_b = packed.b + (next_j * depth + b.k0) * kStep,
                          .depth = b.k1 - b.k0,
                          .c = sums,
                          .stride = kPanel,
                          .from = first ? nullptr : sums,
                          .from_stride = kPanel,
                          .bias = place.bias ? place.bias + j * kPanel : nullptr};
        if (fetches) {
          tile.ahead_a = panels::of_next_a(of_a, b, next, i, j);
          tile.ahead_b = panels::of_next_b(of_b, b, next, i, j);
        }
        const int64_t at = i * kPanel * s_.ldc + j * kPanel;
        const float* from = first && place.from ? place.from + at : nullptr;
        char* c = last ? static_cast<char*>(place.c) + at * size_of(s_.out) : nullptr;
        if (rows < kPanel || cols < kPanel || (last && (place.streams || s_.out == DType::kBF16))) {
          multiply_copied(tile, rows, cols, from, c, place.streams);
          continue;
        }
        if (from) tile.from = from, tile.from_stride = s_.ldc;
        if (last) tile.c = reinterpret_cast<float*>(c), tile.stride = s_.ldc;
        unit_.multiply(tile);
      }
    }
  }

  // A panel that reaches beyond C, is rounded or streamed, takes values (rows, cols), `from` others
  // or `to` C, through a copy in the first cache. By reference: copying what was just written field
  // by field waits until all earlier stores, those of tiles too, have left.
  void multiply_copied(panels::Tile& tile, int64_t rows, int64_t cols, const float* from, void* to,
                       bool streams) const {
    alignas(64) float whole[kPanel * kPanel];
    const bool complete = rows == kPanel && cols == kPanel;
    const auto bytes = static_cast<size_t>(cols) * sizeof(float);
    if (from && complete) {
      tile.from = from, tile.from_stride = s_.ldc;
    } else if (from) {
      std::memset(whole, 0, sizeof whole);
      for (int64_t i = 0; i < rows; ++i) std::memcpy(whole + i * kPanel, from + i * s_.ldc, bytes);
      tile.from = whole, tile.from_stride = kPanel;
    }
    if (to) tile.c = whole, tile.stride = kPanel;
    unit_.multiply(tile);
    if (to == nullptr) return;
    const bool rounds = s_.out == DType::kBF16;
    if (rounds && complete && streams) {
      panels::stream_rounded_tile(whole, static_cast<BF16*>(to), s_.ldc);
    } else if (rounds) {
      panels::store_rounded_tile(whole, rows, cols, static_cast<BF16*>(to), s_.ldc);
    } else if (complete && streams) {
      panels::stream_tile(whole, static_cast<float*>(to), s_.ldc);
    } else {
      for (int64_t i = 0; i < rows; ++i)
        std::memcpy(static_cast<float*>(to) + i * s_.ldc, whole + i * kPanel, bytes);
    }
  }

  static constexpr int64_t kBlockPanels = panels::kBlockRows * kBlockDepth * kStep;

  const panels::Unit& unit_;
  MatmulSpec s_;
  bool in_place_;          // tiles of A are read from where it lies
  bool packs_blocks_;      // A is packed block by block, by the thread that reads it, since few do
  int64_t depth_, m_, n_;  // of a strip: tiles along k, panels of A and of B
};

const panels::Unit& unit_of(PanelUnit unit) {
  return unit == PanelUnit::kAmx ? panels::kAmx : panels::kAvx512;
}

}  // namespace

const char* why_not_matmul_panels(PanelUnit unit) { return unit_of(unit).why_not(); }

int64_t matmul_panels_workspace_bytes(const MatmulSpec& spec) {
  return PanelPlan(panels::kAmx, spec, {}).workspace_bytes();
}

std::unique_ptr<MatmulPlan> matmul_panels(PanelUnit unit, const MatmulSpec& spec,
                                          const PanelStrip& strip) {
  require(spec.in == DType::kBF16, "matmul", "panels are of BF16, found ", name_of(spec.in));
  // Also asks the system for the tiles, without which their instructions are illegal ones.
  if (const char* reason = why_not_matmul_panels(unit))
    fail(ErrorKind::kUnsupported, "matmul", reason);
  return std::make_unique<PanelPlan>(unit_of(unit), spec, strip);
}

}  // namespace signround::kernels
