#include "signround/pipeline/options.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "signround/base/error.h"
#include "signround/device/device.h"
#include "signround/formats/format.h"
#include "signround/pipeline/layer_config.h"
#include "signround/pipeline/mixed.h"
#include "signround/quant/nf4.h"

namespace signround {

bool reads_text(std::string_view method) { return method != "rtn" && method != "nf4"; }

QuantScheme QuantizeOptions::quant_scheme() const {
  if (method == "nf4")
    return {.bits = 4,
            .group_size = kNf4Block,
            .symmetry = Symmetry::kClassic,
            .scale_dtype = DType::kF32,
            .levels = Levels::kNf4,
            .double_quant = bnb_double_quant};
  QuantScheme result = scheme_preset(scheme);
  if (bits > 0) result.bits = bits;
  if (group_size != 0) result.group_size = group_size;
  if (symmetry == "asym") result.symmetry = Symmetry::kAsym;
  if (symmetry == "gptq-sym") result.symmetry = Symmetry::kClassic;
  if (scale_dtype == "bfloat16" || scale_dtype == "bf16") result.scale_dtype = DType::kBF16;
  if (scale_dtype == "float32" || scale_dtype == "fp32") result.scale_dtype = DType::kF32;
  return result;
}

std::vector<std::string> QuantizeOptions::chosen_formats() const {
  return formats.empty() ? std::vector<std::string>{method == "nf4" ? "bnb" : "auto_round"}
                         : formats;
}

QuantizeOptions QuantizeOptions::resolved() const {
  QuantizeOptions r = *this;
  r.formats = chosen_formats();
  r.layer_config = layer_config_text(layer_config);
  const QuantScheme grid = quant_scheme();
  r.bits = grid.bits;
  r.group_size = grid.group_size;
  if (r.symmetry.empty() && method != "nf4") r.symmetry = "full";
  const bool few_bits = grid.bits <= 3;
  const bool own = recipe == "auto";
  if (r.scales.empty()) r.scales = own ? "free" : "range";
  if (r.start.empty()) r.start = r.scales == "free" ? "searched" : "nearest";
  if (r.iters < 0)
    r.iters = recipe == "best" ? 1000 : recipe == "light" || (own && !few_bits) ? 50 : 200;
  // The pass reads integers from a packed format.
  const bool packed = std::any_of(r.formats.begin(), r.formats.end(),
                                  [](const std::string& f) { return f != "fake"; });
  if (r.e2e_epochs < 0) r.e2e_epochs = own && few_bits && packed && r.tunes() ? 2 : 0;
  if (r.nsamples == 0) r.nsamples = recipe == "best" ? 512 : 128;
  if (r.lr == 0 && recipe == "light") r.lr = 5e-3;
  // 0.02 at 50 steps and 0.01 at 200; larger first steps destroyed 2-bit models in trials.
  if (r.lr == 0 && r.scales == "free") r.lr = 0.01 * std::sqrt(200.0 / std::max(r.iters, 1));
  return r;
}

namespace {

// What says nothing with NF4's levels, or asks for something else.
void add_nf4_problems(const QuantizeOptions& o, std::vector<std::string>& found) {
  if (o.method != "nf4") {
    if (std::find(o.formats.begin(), o.formats.end(), "bnb") != o.formats.end())
      found.push_back("--format bnb holds NF4, not integers; use --method nf4, or another format");
    return;
  }
  const auto refuse = [&](bool given, const std::string& flag, const std::string& why) {
    if (given) found.push_back(flag + ": --method nf4 " + why);
  };
  for (const std::string& format : o.formats)
    refuse(format != "bnb" && format != "fake", "--format " + format,
           "is held by bnb and fake only; use one of them");
  const QuantizeOptions usual;
  refuse(o.bits != 0 && o.bits != 4, "--bits " + std::to_string(o.bits),
         "has 4 bits; leave it out");
  refuse(o.group_size != 0 && o.group_size != kNf4Block,
         "--group-size " + std::to_string(o.group_size), "has blocks of 64; leave it out");
  refuse(o.scheme != usual.scheme, "--scheme " + o.scheme, "is a scheme of its own; leave it out");
  refuse(!o.symmetry.empty(), "--symmetry " + o.symmetry,
         "has levels of its own, without zero points; leave it out");
  refuse(o.scale_dtype != usual.scale_dtype, "--scale-dtype " + o.scale_dtype,
         "has float32 scales; leave it out");
  refuse(!o.layer_config.empty(), "--layer-config",
         "has one scheme for all layers; use --ignore-layers for those that stay as they are");
}

// Runs `check` and keeps what it throws, so that the checks behind it still run.
template <class Check>
void collect(std::vector<std::string>& found, Check&& check) {
  try {
    check();
  } catch (const Error& error) {
    found.push_back(error.what());
  }
}

}  // namespace

std::vector<std::string> QuantizeOptions::problems() const {
  std::vector<std::string> found;
  add_nf4_problems(*this, found);
  const std::vector<std::string> chosen = chosen_formats();
  QuantScheme grid;  // of the options, or where they are wrong, the usual one
  collect(found, [&] {
    const QuantScheme asked = quant_scheme();
    if (const std::string wrong = signround::problems(asked); !wrong.empty())
      return found.push_back(wrong);
    grid = asked;
  });
  if (grid.scale_dtype != DType::kF16 && method != "nf4" &&
      std::any_of(chosen.begin(), chosen.end(), [](const std::string& f) { return f != "fake"; }))
    found.push_back("--scale-dtype " + scale_dtype +
                    ": packed formats hold float16 scales; use --format fake or leave it out");
  collect(found, [&] { LayerConfig(layer_config_text(layer_config), grid); });
  collect(found, [&] {
    if (!size.empty()) parse_size(size);
  });
  collect(found, [&] {
    if (mixed() && reads_text(method)) parse_options(choices, grid);
  });
  if (avg_bits > 0 && !size.empty())
    found.push_back("--avg-bits and --size both say how large the result is; leave one out");
  if (mixed() && !reads_text(effective_method()))
    found.push_back("--avg-bits and --size measure on text, which --method " + effective_method() +
                    " does not read; use --method opt-rtn");
  if (start == "searched" && (scales == "range" || (scales.empty() && recipe != "auto")))
    found.push_back(
        "--start searched needs --scales free: range factors begin at the group's range");
  if (method == "opt-rtn" && !enable_opt_rtn)
    found.push_back("--method opt-rtn and --disable-opt-rtn contradict each other; leave one out");
  const auto names = format_names();
  for (size_t i = 0; i < formats.size(); ++i) {
    if (std::find(names.begin(), names.end(), formats[i]) == names.end()) {
      std::string known;
      for (auto name : names) known += (known.empty() ? "" : ", ") + std::string(name);
      found.push_back("--format: '" + formats[i] + "' is none of " + known);
    }
    if (std::find(formats.begin(), formats.begin() + static_cast<std::ptrdiff_t>(i), formats[i]) !=
        formats.begin() + static_cast<std::ptrdiff_t>(i))
      found.push_back("--format names " + formats[i] + " twice");
  }
  if (e2e_epochs > 0 && formats == std::vector<std::string>{"fake"})
    found.push_back("--e2e-epochs reads the integers from a packed format; add one to --format");
  if (e2e_epochs > 0 && !reads_text(effective_method()))
    found.push_back("--e2e-epochs learns from text, which --method " + effective_method() +
                    " does not read");
  if (nblocks > 1 && !tunes())
    found.push_back("--nblocks tunes blocks together, and nothing is tuned here; leave it out");
  if (enable_norm_bias_tuning && !tunes())
    found.push_back(
        "--enable-norm-bias-tuning tunes norms and biases beside the weights, and nothing is tuned "
        "here; leave it out");
  if (awq && !reads_text(effective_method()))
    found.push_back("--awq reads text, which --method " + effective_method() +
                    " does not; use --method opt-rtn");
  collect(found, [&] {
    try {
      parse_device(device);
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::kInvalidArgument) throw;
    }
  });
  if (output.empty()) found.push_back("-o OUT is missing: the folder of the result");
  try {
    parse_blocks(blocks, int64_t{1} << 40);
  } catch (const Error& error) {
    found.push_back(error.what());
  }
  return found;
}

