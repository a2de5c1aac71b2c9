#include <algorithm>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/amx_int8_tiles.h"
#include "signround/kernels/cpu/amx_plan.h"
#include "signround/kernels/cpu/int8_step.h"
#include "signround/kernels/cpu/matmul.h"
#include "signround/kernels/cpu/matmul_start.h"

namespace signround::kernels {
namespace {

using amx::kInt8Depth;
using amx::kInt8Step;
using amx::kPanel;
using amx::Split;
using amx::Strip;
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

  void run(const void* a, const void* b, const float*, void* c, const float* from) const override {
    start_from(s_, from, c);
    Workspace& w = amx::workspace();
    float* steps = room<float>(w.steps, (m_ + n_) * kPanel);
    const Packed packed{room<int8_t>(w.a, m_ * depth_ * kInt8Step),
                        room<int8_t>(w.b, n_ * depth_ * kInt8Step), steps,
                        steps + m_ * kPanel};
    amx::for_each_strip(s_, depth_, kInt8Depth, m_, n_, a, b, [&](const Strip& strip) {
      multiply(strip, packed, static_cast<float*>(c) + strip.at);
    });
  }

 private:
  struct Packed {
    int8_t *a, *b;
    float *a_steps, *b_steps;
  };

  void multiply(const Strip& s, const Packed& packed, float* c) const {
    const int64_t panels_m = up(s.m, kPanel), panels_n = up(s.n, kPanel);
    const int64_t of_a = s.new_x ? panels_m : 0, of_b = s.new_y ? panels_n : 0;
    parallel_for(of_a + of_b, 1, [&](int64_t begin, int64_t end) {
      if (begin < of_a) amx::quantize_a(s.x, begin, std::min(end, of_a), packed.a, packed.a_steps);
      if (end > of_a)
        amx::quantize_b(s.y, std::max(begin, of_a) - of_a, end - of_a, packed.b, packed.b_steps);
    });
    amx::for_each_share(Split(panels_m, panels_n, false), panels_m, panels_n,
                        [&](int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                          amx::for_each_block(
                              m0, m1, n0, n1, up(s.k, kInt8Depth), kBlockDepth,
                              [&](auto... block) { multiply_block(s, packed, c, block...); });
                        });
  }

  void multiply_block(const Strip& s, const Packed& packed, float* c, int64_t m0, int64_t m1,
                      int64_t n0, int64_t n1, int64_t k0, int64_t k1) const {
    const int64_t depth = up(s.k, kInt8Depth);
    for (int64_t i = m0; i < m1; ++i)
      for (int64_t j = n0; j < n1; ++j)
        amx::multiply(
            amx::Int8Tile{.a = packed.a + (i * depth + k0) * kInt8Step,
                          .b = packed.b + (j * depth + k0) * kInt8Step,
                          .next_b = packed.b + ((j + 1 < n1 ? j + 1 : n0) * depth + k0) * kInt8Step,
                          .depth = k1 - k0,
                          .a_steps = packed.a_steps + i * kPanel,
                          .b_steps = packed.b_steps + j * kPanel,
                          .c = c + i * kPanel * s_.ldc + j * kPanel,
                          .rows = std::min(kPanel, s.m - i * kPanel),
                          .cols = std::min(kPanel, s.n - j * kPanel),
                          .stride = s_.ldc,
                          .accumulate = s_.accumulate || !s.first || k0 > 0});
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
  require(spec.int8 && spec.in == DType::kBF16 && spec.out == DType::kF32 && !spec.bias, "matmul",
          "tiles of 8-bit integers multiply rounded BF16 to F32 without a bias, found ",
          name_of(spec.in), " to ", name_of(spec.out));
  if (const char* reason = amx::why_not_int8()) fail(ErrorKind::kUnsupported, "matmul", reason);
  return std::make_unique<Int8Plan>(spec, strip_bytes);
}

}  // namespace signround::kernels
