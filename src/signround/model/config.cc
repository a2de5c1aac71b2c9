#include "signround/model/config.h"

#include <cmath>
#include <numbers>

#include "signround/base/error.h"

namespace signround {

using nlohmann::json;

namespace {

const json* find(const json& config, const char* key) {
  const auto it = config.find(key);
  return it == config.end() || it->is_null() ? nullptr : &*it;
}

[[noreturn]] void bad(const char* key, const json& value, const std::string& expected) {
  fail(ErrorKind::kCorruptFile, "config.json", "'", key, "' is ", value.dump(), ", expected ",
       expected);
}

}  // namespace

int64_t config_int(const json& config, const char* key, int64_t min) {
  if (!find(config, key)) fail(ErrorKind::kCorruptFile, "config.json", "'", key, "' is missing");
  return config_int(config, key, min, 0);
}

int64_t config_int(const json& config, const char* key, int64_t min, int64_t fallback) {
  const json* value = find(config, key);
  if (!value) return fallback;
  constexpr int64_t kMax = int64_t{1} << 40;
  if (!value->is_number_integer() || value->get<int64_t>() < min || value->get<int64_t>() > kMax)
    bad(key, *value, "a whole number of at least " + std::to_string(min));
  return value->get<int64_t>();
}

double config_number(const json& config, const char* key, double fallback) {
  const json* value = find(config, key);
  if (!value) return fallback;
  if (!value->is_number() || !std::isfinite(value->get<double>())) bad(key, *value, "a number");
  return value->get<double>();
}

bool config_bool(const json& config, const char* key, bool fallback) {
  const json* value = find(config, key);
  if (!value) return fallback;
  if (!value->is_boolean()) bad(key, *value, "true or false");
  return value->get<bool>();
}

std::string config_string(const json& config, const char* key, const std::string& fallback) {
  const json* value = find(config, key);
  if (!value) return fallback;
  if (!value->is_string()) bad(key, *value, "a text");
  return value->get<std::string>();
}

namespace {

std::vector<double> default_frequencies(double theta, int64_t dims) {
  std::vector<double> inv_freq;
  for (int64_t i = 0; i < dims / 2; ++i)
    inv_freq.push_back(1 / std::pow(theta, static_cast<double>(2 * i) / static_cast<double>(dims)));
  return inv_freq;
}

// Llama 3.1: long wavelengths are stretched by `factor`, short ones stay, those between are
// blended.
void scale_llama3(const json& scaling, RopeSpec& rope) {
  const double factor = config_number(scaling, "factor", 8),
               low = config_number(scaling, "low_freq_factor", 1),
               high = config_number(scaling, "high_freq_factor", 4),
               original = config_number(scaling, "original_max_position_embeddings", 8192);
  if (!(factor > 0 && high > low && low > 0 && original > 0))
    fail(ErrorKind::kCorruptFile, "config.json",
         "llama3 rope scaling needs factor > 0 and high_freq_factor > low_freq_factor > 0, found ",
         scaling.dump());
  for (double& f : rope.inv_freq) {
    const double wavelength = 2 * std::numbers::pi / f;
    if (wavelength > original / low) {
      f /= factor;
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      f = (1 - smooth) * f / factor + smooth * f;
    }
  }
}

// YaRN (Peng et al., arXiv 2309.00071): interpolates the low frequencies, keeps the high ones,
// scales attention.
void scale_yarn(const json& scaling, double theta, int64_t dims, int64_t max_position,
                RopeSpec& rope) {
  const double original =
      config_number(scaling, "original_max_position_embeddings", static_cast<double>(max_position));
  double factor = config_number(scaling, "factor", 0);
  if (!(factor > 0)) factor = original > 0 ? static_cast<double>(max_position) / original : 1;
  const auto mscale = [](double scale, double m) {
    return scale <= 1 ? 1.0 : 0.1 * m * std::log(scale) + 1;
  };
  const double m = config_number(scaling, "mscale", 0),
               m_all = config_number(scaling, "mscale_all_dim", 0);
  rope.factor = config_number(
      scaling, "attention_factor",
      m > 0 && m_all > 0 ? mscale(factor, m) / mscale(factor, m_all) : mscale(factor, 1));
  const double fast = config_number(scaling, "beta_fast", 32),
               slow = config_number(scaling, "beta_slow", 1);
  const auto dim_of = [&](double rotations) {  // dimension whose wavelength makes so many turns
                                               // over the original length
    return static_cast<double>(dims) * std::log(original / (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(theta));
  };
  double low = dim_of(fast), high = dim_of(slow);
  if (config_bool(scaling, "truncate", true)) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0), high = std::min(high, static_cast<double>(dims - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    rope.inv_freq[i] = rope.inv_freq[i] / factor * ramp + rope.inv_freq[i] * (1 - ramp);
  }
}

// Phi-3's LongRoPE; within the original length, the short factors.
void scale_longrope(const json& config, const json& scaling, int64_t max_position, RopeSpec& rope) {
  const json* factors = find(scaling, "short_factor");
  if (!factors || !factors->is_array() || factors->size() != rope.inv_freq.size())
    fail(ErrorKind::kCorruptFile, "config.json", "longrope needs short_factor with ",
         rope.inv_freq.size(), " numbers");
  for (size_t i = 0; i < rope.inv_freq.size(); ++i) {
    if (!(*factors)[i].is_number()) bad("short_factor", (*factors)[i], "a number");
    rope.inv_freq[i] /= (*factors)[i].get<double>();
  }
  const double original = config_number(config, "original_max_position_embeddings",
                                        config_number(scaling, "original_max_position_embeddings",
                                                      static_cast<double>(max_position)));
  const double factor =
      config_number(scaling, "factor", static_cast<double>(max_position) / original);
  rope.factor =
      config_number(scaling, "attention_factor",
                    factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original)));
}

}  // namespace

