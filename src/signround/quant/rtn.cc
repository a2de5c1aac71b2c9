#include "signround/quant/rtn.h"

#include <algorithm>
#include <limits>
#include <mutex>
#include <vector>

#include "signround/base/error.h"
#include "signround/base/parallel.h"
#include "signround/kernels/cpu/codes.h"
#include "signround/kernels/cpu/fake_quant.h"
#include "signround/quant/grid.h"

namespace signround {
namespace {

template <class W>
QuantizedLinear round_rows(const W* w, int64_t out, int64_t in, const QuantScheme& scheme,
                           NonFinite* non_finite) {
  QuantizedLinear result = make_quantized("rtn", out, in, scheme);
  const auto& functions = kernels::fake_quant_functions<W>();
  const int64_t group = scheme.group(in), groups = scheme.groups(in);
  std::mutex mutex;
  NonFinite all;
  parallel_for(out, rows_per_thread(in), [&](int64_t begin, int64_t end) {
    std::vector<W> clean;
    NonFinite found;
    for (int64_t k = begin * groups; k < end * groups; ++k) {
      const int64_t at = k / groups * in + k % groups * group;
      const int64_t n = std::min(group, in - k % groups * group);
      const W* weights = w + at;
      kernels::Extent extent = functions.extent(weights, n);
      if (!extent.finite) {
        clean.assign(weights, weights + n);
        found.merge(replace_non_finite(clean.data(), n, at));
        weights = clean.data();
        extent = functions.extent(weights, n);
      }
      const GroupGrid<float> grid =
          group_grid_fwd<float>(scheme, {extent.min, extent.max}, 1.0f, 1.0f);
      functions.codes(weights, {}, n, code_grid(grid, scheme.max_code()), grid.zero,
                      result.codes.data() + at);
      result.scales[static_cast<size_t>(k)] = grid.scale;
      result.zeros[static_cast<size_t>(k)] = static_cast<uint8_t>(grid.zero);
    }
    const std::lock_guard lock(mutex);
    all.merge(found);
  });
  if (non_finite != nullptr) *non_finite = all;
  return result;
}

}  // namespace

QuantizedLinear rtn(const float* w, int64_t out, int64_t in, const QuantScheme& scheme,
                    NonFinite* non_finite) {
  return round_rows(w, out, in, scheme, non_finite);
}

QuantizedLinear rtn(const BF16* w, int64_t out, int64_t in, const QuantScheme& scheme,
                    NonFinite* non_finite) {
  return round_rows(w, out, in, scheme, non_finite);
}

void check_weight_size(const char* where, int64_t out, int64_t in) {
  require(out > 0 && in > 0 && out <= std::numeric_limits<int64_t>::max() / 16 / in, where,
          "the weight is ", out, " x ", in,
          ", expected at least 1 x 1, and a size that fits memory");
}

void check_rounding(const char* where, int64_t out, int64_t in, const QuantScheme& scheme) {
  check_weight_size(where, out, in);
  const std::string wrong = problems(scheme);
  require(wrong.empty(), where, wrong);
  require(scheme.bits <= 8 && scheme.levels == Levels::kUniform, where, "found ", describe(scheme),
          ", expected a uniform grid of 2, 3, 4 or 8 bits");
}

QuantizedLinear make_quantized(const char* where, int64_t out, int64_t in,
                               const QuantScheme& scheme) {
  check_rounding(where, out, in, scheme);
  QuantizedLinear result;
  result.scheme = scheme;
  result.out = out;
  result.in = in;
  result.codes.resize(static_cast<size_t>(out * in));
  result.scales.resize(static_cast<size_t>(out * scheme.groups(in)));
  result.zeros.resize(static_cast<size_t>(out * scheme.groups(in)));
  return result;
}

int64_t rows_per_thread(int64_t in) { return std::max<int64_t>(1, 16384 / in); }

namespace {

void write_codes(const kernels::CodesKernel& kernel, const uint8_t* codes, int64_t n, float scale,
                 float zero, float* weight) {
  kernel.write_f32(codes, n, scale, zero, weight);
}
void write_codes(const kernels::CodesKernel& kernel, const uint8_t* codes, int64_t n, float scale,
                 float zero, BF16* weight) {
  kernel.write_bf16(codes, n, scale, zero, weight);
}

template <class T>
void write_row(const QuantizedLinear& q, int64_t o, T* row) {
  const int64_t groups = q.groups(), group = q.scheme.group(q.in);
  const auto& kernel = kernels::codes_kernel();
  for (int64_t g = 0; g < groups; ++g) {
    const auto k = static_cast<size_t>(o * groups + g);
    const int64_t first = g * group;
    write_codes(kernel, q.codes.data() + o * q.in + first, std::min(q.in - first, group),
                q.scales[k], static_cast<float>(q.zeros[k]), row + first);
  }
}

}  // namespace

void dequantize_row(const QuantizedLinear& q, int64_t o, float* row) { write_row(q, o, row); }

void dequantize(const QuantizedLinear& q, float* weight) {
  dequantize(q, weight, DType::kF32, q.in);
}

void dequantize(const QuantizedLinear& q, void* weight, DType dtype, int64_t stride) {
  require(dtype == DType::kF32 || dtype == DType::kBF16, "dequantize", "rows of ", name_of(dtype),
          ", expected F32 or BF16");
  parallel_for(q.out, rows_per_thread(q.in), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      if (dtype == DType::kF32)
        write_row(q, row, static_cast<float*>(weight) + row * stride);
      else
        write_row(q, row, static_cast<BF16*>(weight) + row * stride);
    }
  });
}

}  // namespace signround
