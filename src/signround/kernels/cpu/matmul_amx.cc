#include <algorithm>
#include <cstring>
#include <numeric>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/amx_plan.h"
#include "signround/kernels/cpu/amx_tiles.h"
#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels {
namespace {

using amx::kDepth;
using amx::kPanel;
using amx::kStep;
using amx::Split;
using amx::Strip;
using amx::up;
using amx::Workspace;

constexpr int64_t kBlockDepth = 9;  // tiles along k: 18 KiB of a panel

// Can tiles of A be read from where it lies? They need whole tiles along k and rows that share no
// cache lines; and of a panel's 32 rows at most 8 may fall on one set of the first cache (64 sets),
// or it forgets them before their next use.
bool reads_in_place(const MatmulSpec& s) {
  constexpr int64_t kLine = 64 / 2, kSets = 64;
  if (s.trans_a || s.k % kDepth != 0 || s.lda % kLine != 0) return false;
  return 32 * std::gcd(s.lda / kLine, kSets) / kSets <= 8;
}

class AmxPlan : public MatmulPlan {
 public:
  AmxPlan(const MatmulSpec& s, const AmxStrip& strip) : s_(s), in_place_(reads_in_place(s)) {
    depth_ = std::min(up(s.k, kDepth), up(strip.k, kDepth));
    const int64_t panels = std::max<int64_t>(1, strip.bytes / (depth_ * kStep * 2));
    m_ = std::min(up(s.m, kPanel), panels);
    n_ = std::min(up(s.n, kPanel), panels);
  }

  // Of an A that is read in place only the last panel is written.
  int64_t workspace_bytes() const {
    const int64_t panels_a = !in_place_ ? m_ : s_.m % kPanel == 0 ? 0 : 1;
    return (panels_a + n_) * depth_ * kStep * 2 + (s_.bias ? up(s_.n, kPanel) * kPanel * 4 : 0);
  }

  void run(const void* a, const void* b, const float* bias, float* c) const override {
    Workspace& w = amx::workspace();
    const Packed packed{Workspace::room<BF16>(w.a, m_ * depth_ * kStep),
                        Workspace::room<BF16>(w.b, n_ * depth_ * kStep)};
    const float* padded_bias = s_.bias ? pad_bias(w, bias, c) : nullptr;
    amx::for_each_strip(s_, depth_, kDepth, m_, n_, a, b, c, [&](const Strip& strip) {
      multiply(strip, packed,
               padded_bias && !strip.accumulate ? padded_bias + strip.column : nullptr);
    });
  }

 private:
  struct Packed {
    BF16 *a, *b;
  };

  // The bias with room behind it, since tiles read whole panels. Where C is added to, the bias is
  // added first.
  const float* pad_bias(Workspace& w, const float* bias, float* c) const {
    if (s_.accumulate) {
      for (int64_t i = 0; i < s_.m; ++i)
        for (int64_t j = 0; j < s_.n; ++j) c[i * s_.ldc + j] += bias[j];
      return nullptr;
    }
    float* padded = Workspace::room<float>(w.bias, up(s_.n, kPanel) * kPanel);
    std::fill(std::copy_n(bias, s_.n, padded), padded + up(s_.n, kPanel) * kPanel, 0.0f);
    return padded;
  }

  // Of an A that is read in place only the last panel, if it is not whole.
  void pack(const Strip& s, const Packed& to) const {
    const int64_t first_a = in_place_ ? s.m / kPanel : 0, end_a = up(s.m, kPanel);
    const int64_t of_a = s.new_x ? end_a - first_a : 0, of_b = s.new_y ? up(s.n, kPanel) : 0;
    parallel_for(of_a + of_b, 1, [&](int64_t begin, int64_t end) {
      if (begin < of_a) amx::pack_a(s.x, first_a + begin, first_a + std::min(end, of_a), to.a);
      if (end > of_a) amx::pack_b(s.y, std::max(begin, of_a) - of_a, end - of_a, to.b);
    });
  }

