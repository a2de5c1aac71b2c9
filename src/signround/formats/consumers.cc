#include "signround/formats/consumers.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>

#include "signround/base/error.h"
#include "signround/formats/packed.h"

namespace signround {
namespace {

constexpr int64_t kAnyGroup = 0;

// One way in which a consumer reads layers. A layer is accepted if one row of the consumer takes
// it.
struct Row {
  std::string_view consumer;
  std::string_view
      formats;  // as on the command line, between spaces; gptq as what it chose, gptq_v1 or gptq_v2
  std::string_view packings;  // of auto_round, by packing_format; "": any
  std::string_view bits;      // between spaces
  bool symmetric, asymmetric;
  std::array<int64_t, 4> groups;  // -1: whole rows; {kAnyGroup}: all
  int64_t out_multiple, in_multiple;
  bool whole_groups;      // in must be a multiple of the group size
  std::string_view note;  // worth saying wherever this row is used
};

constexpr std::array<int64_t, 4> kAny = {kAnyGroup, kAnyGroup, kAnyGroup, kAnyGroup},
                                 kMarlin = {-1, 32, 64, 128};

// Sources: vLLM's auto_gptq.py, auto_awq.py, gptq_utils.py, marlin_utils.py and inc.py; SGLang's
// gptq.py, awq.py and auto_round.py; both engines' bitsandbytes loaders; GPTQModel 7.7.0,
// auto-round 0.16.1 and bitsandbytes 0.50.2 with transformers 5, all run on our files
// (scripts/peers/check_loads.py); llama.cpp's convert_hf_to_gguf.py.
constexpr Row kRows[] = {
    {"vLLM", " gptq_v1 gptq_v2 ", "", " 4 8 ", true, false, kMarlin, 64, 128, true, ""},
    {"vLLM", " auto_round ", " auto_round:auto_gptq ", " 4 8 ", true, false, kMarlin, 64, 128, true,
     ""},
    {"vLLM", " auto_round ", " auto_round:auto_awq ", " 4 ", true, true, kMarlin, 64, 128, true,
     ""},
    {"vLLM", " awq ", "", " 4 ", true, true, kMarlin, 8, 32, true, ""},
    {"vLLM", " gptq_v1 gptq_v2 ", "", " 2 3 ", true, false, kAny, 32, 32, true,
     "2 and 3 bits need a build with humming kernels; others refuse them"},
    {"vLLM", " auto_round ", " auto_round:auto_gptq ", " 2 3 ", true, false, kAny, 32, 32, true,
     "2 and 3 bits need a build with humming kernels; others refuse them"},
    {"vLLM", " fake ", "", " 2 3 4 8 ", true, true, kAny, 1, 1, false,
     "not smaller than the original"},
    {"vLLM", " bnb ", "", " 4 ", true, true, kAny, 1, 1, false,
     "needs the package bitsandbytes; does not split such checkpoints over GPUs"},

    {"SGLang", " gptq_v1 gptq_v2 ", "", " 4 8 ", true, false, kMarlin, 64, 128, true, ""},
    {"SGLang", " gptq_v1 gptq_v2 ", "", " 2 3 4 8 ", true, true, kAny, 32, 32, true,
     "float16 only and no experts (its gptq kernels, not Marlin)"},
    {"SGLang", " auto_round ", " auto_round:auto_gptq ", " 4 8 ", true, false, kMarlin, 64, 128,
     true, ""},
    {"SGLang", " auto_round ", " auto_round:auto_awq ", " 4 ", true, true, kMarlin, 64, 128, true,
     ""},
    {"SGLang", " awq ", "", " 4 ", true, true, kMarlin, 8, 32, true, ""},
    {"SGLang", " fake ", "", " 2 3 4 8 ", true, true, kAny, 1, 1, false,
     "not smaller than the original"},
    {"SGLang", " bnb ", "", " 4 ", true, true, kAny, 1, 1, false,
     "needs the package bitsandbytes; computes in bfloat16; does not split such checkpoints over "
     "GPUs"},

    {"transformers", " auto_round ", " auto_round:auto_gptq ", " 2 3 4 8 ", true, false, kAny, 32,
     32, true, "needs the package auto-round"},
    {"transformers", " auto_round ", " auto_round ", " 2 3 4 8 ", true, true, kAny, 32, 32, true,
     "needs the package auto-round"},
    {"transformers", " auto_round ", " auto_round:auto_awq ", " 4 ", true, true, kAny, 32, 32, true,
     "needs the packages auto-round and gptqmodel; computes in float16"},
    {"transformers", " gptq_v1 ", "", " 2 3 4 8 ", true, false, kAny, 32, 32, false,
     "needs the packages optimum and gptqmodel"},
    {"transformers", " gptq_v2 ", "", " 2 3 4 8 ", true, true, kAny, 32, 32, false,
     "needs the packages optimum and gptqmodel"},
    {"transformers", " awq ", "", " 4 ", true, true, kAny, 32, 32, true,
     "needs the package gptqmodel"},
    {"transformers", " fake ", "", " 2 3 4 8 ", true, true, kAny, 1, 1, false,
     "not smaller than the original"},

    {"transformers", " bnb ", "", " 4 ", true, true, kAny, 1, 64, false,
     "needs the package bitsandbytes"},
    {"transformers", " bnb ", "", " 4 ", true, true, kAny, 1, 1, false,
     "needs the package bitsandbytes, whose version 0.50 computes with wrong scales on CPUs with "
     "AVX-512 where rows are no multiple of 64; GPUs are right"},

    {"GPTQModel", " gptq_v1 ", "", " 2 3 4 8 ", true, false, kAny, 32, 32, false, ""},
    {"GPTQModel", " gptq_v2 ", "", " 2 3 4 8 ", true, true, kAny, 32, 32, false, ""},
    {"GPTQModel", " awq ", "", " 4 ", true, true, kAny, 32, 32, true, ""},
    {"GPTQModel", " fake ", "", " 2 3 4 8 ", true, true, kAny, 1, 1, false,
     "as an original to quantize"},

    {"llama.cpp", " fake ", "", " 2 3 4 8 ", true, true, kAny, 1, 1, false,
     "after convert_hf_to_gguf.py; not smaller than the original"},
};

bool has_word(std::string_view words, std::string_view word) {
  return words.find(" " + std::string(word) + " ") != std::string_view::npos;
}

bool takes_group(const Row& row, int64_t group_size) {
  return row.groups[0] == kAnyGroup ||
         std::find(row.groups.begin(), row.groups.end(), group_size) != row.groups.end();
}

// Fused by name: what vLLM and SGLang load as one matrix.
constexpr std::array<std::string_view, 2> kFused[] = {{"q_proj k_proj v_proj", "qkv_proj"},
                                                      {"gate_proj up_proj", "gate_up_proj"}};

// Layers that take a slice of the input on every rank; all others give a slice of the output.
constexpr std::string_view kRowParallel = " o_proj down_proj out_proj dense_4h_to_h w2 fc2 c_proj ";

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

std::string scheme_text(const QuantScheme& scheme) {
  if (scheme.bits >= 16) return "16 bit";
  if (scheme.levels == Levels::kNf4) return describe(scheme);
  return std::to_string(scheme.bits) + " bit " + (formats::is_symmetric(scheme) ? "sym" : "asym") +
         " group " + std::to_string(scheme.group_size);
}

// Experts of a layer ("...experts.7.up_proj") are one matrix too: their number is taken out of the
// name.
std::string fusion_key(const std::string& name) {
  std::string key = name.substr(0, name.rfind('.') + 1);
  const std::string last = last_part(name);
  const size_t experts = key.find(".experts.");
  if (experts != std::string::npos) return key.substr(0, experts) + ".experts";
  for (const auto& [parts, joined] : kFused) {
    if (has_word(" " + std::string(parts) + " ", last)) return key + std::string(joined);
  }
  return "";
}

// "" if all parts of every fused matrix have one scheme.
std::string fusion_problem(const FormatModel& model) {
  std::map<std::string, const FormatLayer*> first;
  for (const FormatLayer& layer : model.layers) {
    const std::string key = fusion_key(layer.name);
    if (key.empty()) continue;
    const auto [found, is_new] = first.emplace(key, &layer);
    if (is_new || scheme_text(found->second->scheme) == scheme_text(layer.scheme)) continue;
    return layer.name + " has " + scheme_text(layer.scheme) + ", " + found->second->name + " " +
           scheme_text(found->second->scheme) +
           ": it fuses them into one matrix, which has one scheme";
  }
  return "";
}

// Why this row does not take the layer; "" if it does. A reason is worth more the later it comes
// up.
struct Refusal {
  int rank = 0;
  std::string text;
};
Refusal refusal(const Row& row, const FormatLayer& layer) {
  const QuantScheme& scheme = layer.scheme;
  const bool symmetric = formats::is_symmetric(scheme);
  const std::string of = layer.name + ": ";
  if (!has_word(row.bits, std::to_string(scheme.bits)) ||
      !(symmetric ? row.symmetric : row.asymmetric)) {
    return {1,
            of + std::to_string(scheme.bits) + " bits " + (symmetric ? "symmetric" : "asymmetric")};
  }
  if (!takes_group(row, scheme.group_size))
    return {2, of + "group size " + std::to_string(scheme.group_size)};
  if (layer.out % row.out_multiple != 0) {
    return {3, of + "out " + std::to_string(layer.out) + " is not a multiple of " +
                   std::to_string(row.out_multiple)};
  }
  if (layer.in % row.in_multiple != 0) {
    return {3, of + "in " + std::to_string(layer.in) + " is not a multiple of " +
                   std::to_string(row.in_multiple)};
  }
  if (row.whole_groups && scheme.group_size > 0 && layer.in % scheme.group_size != 0) {
    return {3, of + "in " + std::to_string(layer.in) + " is not a multiple of the group size " +
                   std::to_string(scheme.group_size)};
  }
  return {};
}

bool splits(const Row& row, const FormatLayer& layer, int64_t ranks) {
  const bool by_input = has_word(kRowParallel, last_part(layer.name));
  // Key and value heads are repeated where there are more ranks than heads, so they do not limit
  // the split.
  const std::string last = last_part(layer.name);
  if (last == "k_proj" || last == "v_proj") return true;
  FormatLayer slice = layer;
  int64_t& side = by_input ? slice.in : slice.out;
  if (side % ranks != 0) return false;
  side /= ranks;
  return refusal(row, slice).text.empty();
}

ConsumerVerdict verdict_of(std::string_view consumer, std::string_view format,
                           std::string_view packing, const FormatModel& model) {
  ConsumerVerdict verdict{std::string(consumer), ConsumerVerdict::Level::kLoads, {}, 0};
  std::vector<const Row*> rows;
  for (const Row& row : kRows) {
    if (row.consumer == consumer && has_word(row.formats, format) &&
        (row.packings.empty() || has_word(row.packings, packing))) {
      rows.push_back(&row);
    }
  }
  const bool engine = consumer == "vLLM" || consumer == "SGLang";
  const auto refuse = [&](const std::string& reason) {
    verdict.level = ConsumerVerdict::Level::kRefuses;
    verdict.reasons = {reason};
    verdict.tensor_parallel = 0;
    return verdict;
  };
  if (rows.empty()) {
    return refuse("does not read the format " + std::string(format) +
                  (packing.empty() ? "" : " with packing_format " + std::string(packing)));
  }
  int ranks = engine && format != "bnb" ? 64 : 0;
  bool negative = false;
  for (const FormatLayer& layer : model.layers) {
    if (layer.scheme.bits >= 16) continue;
    negative = negative || layer.scheme.symmetry == Symmetry::kFullRange;
    const Row* used = nullptr;
    Refusal best;
    for (const Row* row : rows) {
      Refusal why = refusal(*row, layer);
      if (why.text.empty()) {
        used = row;
        break;
      }
      if (why.rank > best.rank) best = std::move(why);
    }
    if (!used) return refuse(best.text);
    if (!used->note.empty() && std::find(verdict.reasons.begin(), verdict.reasons.end(),
                                         used->note) == verdict.reasons.end()) {
      verdict.reasons.emplace_back(used->note);
    }
    while (ranks > 1 && !splits(*used, layer, ranks)) ranks /= 2;
  }
  verdict.tensor_parallel = ranks;
  if (engine && format != "fake") {
    if (const std::string problem = fusion_problem(model); !problem.empty()) return refuse(problem);
  }
  if (consumer == "vLLM" && negative && format != "fake") {
    verdict.reasons.push_back(
        "scales may be negative (full-range symmetric): fine with 16-bit activations, not with its "
        "optional 8-bit ones");
  }
  if (!verdict.reasons.empty()) verdict.level = ConsumerVerdict::Level::kWithCare;
  return verdict;
}

}  // namespace

std::vector<ConsumerVerdict> verdicts(std::string_view format, const FormatModel& model) {
  const auto writer = make_format(format, model);
  std::string packing, read_as(format);
  if (format == "auto_round")
    packing = writer->quantization_config(model)["packing_format"].get<std::string>();
  if (format == "gptq") read_as = writer->packing() == Packing::kGptqV2 ? "gptq_v2" : "gptq_v1";
  std::vector<ConsumerVerdict> all;
  std::string_view last;
  for (const Row& row : kRows) {
    if (row.consumer == last) continue;
    last = row.consumer;
    all.push_back(verdict_of(last, read_as, packing, model));
  }
  return all;
}

std::string why_nobody_loads(std::string_view format, const FormatModel& model) {
  std::string why;
  for (const ConsumerVerdict& verdict : verdicts(format, model)) {
    if (verdict.level != ConsumerVerdict::Level::kRefuses) return "";
    if (verdict.consumer == "transformers" || why.empty())
      why = verdict.consumer + " refuses, " + verdict.reasons[0];
  }
  return why;
}

std::vector<std::string> describe_verdicts(std::string_view format, const FormatModel& model) {
  std::vector<std::string> lines;
  for (const ConsumerVerdict& verdict : verdicts(format, model)) {
    const bool refuses = verdict.level == ConsumerVerdict::Level::kRefuses;
    std::string line = verdict.consumer + (refuses ? ": refuses" : ": loads");
    if (verdict.tensor_parallel > 0)
      line += ", tensor parallel up to " + std::to_string(verdict.tensor_parallel);
    for (size_t k = 0; k < verdict.reasons.size(); ++k)
      line += (k == 0 ? (refuses ? ", " : "; ") : "; ") + verdict.reasons[k];
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace signround
