// How a rounded layer becomes tensors of a checkpoint, and what config.json says about it. One file
// per format; reading back is in decode.h. docs/formats/ has a page with the layout of each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "signround/io/checkpoint.h"
#include "signround/quant/nf4.h"
#include "signround/quant/scheme.h"
#include "signround/tensor/tensor.h"

namespace signround {

// What a format must know of one linear layer. Known before anything is tuned.
struct FormatLayer {
  std::string name;    // as on disk, without ".weight": "model.layers.0.mlp.up_proj"
  QuantScheme scheme;  // bits 16: the layer is left as it is
  int64_t out = 0, in = 0;
  DType dtype = DType::kBF16;  // of the weight in the source; `fake` writes it
  bool in_blocks = true;       // false: lm_head and the like
};

// Settings of the run that AutoRound's config also has, under AutoRound's names. A value is written
// only where it differs from AutoRound's default, which is the one given here.
struct TuningInfo {
  int64_t iters = 200;
  double lr = 0, minmax_lr = 0;  // 0: 1 / iters
  int64_t nsamples = 128, seqlen = 2048, batch_size = 8, gradient_accumulate_steps = 1;
  bool enable_minmax_tuning = true, enable_norm_bias_tuning = false, enable_quanted_input = true;
};

// The whole model, as quantization_config describes it.
struct FormatModel {
  QuantScheme scheme;  // of every layer of the blocks that `layers` does not say otherwise
  std::vector<FormatLayer>
      layers;  // all linear layers of the blocks, and the quantized ones outside
  std::vector<std::string> block_prefixes;  // "model.layers"
  TuningInfo tuning;
};

// How integers lie in the tensors of a layer; see decode.h.
enum class Packing : uint8_t {
  kNone,    // not packed
  kGptqV1,  // qweight, qzeros (zero - 1), scales, perhaps g_idx
  kGptqV2,  // the same with the zero point as it is
  kAwq,     // AWQ gemm
  kBnb,     // bitsandbytes' NF4
};

struct PackedTensor {
  TensorInfo info;
  std::vector<std::byte> bytes;
};

class CheckpointFormat {
 public:
  virtual ~CheckpointFormat() = default;

  virtual std::string_view name() const = 0;  // as on the command line
  virtual Packing packing() const = 0;

  // Why this format cannot hold the layer: every reason, joined by "; ". "" if it can.
  // A layer whose sides are not multiples of 32 cannot be held by any packed format (AutoRound
  // leaves it in 16 bit).
  virtual std::string problems(const QuantScheme& scheme, int64_t out, int64_t in) const = 0;

  // What the format chose by the model and why, for the plan; "" if there was nothing to choose.
  virtual std::string note() const { return ""; }

  // Names, dtypes and shapes of what pack() will return, in the same order. The layer's bias is not
  // among them: it is copied like any other tensor.
  virtual std::vector<TensorInfo> tensors(const FormatLayer& layer) const = 0;

  // Rewrites groups that the format cannot hold as they are into others of exactly equal weights;
  // returns how many. Call it before pack(), and compare what is read back with the result.
  virtual int64_t prepare(QuantizedLinear& linear) const;

  // Error{kInvalidArgument} naming layer, row and group if a value does not fit: nothing is
  // clamped.
  virtual std::vector<PackedTensor> pack(const FormatLayer& layer,
                                         const QuantizedLinear& linear) const = 0;
  // The same for NF4. A format whose problems() refuse its schemes need not implement it.
  virtual std::vector<PackedTensor> pack_nf4(const FormatLayer& layer,
                                             const Nf4Linear& linear) const;

  // config.json's "quantization_config"; null: the checkpoint says nothing of quantization.
  virtual nlohmann::ordered_json quantization_config(const FormatModel& model) const = 0;

  // Files that repeat the section for readers that look there, with the same content.
  virtual std::vector<ExtraFile> extra_files(
      const nlohmann::ordered_json& quantization_config) const = 0;
};

// Names: "auto_round", "gptq", "gptq_v1", "gptq_v2", "awq", "bnb", "fake"; kInvalidArgument lists
// them for any other. auto_round chooses its packing by the model: symmetric layers only: GPTQ v1;
// 4-bit asymmetric layers only, with whole groups: AWQ; else GPTQ v2 without g_idx. gptq is v1 for
// symmetric layers only, else v2, since GPTQModel refuses asymmetric v1 checkpoints of other tools.
// Layers of 16 bit and those with sides that are not multiples of 32 have no say.
std::unique_ptr<CheckpointFormat> make_format(std::string_view name, const FormatModel& model);
std::span<const std::string_view> format_names();

}  // namespace signround
