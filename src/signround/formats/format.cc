#include "signround/formats/format.h"

#include <algorithm>
#include <array>

#include "signround/base/error.h"
#include "signround/formats/packed.h"

namespace signround {
namespace {

constexpr std::array<std::string_view, 7> kNames = {"auto_round", "gptq", "gptq_v1", "gptq_v2",
                                                    "awq",        "bnb",  "fake"};

}  // namespace

int64_t CheckpointFormat::prepare(QuantizedLinear&) const { return 0; }

std::vector<PackedTensor> CheckpointFormat::pack_nf4(const FormatLayer& layer,
                                                     const Nf4Linear&) const {
  fail(ErrorKind::kInvalidArgument, "format", layer.name, " has NF4's levels, ", name(),
       " holds integers");
}

std::span<const std::string_view> format_names() { return kNames; }

std::unique_ptr<CheckpointFormat> make_format(std::string_view name, const FormatModel& model) {
  if (name == "auto_round") return formats::make_auto_round(model);
  if (name.starts_with("gptq") && std::find(kNames.begin(), kNames.end(), name) != kNames.end()) {
    return formats::make_gptq(name, model);
  }
  if (name == "awq") return formats::make_awq(model.scheme);
  if (name == "bnb") return formats::make_bnb();
  if (name == "fake") return formats::make_fake();
  std::string list;
  for (std::string_view known : kNames) list += (list.empty() ? "" : ", ") + std::string(known);
  fail(ErrorKind::kInvalidArgument, "format", "\"", name, "\", known formats are ", list);
}

}  // namespace signround
