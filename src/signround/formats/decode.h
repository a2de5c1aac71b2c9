// From the tensors of a packed layer back to integers, for the read-back after writing and for
// loading. Written without any of the packing code, so that a mistake there cannot hide here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "signround/formats/format.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/tensor.h"

namespace signround {

// A tensor as a file holds it; the caller keeps the bytes alive. No shape: the tensor is not there.
struct RawTensor {
  TensorInfo info;
  std::span<const std::byte> bytes;
  bool present() const { return !info.shape.empty(); }
};

struct RawLayer {
  std::string name;  // for messages
  RawTensor qweight, qzeros, scales, g_idx;
  RawTensor quant_map, nested_absmax, nested_quant_map, quant_state;  // kBnb
};

// Which tensors a packed layer X is: X + suffix. The first is there in every such layer and in no
// other.
struct Part {
  std::string_view suffix;
  RawTensor RawLayer::*tensor;
};
std::span<const Part> parts_of(Packing packing);

// Rows [row, row + rows) of the weight that a layer of any packing stands for, (rows, in) f32.
void dequantize_rows(Packing packing, const QuantScheme& scheme, const RawLayer& layer, int64_t row,
                     int64_t rows, float* weight);

// What follows is for integers: every packing but kBnb, which has decode_bnb.h.

// Shapes of a packed layer after every check that the tensors' headers allow.
struct PackedShape {
  int64_t out = 0, in = 0, groups = 0;
};

// Error{kCorruptFile} naming the tensor, its shape and what the bits and the group size demand.
// Reads no bytes.
PackedShape check_packed_shape(Packing packing, const QuantScheme& scheme, const RawLayer& layer);

struct DecodedLinear {
  QuantizedLinear linear;  // scheme.scale_dtype is that of the file
  std::vector<int32_t>
      group_of;  // (in): group of every input where it is not i / group (act-order); else empty
  // v1 only: zero points stored as 2^bits - 1. Readers disagree on them; here they are read as
  // GPTQModel does, which adds 1 to the words (2, 4, 8 bits: the carry goes into the next field) or
  // to the fields modulo 8 (3 bits).
  int64_t wrapped_zeros = 0;
  // v1 only: the layer is symmetric, but its zero points are one too high for v1. The file holds v2
  // zero points under the v1 label (known of files that GPTQModel 5 wrote); they are read as v2.
  bool mislabelled_v2 = false;
};

// Rows [row, row + rows) of the layer; linear.out is `rows`. Same errors, and kCorruptFile for a
// scale that is not finite and for a g_idx out of range.
DecodedLinear decode_rows(Packing packing, const QuantScheme& scheme, const RawLayer& layer,
                          int64_t row, int64_t rows);
DecodedLinear decode_linear(Packing packing, const QuantScheme& scheme, const RawLayer& layer);

// weight[o, i] = scale * (code - zero) in f32, (linear.out, linear.in) values.
void dequantize(const DecodedLinear& decoded, float* weight);

}  // namespace signround
