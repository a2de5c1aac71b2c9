// bitsandbytes' NF4 layers as their tensors hold them: the part of decode.h for Packing::kBnb. Uses
// no code that packs; levels and the map of magnitudes are those of the file.
#pragma once

#include <cstdint>

#include "signround/formats/decode.h"
#include "signround/quant/nf4.h"

namespace signround {

// What a layer's quant_state and headers say, after every check that they allow.
struct BnbShape {
  QuantScheme scheme;
  int64_t out = 0, in = 0;
  int64_t blocks = 0;
  int64_t nested_block = 0;  // 0: no double quantization
  float nested_offset = 0;
};

// Reads the bytes of quant_state only. Error{kCorruptFile} naming the tensor and what was expected;
// Error{kUnsupported} for FP4, for another storage type than bytes, and for what else bitsandbytes
// could mean.
BnbShape check_bnb_shape(const RawLayer& layer);

// The whole layer. Errors as above, and kCorruptFile for a scale that is not finite.
// REQUIRES: blocks of kNf4NestedBlock magnitudes, and the dynamic map, which is all that
// bitsandbytes writes; kUnsupported otherwise.
Nf4Linear decode_bnb(const RawLayer& layer);

// Rows [row, row + rows) of the weight, (rows, in).
void dequantize_bnb_rows(const RawLayer& layer, int64_t row, int64_t rows, float* weight);

}  // namespace signround
