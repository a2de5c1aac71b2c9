// What the packed formats share: checks, and the tensors of the two integer layouts. For the files
// of formats/ only.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "signround/formats/format.h"

namespace signround::formats {

// Reasons against writing integers of this scheme and shape in 32-bit words with f16 scales.
std::vector<std::string> packing_problems(const QuantScheme& scheme, int64_t out, int64_t in);
std::string joined(const std::vector<std::string>& problems);

// The layer's integers fit the scheme, its scales are finite values of scale_dtype, and the sizes
// are those of `layer`.
void check_linear(const char* where, const FormatLayer& layer, const QuantizedLinear& linear);

// The same for NF4.
void check_nf4(const char* where, const FormatLayer& layer, const Nf4Linear& linear);

// What `fake` writes, and what readers of packed layers compute with: the dtype of the source; BF16
// for others (f8 with scales of their own).
DType weight_dtype(DType source);

struct GptqLayout {
  bool zeros_minus_one = true;  // v1
  bool g_idx = true;
};
std::vector<TensorInfo> gptq_tensors(const FormatLayer& layer, GptqLayout layout);
std::vector<PackedTensor> gptq_pack(const char* where, const FormatLayer& layer,
                                    const QuantizedLinear& linear, GptqLayout layout);
// Makes every zero point at least 1, as v1 demands: a group with zero point 0 gets scale -s, codes
// max - c and zero point max, and -s * ((max - c) - max) == s * (c - 0) exactly. Returns the number
// of groups.
int64_t flip_zero_points_of_zero(QuantizedLinear& linear);

std::vector<TensorInfo> awq_tensors(const FormatLayer& layer);
std::vector<PackedTensor> awq_pack(const char* where, const FormatLayer& layer,
                                   const QuantizedLinear& linear);

bool is_symmetric(const QuantScheme& scheme);
// Of the global scheme and of all layers that can be packed.
bool all_symmetric(const FormatModel& model);
// Fields of TuningInfo that differ from AutoRound's defaults.
void add_tuning(const TuningInfo& tuning, nlohmann::ordered_json& config);
// Text of a file that holds `config` alone.
std::string json_text(const nlohmann::ordered_json& config);
// Regular expression that matches exactly `name`.
std::string regex_of(std::string_view name);

std::unique_ptr<CheckpointFormat> make_auto_round(const FormatModel& model);
std::unique_ptr<CheckpointFormat> make_gptq(std::string_view name, const FormatModel& model);
std::unique_ptr<CheckpointFormat> make_awq(const QuantScheme& scheme);
std::unique_ptr<CheckpointFormat> make_bnb();
std::unique_ptr<CheckpointFormat> make_fake();

}  // namespace signround::formats
