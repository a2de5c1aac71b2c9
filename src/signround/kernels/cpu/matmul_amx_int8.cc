#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/amx_int8_tiles.h"
#include "signround/kernels/cpu/amx_plan.h"
#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/matmul.h"

namespace signround::kernels {
namespace {

using amx::kInt8Depth;
using amx::kInt8Step;
using amx::kPanel;
using amx::Split;
using amx::up;
using amx::Workspace;

// Tiles along k: 32 KiB of a panel. Longer pieces than of bf16 mean fewer conversions of sums.
constexpr int64_t kBlockDepth = 16;

class Int8Plan : public MatmulPlan {
 public:
  Int8Plan(const MatmulSpec& s, int64_t strip_bytes)
      : s_(s), depth_(std::min(up(s.k, kInt8Depth), kInt8StepValues / kInt8Depth)) {
    const int64_t panels = std::max<int64_t>(1, strip_bytes / (depth_ * kInt8Step));
    m_ = std::min(up(s.m, kPanel), panels);
    n_ = std::min(up(s.n, kPanel), panels);
  }

  int64_t workspace_bytes() const {
    return (m_ + n_) * (depth_ * kInt8Step + kPanel * int64_t{sizeof(float)});
  }

  void run(const void* a, const void* b, const float*, float* c) const override {
    const auto* a_values = static_cast<const BF16*>(a);
    const auto* b_values = static_cast<const BF16*>(b);
    Workspace& w = amx::workspace();
    float* steps = Workspace::room<float>(w.steps, (m_ + n_) * kPanel);
    Strip strip{.a = Workspace::room<int8_t>(w.a, m_ * depth_ * kInt8Step),
                .b = Workspace::room<int8_t>(w.b, n_ * depth_ * kInt8Step),
                .a_steps = steps,
                .b_steps = steps + m_ * kPanel};
    const int64_t one_a = s_.trans_a ? s_.lda : 1,
                  one_b = s_.trans_b ? 1 : s_.ldb;  // to the next k
    const int64_t row_a = s_.trans_a ? 1 : s_.lda, col_b = s_.trans_b ? s_.ldb : 1;
    for (int64_t k = 0; k < s_.k; k += depth_ * kInt8Depth)
      for (int64_t m = 0; m < s_.m; m += m_ * kPanel)
        for (int64_t n = 0; n < s_.n; n += n_ * kPanel) {
          strip.k = std::min(s_.k - k, depth_ * kInt8Depth);
          strip.m = std::min(s_.m - m, m_ * kPanel);
          strip.n = std::min(s_.n - n, n_ * kPanel);
          strip.x = {a_values + m * row_a + k * one_a, strip.m, strip.k, s_.lda, s_.trans_a};
          strip.y = {b_values + n * col_b + k * one_b, strip.n, strip.k, s_.ldb, !s_.trans_b};
          strip.c = c + m * s_.ldc + n;
          strip.accumulate = s_.accumulate || k > 0;
          // A changes with m and k, B with n and k.
          multiply(strip, n == 0, m == 0 || s_.n > n_ * kPanel);
        }
  }

 private:
  struct Strip {
    int8_t *a = nullptr, *b = nullptr;  // packed
    float *a_steps = nullptr, *b_steps = nullptr;
    amx::Operand x{}, y{};        // where they lie
    int64_t m = 0, n = 0, k = 0;  // values, not panels
    float* c = nullptr;
    bool accumulate = false;
  };

  void multiply(const Strip& s, bool pack_a, bool pack_b) const {
    const int64_t panels_m = up(s.m, kPanel), panels_n = up(s.n, kPanel);
    const int64_t of_a = pack_a ? panels_m : 0, of_b = pack_b ? panels_n : 0;
    parallel_for(of_a + of_b, 1, [&](int64_t begin, int64_t end) {
      if (begin < of_a) amx::quantize_a(s.x, begin, std::min(end, of_a), s.a, s.a_steps);
      if (end > of_a)
        amx::quantize_b(s.y, std::max(begin, of_a) - of_a, end - of_a, s.b, s.b_steps);
    });
    const Split split(panels_m, panels_n, false);
    parallel_for(split.rows * split.cols, 1, [&](int64_t begin, int64_t end) {
      amx::start();
      for (int64_t part = begin; part < end; ++part) {
        const int64_t r = part / split.cols, c = part % split.cols;
        multiply_part(s, panels_m * r / split.rows, panels_m * (r + 1) / split.rows,
                      panels_n * c / split.cols, panels_n * (c + 1) / split.cols);
      }
      amx::stop();
    });
  }

  void multiply_part(const Strip& s, int64_t m0, int64_t m1, int64_t n0, int64_t n1) const {
    const int64_t depth = up(s.k, kInt8Depth), pieces = up(depth, kBlockDepth);
    amx::for_each_block(m0, m1, n0, n1, [&](int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
      for (int64_t p = 0; p < pieces; ++p)
        multiply_block(s, i0, i1, j0, j1, depth * p / pieces, depth * (p + 1) / pieces);
    });
  }

  void multiply_block(const Strip& s, int64_t m0, int64_t m1, int64_t n0, int64_t n1, int64_t k0,
                      int64_t k1) const {
    const int64_t depth = up(s.k, kInt8Depth);
    for (int64_t i = m0; i < m1; ++i)
      for (int64_t j = n0; j < n1; ++j)
        amx::multiply(
            amx::Int8Tile{.a = s.a + (i * depth + k0) * kInt8Step,
                          .b = s.b + (j * depth + k0) * kInt8Step,
                          .next_b = s.b + ((j + 1 < n1 ? j + 1 : n0) * depth + k0) * kInt8Step,
                          .depth = k1 - k0,
                          .a_steps = s.a_steps + i * kPanel,
                          .b_steps = s.b_steps + j * kPanel,
                          .c = s.c + i * kPanel * s_.ldc + j * kPanel,
                          .rows = std::min(kPanel, s.m - i * kPanel),
                          .cols = std::min(kPanel, s.n - j * kPanel),
                          .stride = s_.ldc,
                          .accumulate = s.accumulate || k0 > 0});
  }

  MatmulSpec s_;
  int64_t depth_, m_, n_;  // of a strip: tiles along k, panels of A and of B
};

}  // namespace

const char* why_not_matmul_amx_int8() { return amx::why_not_int8(); }

int64_t matmul_amx_int8_workspace_bytes(const MatmulSpec& spec) {
  return Int8Plan(spec, AmxStrip{}.bytes).workspace_bytes();
}

std::unique_ptr<MatmulPlan> matmul_amx_int8(const MatmulSpec& spec) {
  return matmul_amx_int8(spec, AmxStrip{}.bytes);
}

std::unique_ptr<MatmulPlan> matmul_amx_int8(const MatmulSpec& spec, int64_t strip_bytes) {
  require(spec.int8 && spec.in == DType::kBF16 && !spec.bias, "matmul",
          "tiles of 8-bit integers multiply rounded BF16 without a bias, found ", name_of(spec.in));
  if (const char* reason = amx::why_not_int8()) fail(ErrorKind::kUnsupported, "matmul", reason);
  return std::make_unique<Int8Plan>(spec, strip_bytes);
}

}  // namespace signround::kernels
