// Typed access to config.json, with errors that name the key.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/graph/graph.h"

namespace signround {

// config[key] as a whole number >= min; Error{kCorruptFile} when missing (unless there is a
// fallback), null or out of range.
int64_t config_int(const nlohmann::json& config, const char* key, int64_t min);
int64_t config_int(const nlohmann::json& config, const char* key, int64_t min, int64_t fallback);
double config_number(const nlohmann::json& config, const char* key, double fallback);
bool config_bool(const nlohmann::json& config, const char* key, bool fallback);
std::string config_string(const nlohmann::json& config, const char* key,
                          const std::string& fallback);

// Rotary frequencies from rope_theta, rope_scaling or rope_parameters: types default, linear,
// dynamic, llama3, yarn and longrope, as transformers' modeling_rope_utils defines them for
// sequences up to the model's own length. Error{kUnsupported} for another type.
RopeSpec read_rope(const nlohmann::json& config, int64_t rotated_dims, int64_t max_position);

// The longest sequence for which read_rope's angles are right: max_position, or with longrope,
// whose other factors begin behind it, the original length.
int64_t longest_sequence(const nlohmann::json& config, int64_t max_position);

}  // namespace signround
