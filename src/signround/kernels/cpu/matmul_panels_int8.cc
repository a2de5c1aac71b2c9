#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/int8_panels.h"
#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/panel_plan.h"

namespace signround::kernels {
namespace {

using panels::kInt8Depth;
using panels::kInt8Step;
using panels::kPanel;
using panels::Lines;
using panels::Piece;
using panels::Split;
using panels::Strip;
using panels::up;
using panels::Workspace;

constexpr int64_t kBlockDepth = 9;  // tiles along k: 18 KiB of a panel
static_assert(kInt8Step == panels::kStep * sizeof(BF16), "panels::packed_lines counts on it");

class Int8Plan : public MatmulPlan {
 public:
  Int8Plan(const panels::Int8Unit& unit, const MatmulSpec& s, int64_t strip_bytes)
      : unit_(unit), s_(s), depth_(std::min(up(s.k, kInt8Depth), kInt8StepValues / kInt8Depth)) {
    const int64_t panels = std::max<int64_t>(1, strip_bytes / (depth_ * kInt8Step));
    m_ = std::min(up(s.m, kPanel), panels);
    n_ = std::min(up(s.n, kPanel), panels);
  }

  int64_t workspace_bytes() const {
    const int64_t sums = depth_ > kBlockDepth ? panels::kBlockSums * int64_t{sizeof(int32_t)} : 0;
    return (m_ + n_) * (depth_ * kInt8Step + kPanel * int64_t{sizeof(float)}) +
           n_ * kPanel * int64_t{sizeof(int32_t)} + num_threads() * sums;
  }

  void run(const void* a, const void* b, const float*, void* c, const float* from) const override {
    if (!s_.accumulate) from = nullptr;
    if (s_.accumulate && from == nullptr) from = static_cast<const float*>(c);
    Workspace& w = panels::workspace();
    float* steps = room<float>(w.steps, (m_ + n_) * kPanel);
    int32_t* excess =
        unit_.codes == panels::Codes::kPlus128 ? room<int32_t>(w.excess, n_ * kPanel) : nullptr;
    const Packed packed{room<int8_t>(w.a, m_ * depth_ * kInt8Step),
                        room<int8_t>(w.b, n_ * depth_ * kInt8Step), steps, steps + m_ * kPanel,
                        excess};
    const bool streams_c = panels::streams(s_, c);
    panels::for_each_strip(s_, depth_, kInt8Depth, m_, n_, a, b, [&](const Strip& strip) {
      const auto* sums = strip.first ? from : static_cast<const float*>(c);
      multiply(strip, packed,
               {.from = sums ? sums + strip.at : nullptr,
                .c = static_cast<char*>(c) + strip.at * size_of(s_.out),
                .streams = streams_c && strip.last});
    });
  }

 private:
  struct Packed {
    int8_t *a, *b;
    float *a_steps, *b_steps;
    int32_t* excess;  // null where the unit wants none
  };

  // Of a strip's part of C: where it lies, and what its sums start from.
  struct Place {
    const float* from;  // or null
    void* c;
    bool streams;  // past the caches
  };

  void multiply(const Strip& s, const Packed& packed, const Place& place) const {
    const int64_t panels_m = up(s.m, kPanel), panels_n = up(s.n, kPanel);
    const int64_t of_a = s.new_x ? panels_m : 0, of_b = s.new_y ? panels_n : 0;
    parallel_for(of_a + of_b, 1, [&](int64_t begin, int64_t end) {
      if (begin < of_a)
        panels::quantize_a(s.x, begin, std::min(end, of_a), unit_.codes, packed.a, packed.a_steps);
      if (end > of_a)
        panels::quantize_b(s.y, std::max(begin, of_a) - of_a, end - of_a, packed.b, packed.b_steps,
                           packed.excess);
    });
    panels::for_each_share(
        unit_, Split(panels_m, panels_n, false), panels_m, panels_n,
        [&](int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
          int32_t* sums = depth_ > kBlockDepth
                              ? room<int32_t>(panels::workspace().sums, panels::kBlockSums)
                              : nullptr;
          panels::for_each_piece(m0, m1, n0, n1, panels::kNarrowColumns, up(s.k, kInt8Depth),
                                 kBlockDepth, [&](const Piece& now, const Piece& next) {
                                   multiply_block(s, packed, place, sums, now, next);
                                 });
        });
  }

