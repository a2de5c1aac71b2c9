// A quantized checkpoint that looks like a normal one: X.weight instead of X.qweight, X.qzeros,
// X.scales and X.g_idx, or of bitsandbytes' bytes and what they need.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "signround/formats/decode.h"
#include "signround/io/checkpoint.h"

namespace signround {

// A quantized layer as its config and its headers say it is.
struct QuantizedView {
  std::string name;  // without ".weight"
  QuantScheme scheme;
  Packing packing = Packing::kNone;
  int64_t out = 0, in = 0;
};

// Weights have the dtype of config.json ("torch_dtype" or "dtype"; F16 where it does not say).
// read_f32 gives scale * (code - zero), or level * magnitude, in f32, unrounded; bytes() rounds it
// to the dtype. config() has no "quantization_config".
class QuantizedCheckpoint : public Checkpoint {
 public:
  virtual const nlohmann::ordered_json& quantization_config() const = 0;
  virtual std::span<const QuantizedView> layers() const = 0;  // in file order
  virtual const QuantizedView* quantized(
      std::string_view layer) const = 0;  // nullptr: not a quantized layer
  // Integers, scales, zero points. kUnsupported for NF4, which has none.
  virtual DecodedLinear decode(std::string_view layer) const = 0;
  // What was odd and how it was read: patterns that match nothing. (Per layer: see DecodedLinear.)
  virtual std::span<const std::string> notes() const = 0;
};

// Returns the checkpoint itself if it is not quantized, else a QuantizedCheckpoint around it. Where
// config.json has no section, quantize_config.json beside it is read (old GPTQ checkpoints).
// Error{kUnsupported} names the method; Error{kCorruptFile} names the tensor that is missing or has
// the wrong shape. Reads headers only.
std::unique_ptr<Checkpoint> decode_quantized(std::unique_ptr<Checkpoint> checkpoint);

// nullptr: the checkpoint is not quantized.
const QuantizedCheckpoint* as_quantized(const Checkpoint& checkpoint);

}  // namespace signround
