#include "signround/ops/attention.h"

#include <cmath>

#include "signround/base/error.h"
#include "signround/kernels/cpu/attention.h"
#include "signround/kernels/cuda.h"
#include "signround/kernels/dispatch.h"
#include "signround/tensor/buffer.h"

namespace signround {
namespace {

int64_t hwy_scratch(const AttentionShape& shape, bool backward) {
  return backward ? kernels::attention_bwd_scratch_bytes(shape)
                  : kernels::attention_fwd_scratch_bytes(shape);
}
int64_t no_scratch(const AttentionShape&, bool) { return 0; }

int64_t bf16_scratch(const AttentionShape& shape, bool backward) {
  return backward ? kernels::attention_bf16_bwd_scratch_bytes(shape)
                  : kernels::attention_bf16_fwd_scratch_bytes(shape);
}
bool fits_always(const AttentionShape&) { return true; }

template <kernels::PanelUnit kUnit>
constexpr AttentionKernel bf16_kernel(std::string_view name) {
  return {name,
          [] { return kernels::attention_bf16_why_not(kUnit); },
          kernels::attention_bf16_fits,
          bf16_scratch,
          kernels::attention_fwd_bf16<kUnit>,
          kernels::attention_bwd_bf16<kUnit>};
}

constexpr AttentionKernel kHwy = {"hwy",
                                  runs_always,
                                  fits_always,
                                  hwy_scratch,
                                  kernels::attention_fwd_hwy,
                                  kernels::attention_bwd_hwy};
constexpr AttentionKernel kRef = {"ref",
                                  runs_always,
                                  fits_always,
                                  no_scratch,
                                  kernels::attention_fwd_ref,
                                  kernels::attention_bwd_ref};
constexpr AttentionKernel kKernels[] = {kHwy, kRef};
constexpr AttentionKernel kBf16Kernels[] = {bf16_kernel<kernels::PanelUnit::kAmx>("amx"),
                                            bf16_kernel<kernels::PanelUnit::kAvx512>("avx512"),
                                            kHwy, kRef};

const AttentionKernel& kernel_for(const char* op, const AttentionShape& shape) {
  if (shape.bf16_products) {
    const AttentionKernel& kernel = pick_kernel(op, kBf16Kernels);
    if (kernel.fits(shape)) return kernel;
  }
  return pick_kernel(op, kKernels);
}

void check_shape(const char* op, const AttentionShape& s) {
  // 2^40 elements of one tensor: far above any use, far below an overflow of the offsets.
  constexpr int64_t kMost = int64_t{1} << 40;
  for (int64_t size : {s.batch, s.q_len, s.kv_len, s.heads, s.kv_heads, s.head_dim})
    require(size > 0 && size < (int64_t{1} << 31), op, "a size is ", size, ", expected 1 to 2^31");
  require(double(s.batch) * double(s.q_len + s.kv_len) * double(s.heads) * double(s.head_dim) <
              double(kMost),
          op, "batch ", s.batch, " of ", s.q_len, " queries and ", s.kv_len, " keys with ", s.heads,
          " heads of ", s.head_dim, " values is too large, expected less than 2^40 values");
  require(s.heads % s.kv_heads == 0, op, "there are ", s.heads,
          " query heads, expected a multiple of the ", s.kv_heads, " kv heads");
  require(!s.causal || s.q_len <= s.kv_len, op, "there are ", s.q_len,
          " queries, expected at most the ", s.kv_len, " keys of a causal mask");
  require(s.window >= 0 && (s.causal || s.window == 0), op, "the window is ", s.window,
          s.causal ? ", expected 0 or more" : ", expected 0 without a causal mask");
  require(std::isfinite(s.scale) && s.scale > 0, op, "the scale is ", s.scale,
          ", expected a positive number");
  require(std::isfinite(s.softcap) && s.softcap >= 0, op, "the softcap is ", s.softcap,
          ", expected 0 or a positive number");
}

void check_rows(const char* op, const char* name, const void* data, int64_t stride, int64_t cols) {
  require(data != nullptr, op, name, " has no data");
  require(stride >= cols, op, "rows of ", name, " are ", stride,
          " values apart, expected at least ", cols);
}

void check_out(const char* op, const char* name, RowsOut out, int64_t cols) {
  check_rows(op, name, out.data, out.stride, cols);
  require(out.dtype == DType::kF32 || out.dtype == DType::kBF16, op, name, " is ",
          name_of(out.dtype), ", expected F32 or BF16");
}

void check_in(const char* op, const char* name, RowsAny in, int64_t cols) {
  check_rows(op, name, in.data, in.stride, cols);
  require(in.dtype == DType::kF32 || in.dtype == DType::kBF16, op, name, " is ", name_of(in.dtype),
          ", expected F32 or BF16");
}

void check_inputs(const char* op, const AttentionShape& s, RowsAny q, RowsAny k, RowsAny v) {
  check_shape(op, s);
  check_in(op, "q", q, s.heads * s.head_dim);
  check_in(op, "k", k, s.kv_heads * s.head_dim);
  check_in(op, "v", v, s.kv_heads * s.head_dim);
}

void* scratch(int64_t bytes) {
  thread_local Buffer buffer;
  if (buffer.bytes() < bytes || buffer.device() != current_device()) {
    buffer = Buffer();
    buffer = Buffer(bytes, current_device());
  }
  return buffer.data();
}

}  // namespace

std::span<const AttentionKernel> attention_kernels(bool bf16_products) {
  if (bf16_products) return kBf16Kernels;
  return kKernels;
}

int64_t attention_scratch_bytes(const AttentionShape& shape, bool backward) {
  check_shape("attention", shape);
  if (on_cuda()) return kernels::cuda::attention_scratch_bytes(shape, backward);
  return kernel_for("attention", shape).scratch_bytes(shape, backward);
}

void attention_fwd(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsOut y,
                   float* lse) {
  check_inputs("attention", shape, q, k, v);
  check_out("attention", "y", y, shape.heads * shape.head_dim);
  if (on_cuda())
    return kernels::cuda::attention_fwd(
        shape, q, k, v, y, lse, scratch(kernels::cuda::attention_scratch_bytes(shape, false)));
  const AttentionKernel& kernel = kernel_for("attention", shape);
  kernel.fwd(shape, q, k, v, y, lse, scratch(kernel.scratch_bytes(shape, false)));
}

void attention_bwd(const AttentionShape& shape, RowsAny q, RowsAny k, RowsAny v, RowsAny y,
                   const float* lse, RowsAny d_y, RowsOut d_q, RowsOut d_k, RowsOut d_v) {
  const char* op = "attention_bwd";
  const int64_t cols = shape.heads * shape.head_dim, kv_cols = shape.kv_heads * shape.head_dim;
  check_inputs(op, shape, q, k, v);
  check_in(op, "y", y, cols);
  require(lse != nullptr, op, "lse has no data");
  check_in(op, "d_y", d_y, cols);
  if (d_q) check_out(op, "d_q", d_q, cols);
  if (d_k) check_out(op, "d_k", d_k, kv_cols);
  if (d_v) check_out(op, "d_v", d_v, kv_cols);
  if (on_cuda())
    return kernels::cuda::attention_bwd(
        shape, q, k, v, y, lse, d_y, d_q, d_k, d_v,
        scratch(kernels::cuda::attention_scratch_bytes(shape, true)));
  const AttentionKernel& kernel = kernel_for(op, shape);
  kernel.bwd(shape, q, k, v, y, lse, d_y, d_q, d_k, d_v,
             scratch(kernel.scratch_bytes(shape, true)));
}

}  // namespace signround