  // block_sums: of its values between pieces of k, tile by tile.
  void multiply_block(const Strip& s, const Packed& packed, const Place& place, int32_t* block_sums,
                      const Piece& b, const Piece& next) const {
    const int64_t depth = up(s.k, kInt8Depth);
    const Lines of_a = panels::packed_lines(packed.a, depth * kInt8Step),
                of_b = panels::packed_lines(packed.b, depth * kInt8Step);
    alignas(64) int32_t own[kPanel * kPanel];
    for (int64_t i = b.m0; i < b.m1; ++i)
      for (int64_t j = b.n0; j < b.n1; ++j) {
        int32_t* sums = block_sums
                            ? block_sums + ((i - b.m0) * (b.n1 - b.n0) + j - b.n0) * kPanel * kPanel
                            : own;
        const int64_t next_j = j + 1 < b.n1 ? j + 1 : b.n0;
        unit_.multiply(
            panels::Int8Tile{.a = packed.a + (i * depth + b.k0) * kInt8Step,
                             .b = packed.b + (j * depth + b.k0) * kInt8Step,
                             .next_b = packed.b + (next_j * depth + b.k0) * kInt8Step,
                             .ahead_a = panels::of_next_a(of_a, b, next, i, j),
                             .ahead_b = panels::of_next_b(of_b, b, next, i, j),
                             .depth = b.k1 - b.k0,
                             .from = b.k0 > 0 ? sums : nullptr,
                             .excess = packed.excess ? packed.excess + j * kPanel : nullptr,
                             .sums = sums});
        if (b.k1 == depth) store(s, packed, place, i, j, sums);
      }
  }

  // Panels i of A and j of B, from the sums over all of the strip's k.
  void store(const Strip& s, const Packed& packed, const Place& place, int64_t i, int64_t j,
             const int32_t* sums) const {
    const int64_t at = i * kPanel * s_.ldc + j * kPanel;
    panels::Int8Sums tile{.sums = sums,
                          .a_steps = packed.a_steps + i * kPanel,
                          .b_steps = packed.b_steps + j * kPanel,
                          .from = place.from ? place.from + at : nullptr,
                          .from_stride = s_.ldc,
                          .c = s_.out == DType::kF32 ? static_cast<float*>(place.c) + at : nullptr,
                          .stride = s_.ldc,
                          .rows = std::min(kPanel, s.m - i * kPanel),
                          .cols = std::min(kPanel, s.n - j * kPanel)};
    const bool complete = tile.rows == kPanel && tile.cols == kPanel;
    if (s_.out == DType::kF32 && !(complete && place.streams)) return panels::scale(tile);
    alignas(64) float whole[kPanel * kPanel];
    tile.c = whole, tile.stride = kPanel;
    panels::scale(tile);
    if (s_.out == DType::kF32)
      panels::stream_tile(whole, static_cast<float*>(place.c) + at, s_.ldc);
    else if (complete && place.streams)
      panels::stream_rounded_tile(whole, static_cast<BF16*>(place.c) + at, s_.ldc);
    else
      panels::store_rounded_tile(whole, tile.rows, tile.cols, static_cast<BF16*>(place.c) + at,
                                 s_.ldc);
  }

  const panels::Int8Unit& unit_;
  MatmulSpec s_;
  int64_t depth_, m_, n_;  // of a strip: tiles along k, panels of A and of B
};

const panels::Int8Unit& unit_of(PanelUnit unit) {
  return unit == PanelUnit::kAmx ? panels::kAmxInt8 : panels::kAvx512Int8;
}

}  // namespace

const char* why_not_matmul_panels_int8(PanelUnit unit) { return unit_of(unit).why_not(); }

int64_t matmul_panels_int8_workspace_bytes(const MatmulSpec& spec) {
  return Int8Plan(panels::kAmxInt8, spec, PanelStrip{}.bytes).workspace_bytes();
}

std::unique_ptr<MatmulPlan> matmul_panels_int8(PanelUnit unit, const MatmulSpec& spec,
                                               int64_t strip_bytes) {
  require(spec.int8 && spec.in == DType::kBF16 && !spec.bias, "matmul",
          "panels of 8-bit integers are of rounded BF16 without a bias, found ", name_of(spec.in));
  if (const char* reason = why_not_matmul_panels_int8(unit))
    fail(ErrorKind::kUnsupported, "matmul", reason);
  return std::make_unique<Int8Plan>(unit_of(unit), spec, strip_bytes);
}

}  // namespace signround::kernels