  // Where nothing of A is packed and every thread has columns of its own, it packs what it needs of
  // B itself: threads wait for each other once, not twice.
  void multiply(const Strip& s, const Packed& packed, const float* bias) const {
    const bool whole_a_in_place = in_place_ && s.m % kPanel == 0;
    const int64_t panels_m = up(s.m, kPanel), panels_n = up(s.n, kPanel);
    const Split split(panels_m, panels_n, whole_a_in_place);
    const bool pack_own = whole_a_in_place && split.rows == 1;
    if (!pack_own) pack(s, packed);
    amx::for_each_share(
        split, panels_m, panels_n, [&](int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
          if (pack_own && s.new_y) amx::pack_b(s.y, n0, n1, packed.b);
          amx::for_each_block(m0, m1, n0, n1, up(s.k, kDepth), kBlockDepth,
                              [&](auto... block) { multiply_block(s, packed, bias, block...); });
        });
  }

  void multiply_block(const Strip& s, const Packed& packed, const float* bias, int64_t m0,
                      int64_t m1, int64_t n0, int64_t n1, int64_t k0, int64_t k1) const {
    const int64_t depth = up(s.k, kDepth);
    for (int64_t i = m0; i < m1; ++i) {
      const int64_t rows = std::min(kPanel, s.m - i * kPanel);
      const bool in_place = in_place_ && rows == kPanel;
      const BF16* a = in_place ? s.x.data + i * kPanel * s_.lda + k0 * kDepth
                               : packed.a + (i * depth + k0) * kStep;
      for (int64_t j = n0; j < n1; ++j) {
        amx::Tile tile{.a = a,
                       .a_stride = in_place ? s_.lda : 0,
                       .b = packed.b + (j * depth + k0) * kStep,
                       .next_b = packed.b + ((j + 1 < n1 ? j + 1 : n0) * depth + k0) * kStep,
                       .depth = k1 - k0,
                       .c = s.c + i * kPanel * s_.ldc + j * kPanel,
                       .stride = s_.ldc,
                       .accumulate = s.accumulate || k0 > 0,
                       .bias = bias ? bias + j * kPanel : nullptr};
        const int64_t cols = std::min(kPanel, s.n - j * kPanel);
        if (rows == kPanel && cols == kPanel)
          amx::multiply(tile);
        else
          multiply_edge(tile, rows, cols);
      }
    }
  }

  // A panel that reaches beyond C goes through a copy.
  static void multiply_edge(amx::Tile tile, int64_t rows, int64_t cols) {
    alignas(64) float whole[kPanel * kPanel] = {};
    const auto bytes = static_cast<size_t>(cols) * sizeof(float);
    float* c = tile.c;
    const int64_t stride = tile.stride;
    if (tile.accumulate)
      for (int64_t i = 0; i < rows; ++i) std::memcpy(whole + i * kPanel, c + i * stride, bytes);
    tile.c = whole, tile.stride = kPanel;
    amx::multiply(tile);
    for (int64_t i = 0; i < rows; ++i) std::memcpy(c + i * stride, whole + i * kPanel, bytes);
  }

  MatmulSpec s_;
  bool in_place_;          // tiles of A are read from where it lies
  int64_t depth_, m_, n_;  // of a strip: tiles along k, panels of A and of B
};

}  // namespace

const char* why_not_matmul_amx() { return amx::why_not(); }

int64_t matmul_amx_workspace_bytes(const MatmulSpec& spec) {
  return AmxPlan(spec, {}).workspace_bytes();
}

std::unique_ptr<MatmulPlan> matmul_amx(const MatmulSpec& spec) { return matmul_amx(spec, {}); }

std::unique_ptr<MatmulPlan> matmul_amx(const MatmulSpec& spec, const AmxStrip& strip) {
  require(spec.in == DType::kBF16, "matmul", "AMX tiles multiply BF16, found ", name_of(spec.in));
  // Also asks the system for the tiles, without which their instructions are illegal ones.
  if (const char* reason = amx::why_not()) fail(ErrorKind::kUnsupported, "matmul", reason);
  return std::make_unique<AmxPlan>(spec, strip);
}

}  // namespace signround::kernels