namespace {

// transformers 5 puts everything into rope_parameters; before, rope_theta stood beside
// rope_scaling.
const json& rope_scaling(const json& config) {
  static const json kNone = json::object();
  const json* scaling = find(config, "rope_parameters");
  if (!scaling) scaling = find(config, "rope_scaling");
  if (!scaling) return kNone;
  if (!scaling->is_object()) bad("rope_scaling", *scaling, "an object");
  return *scaling;
}

std::string rope_type(const json& scaling) {
  return config_string(scaling, "rope_type", config_string(scaling, "type", "default"));
}

bool is_longrope(const std::string& type) { return type == "longrope" || type == "su"; }

}  // namespace

int64_t longest_sequence(const json& config, int64_t max_position) {
  const json& scaling = rope_scaling(config);
  if (!is_longrope(rope_type(scaling))) return max_position;
  constexpr const char* kKey = "original_max_position_embeddings";
  return std::min(max_position,
                  config_int(config, kKey, 1, config_int(scaling, kKey, 1, max_position)));
}

RopeSpec read_rope(const json& config, int64_t rotated_dims, int64_t max_position) {
  const json* scaling = &rope_scaling(config);
  const double theta =
      config_number(*scaling, "rope_theta", config_number(config, "rope_theta", 10000));
  if (!(theta > 1))
    fail(ErrorKind::kCorruptFile, "config.json", "rope_theta is ", theta, ", expected more than 1");
  const std::string type = rope_type(*scaling);
  RopeSpec rope;
  rope.inv_freq = default_frequencies(theta, rotated_dims);
  if (type == "default" || type == "dynamic" || type == "mrope") {
    // dynamic NTK changes nothing within the model's own length
  } else if (type == "linear") {
    const double factor = config_number(*scaling, "factor", 1);
    for (double& f : rope.inv_freq) f /= factor;
  } else if (type == "llama3") {
    scale_llama3(*scaling, rope);
  } else if (type == "yarn") {
    scale_yarn(*scaling, theta, rotated_dims, max_position, rope);
  } else if (is_longrope(type)) {
    scale_longrope(config, *scaling, max_position, rope);
  } else {
    fail(ErrorKind::kUnsupported, "config.json", "rope scaling '", type,
         "'; known are default, linear, dynamic, llama3, yarn, longrope");
  }
  return rope;
}

}  // namespace signround