std::vector<int64_t> parse_blocks(const std::string& text, int64_t count) {
  std::vector<int64_t> numbers;
  if (text.empty()) {
    if (count > (1 << 20)) return numbers;  // only the syntax was asked for
    for (int64_t i = 0; i < count; ++i) numbers.push_back(i);
    return numbers;
  }
  const auto number = [&](const char*& at, const char* end) {
    int64_t value = -1;
    const auto [next, error] = std::from_chars(at, end, value);
    require(error == std::errc() && value >= 0, "blocks", "'", text,
            "' is no list of blocks; write 0-7 or 0,3,5");
    require(value < count, "blocks", "block ", value, " of '", text,
            "' is not there; the model has blocks 0 to ", count - 1);
    at = next;
    return value;
  };
  const char *at = text.data(), *end = at + text.size();
  for (;;) {
    const int64_t first = number(at, end);
    int64_t last = first;
    if (at < end && *at == '-') last = number(++at, end);
    require(last >= first, "blocks", "'", text, "': ", first, "-", last, " runs backwards");
    require(last - first < (1 << 20), "blocks", "'", text, "' names too many blocks");
    for (int64_t i = first; i <= last; ++i) numbers.push_back(i);
    if (at == end) break;
    require(*at == ',', "blocks", "'", text, "' is no list of blocks; write 0-7 or 0,3,5");
    ++at;
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

bool is_ignored(const std::vector<std::string>& parts, const std::string& layer) {
  for (std::string part : parts) {
    if (part.empty()) continue;
    if (part.back() >= '0' && part.back() <= '9') part += '.';
    if ((layer + ".").find(part) != std::string::npos) return true;
  }
  return false;
}

}  // namespace signround
