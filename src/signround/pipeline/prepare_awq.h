// AWQ as a preparation: factors for every block that is to be rounded, found on the calibration text
// in the original model. What comes after sees a checkpoint that computes the same.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "signround/model/architecture.h"
#include "signround/model/scaled_checkpoint.h"
#include "signround/pipeline/plan.h"

namespace signround {

// Streams the original model over the samples, one block in memory. on_block(index, gain): the error
// of all the block's layers' outputs against that of plain rounding to nearest, in dB, 0 where
// nothing is rounded; it may throw to stop. folder: where activations wait if the plan says that
// they do so in a file.
CheckpointFactors prepare_awq(const Checkpoint& source, const Plan& plan,
                              const std::vector<std::vector<int32_t>>& samples,
                              const std::filesystem::path& folder,
                              const std::function<void(int64_t, double)>& on_block);

// "layers: why" of the layers that are to be rounded and have nothing in front of them that could
// take a factor.
std::vector<std::string> not_folded(const Plan& plan);

// What it holds at its fullest moment beside the stream, the weights and the program.
int64_t prepare_awq_bytes(const std::vector<std::vector<FormatLayer>>& layers);

// Factors in a safetensors file, written atomically: a run that goes on takes the same ones.
void write_factors(const std::filesystem::path& path, const CheckpointFactors& factors);
// Error{kCorruptFile} for a file that write_factors did not write.
CheckpointFactors read_factors(const std::filesystem::path& path);

}  // namespace signround
