#include "signround/quant/scheme.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "signround/base/error.h"

namespace signround {
namespace {

struct Preset {
  std::string_view name;
  int bits;
  int64_t group_size;
};

// AutoRound's weight-only presets for integers; symmetric, full range.
constexpr std::array kPresets = {
    Preset{"W4A16", 4, 128}, Preset{"W3A16", 3, 128},   Preset{"W2A16", 2, 128},
    Preset{"W8A16", 8, 128}, Preset{"W2A16G64", 2, 64}, Preset{"W2A16G32", 2, 32},
};

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::toupper(x) == std::toupper(y);
  });
}

void add_problem(std::string& all, const std::string& one) {
  if (!all.empty()) all += '\n';
  all += one;
}

}  // namespace

std::string problems(const QuantScheme& scheme) {
  std::string all;
  if (scheme.bits != 2 && scheme.bits != 3 && scheme.bits != 4 && scheme.bits != 8 &&
      scheme.bits != 16) {
    add_problem(all, "bits is " + std::to_string(scheme.bits) +
                         ", expected 2, 3, 4 or 8 (or 16: not rounded)");
  }
  if (scheme.group_size != -1 && scheme.group_size < 1) {
    add_problem(all, "group_size is " + std::to_string(scheme.group_size) +
                         ", expected a positive number, or -1 for whole rows");
  }
  if (scheme.symmetry > Symmetry::kClassic) {
    add_problem(all, "symmetry is number " + std::to_string(static_cast<int>(scheme.symmetry)) +
                         ", expected full-range, asymmetric or classic");
  }
  if (scheme.scale_dtype != DType::kF16 && scheme.scale_dtype != DType::kBF16 &&
      scheme.scale_dtype != DType::kF32) {
    add_problem(all, "scale_dtype is " + std::string(name_of(scheme.scale_dtype)) +
                         ", expected F16, BF16 or F32");
  }
  if (scheme.levels == Levels::kNf4) {
    if (scheme.bits != 4 && scheme.bits != 16)
      add_problem(all, "NF4 of " + std::to_string(scheme.bits) + " bits, expected 4");
    // What bitsandbytes' kernels know.
    if (scheme.group_size < 32 || scheme.group_size > 4096 ||
        (scheme.group_size & (scheme.group_size - 1)) != 0)
      add_problem(all, "NF4 in blocks of " + std::to_string(scheme.group_size) +
                           ", expected a power of 2 from 32 to 4096");
  }
  return all;
}

std::string describe(const QuantScheme& scheme) {
  std::string text = "W" + std::to_string(scheme.bits);
  if (scheme.bits >= 16) return text;
  if (scheme.levels == Levels::kNf4)
    return "NF4 b" + std::to_string(scheme.group_size) + (scheme.double_quant ? " double" : "");
  text += scheme.group_size <= 0 ? " per-row" : " g" + std::to_string(scheme.group_size);
  constexpr std::array<std::string_view, 3> kNames = {" sym", " asym", " sym-classic"};
  text += kNames.at(static_cast<size_t>(scheme.symmetry));
  if (scheme.scale_dtype != DType::kF16)
    text.append(" scales=").append(name_of(scheme.scale_dtype));
  return text;
}

QuantScheme scheme_preset(std::string_view name) {
  for (const Preset& preset : kPresets) {
    if (!same_ignoring_case(preset.name, name)) continue;
    QuantScheme scheme;
    scheme.bits = preset.bits;
    scheme.group_size = preset.group_size;
    return scheme;
  }
  std::string names;
  for (const Preset& preset : kPresets) names.append(names.empty() ? "" : ", ").append(preset.name);
  fail(ErrorKind::kInvalidArgument, "scheme", "found \"", name, "\", expected one of ", names);
}

std::vector<std::string> scheme_preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

}  // namespace signround
