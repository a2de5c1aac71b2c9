// Loops over one group of weights: its range, its codes, its fake-quantized values, and one step of
// sign descent on the rounding offsets. What a group's scale is, is not decided here
// (quant/grid.h).
//
//   q = clamp(round(w / scale + unit * v), lo, hi), round half to even     weight = scale * q code
//   = q + zero
//
// v, an offset, is a 16-bit whole number of units: half of the memory of a float, and all that a
// schedule of a few hundred steps needs to be exact.
//
// All rows of the table give the same bits: the sums of `descend` have a fixed order, 16 partial
// sums (element i goes to sum i mod 16) that are then added in a tree, and nothing is contracted
// into a fused multiply-add.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "signround/tensor/dtype.h"

namespace signround::kernels {

struct CodeGrid {
  float scale;            // not 0
  float lo, hi;           // whole numbers: the smallest and the largest q
  bool ordinary = false;  // all weights of the group are Extent::ordinary: saves asking for each
};

// min(0, smallest) and max(0, largest) weight. finite: none is NaN or infinite; if not, min and max
// mean nothing. ordinary: each is 0, or its magnitude is at least kTiny and below kHuge.
struct Extent {
  float min, max;
  bool finite, ordinary;
};
constexpr float kTiny = 0x1p-100f, kHuge = 0x1p100f;

// scale: sum of d_w * (q - w / scale) over weights inside the clamp, of d_w * q over clamped ones.
// clamped: sum of d_w over clamped weights.
struct GroupGrad {
  float scale, clamped;
};

// Of n weights; data null: all zero.
struct Offsets {
  const int16_t* data = nullptr;
  float unit = 0;
};

struct SignStep {
  int units;  // that v moves by, at least 0
  float momentum;
};

// d_v is the gradient by unit * v: d_w * scale inside the clamp, else 0. v moves by step.units
// against its sign and stays within its type; next (n) is where it moves to, and may be v.data.
// buffer (n) is the momentum of d_v: buffer = momentum * buffer + d_v, whose sign v follows; null:
// none.
struct Descent {
  Offsets v;
  SignStep step;
  int16_t* next;
  float* buffer;
};

// W is float or BF16. No alignment needed.
template <class W>
struct FakeQuantFunctions {
  Extent (*extent)(const W* w, int64_t n) noexcept;
  void (*codes)(const W* w, Offsets v, int64_t n, CodeGrid grid, float zero,
                uint8_t* codes) noexcept;
  void (*write_f32)(const W* w, Offsets v, int64_t n, CodeGrid grid, float* weight) noexcept;
  void (*write_bf16)(const W* w, Offsets v, int64_t n, CodeGrid grid, BF16* weight) noexcept;
  // Gradient sums of the current v, which then takes its step.
  GroupGrad (*descend_f32)(const W* w, const float* d_w, int64_t n, CodeGrid grid,
                           const Descent& descent) noexcept;
  GroupGrad (*descend_bf16)(const W* w, const BF16* d_w, int64_t n, CodeGrid grid,
                            const Descent& descent) noexcept;
};

struct FakeQuantKernel {
  std::string_view name;
  const char* (*why_not)();
  const FakeQuantFunctions<float>& (*f32)();
  const FakeQuantFunctions<BF16>& (*bf16)();
};

std::span<const FakeQuantKernel> fake_quant_kernels();
const FakeQuantKernel& fake_quant_kernel();  // the one to use; see kernels/dispatch.h

template <class W>
const FakeQuantFunctions<W>& fake_quant_functions() {
  if constexpr (sizeof(W) == 4)
    return fake_quant_kernel().f32();
  else
    return fake_quant_kernel().bf16();
}

const FakeQuantFunctions<float>& fake_quant_ref_f32();
const FakeQuantFunctions<BF16>& fake_quant_ref_bf16();
const FakeQuantFunctions<float>& fake_quant_hwy_f32();
const FakeQuantFunctions<BF16>& fake_quant_hwy_bf16();
const char* fake_quant_hwy_why_not();

}  // namespace signround::kernels
