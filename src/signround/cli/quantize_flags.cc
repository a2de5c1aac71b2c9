#include "signround/cli/quantize_flags.h"

#include <string_view>

namespace signround {
namespace {

struct Foreign {
  std::string_view names;  // between spaces
  std::string_view why;
};

// They decide how AutoRound's process goes, not what its result is.
constexpr Foreign kWithoutEffect[] = {
    {"low_gpu_mem_usage low_cpu_mem_usage disable_low_cpu_mem_usage",
     "one block is in memory at a time; --max-memory limits it"},
    {"enable_torch_compile disable_torch_compile disable_amp", "there is no torch here"},
    {"trust_remote_code disable_trust_remote_code", "no code of a model is ever run"},
    {"enable_deterministic_algorithms disable_deterministic_algorithms",
     "the same input, seed and machine always give the same bytes"},
};

constexpr Foreign kRefused[] = {
    {"act_bits act_group_size act_data_type act_asym disable_act_dynamic",
     "activations are not quantized here; leave it out"},
    {"super_bits super_group_size", "scales are not quantized a second time here; leave it out"},
    {"static_kv_dtype static_kv_granularity static_attention_dtype static_attention_granularity",
     "the KV cache and attention are not quantized here; leave it out"},
    {"shared_layers",
     "q, k, v and gate, up always share their scheme here; others by --layer-config"},
    {"ignore_scale_zp_bits", "scales and zero points always count here; leave it out"},
    {"enable_adam", "rounding offsets are tuned by sign descent only; leave it out"},
    {"quant_embedding quant_embeddings embedding_bits embed_bits token_embedding_type",
     "embeddings stay as they are: no format that is written here has readers for quantized ones "
     "(docs/mixed_precision.md); leave it out"},
    {"enable_lfq", "this method is not offered; leave it out"},
    {"enable_alg_ext", "this method is not offered; for free scales use --recipe auto"},
    {"awq_duo_scaling awq_n_grid awq_seqlen awq_smooth_batch_size awq_apply_clip awq_clip_as_init",
     "--awq has no settings of its own here; leave it out"},
    {"rotation_type rotation_backend rotation_block_size fuse_online_to_weight "
     "allow_online_rotation",
     "weights are not rotated here; leave it out"},
    {"svdquant_rank enable_svdquant_smooth svdquant_smooth_num_grids "
     "svdquant_smooth_max_calibration_calls svdquant_residual_iters svdquant_low_rank_dtype",
     "this method is not offered; leave it out"},
    {"model_free disable_model_free", "use --method rtn, which reads the weights alone"},
    {"to_quant_block_names", "use --blocks with numbers, or --ignore-layers with parts of names"},
    {"mllm quant_nontext_module extra_data_dir template guidance_scale num_inference_steps "
     "generator_seed prompt_file prompt metrics image_save_dir",
     "only language models are quantized here; leave it out"},
    {"tasks task eval_bs limit num_fewshot eval_gen_kwargs fewshot_as_multiturn eval_task_by_task "
     "eval_backend vllm_args eval_model_dtype add_bos_token eval",
     "evaluate the result with 'signround eval OUT --reference MODEL'"},
};

template <class Use>
void for_each_name(std::string_view names, Use&& use) {
  for (size_t start = 0; start < names.size();) {
    const size_t end = std::min(names.find(' ', start), names.size());
    if (end > start) use(names.substr(start, end - start));
    start = end + 1;
  }
}

// "awq,rtn" and the like: preparations, then how to round. AutoRound's rtn searches scales unless
// --disable-opt-rtn is given, but ours means plain rounding wherever nothing stands in front of it.
std::string read_algorithm(const std::string& text, QuantizeOptions& options) {
  std::string wrong;
  for (size_t start = 0; start <= text.size();) {
    const size_t end = std::min(text.find(',', start), text.size());
    const std::string part = text.substr(start, end - start);
    if (part == "awq")
      options.awq = true;
    else if (part == "signround" || part == "auto_round" || part == "autoround")
      options.method = "signround";
    else if (part == "rtn")
      options.method = options.awq ? "opt-rtn" : "rtn";
    else if (part == "opt-rtn" || part == "opt_rtn")
      options.method = "opt-rtn";
    else if (part == "gptq")
      options.method = "gptq";
    else
      wrong = "is no list of awq, auto_round, signround, gptq, opt-rtn, rtn";
    start = end + 1;
  }
  return wrong;
}

}  // namespace

void add_quantize_flags(Flags& flags, std::string& model, QuantizeOptions& options,
                        std::vector<std::string>& notes) {
  flags.positional(
      "MODEL", model,
      "folder with config.json and *.safetensors, a .gguf file, or a Hub id such as org/name");
  flags.add_fields(options);
  flags.action("sym", [&] { options.symmetry = "full"; },
               {.help = "shorthand for --symmetry full", .group = "Shorthands and output:"});
  flags.action("asym", [&] { options.symmetry = "asym"; },
               {.help = "shorthand for --symmetry asym"});
  flags.action("gptq-sym", [&] { options.symmetry = "gptq-sym"; },
               {.help = "shorthand for --symmetry gptq-sym"});
  flags.action("disable-minmax-tuning", [&] { options.enable_minmax_tuning = false; },
               {.help = "as --no-enable-minmax-tuning"});
  flags.action("disable-quanted-input", [&] { options.enable_quanted_input = false; },
               {.help = "as --no-enable-quanted-input"});
  flags.action("no-early-stop", [&] { options.early_stop = 0; }, {.help = "as --early-stop 0"});
  flags.action("disable-opt-rtn", [&] { options.enable_opt_rtn = false; },
               {.help = "as --no-enable-opt-rtn"});
  flags.custom(
      "model",
      [&](const std::string& text) -> std::string {
        if (!model.empty()) return "is one model too many, beside '" + model + "'";
        model = text;
        return "";
      },
      {.help = "MODEL by name", .aliases = {"model_name", "model_name_or_path"}, .value = "MODEL"});
  flags.custom("algorithm", [&](const std::string& text) { return read_algorithm(text, options); },
               {.help = "--method, and --awq in front of it: auto_round, rtn, awq,rtn, ...",
                .aliases = {"alg"},
                .value = "LIST"});

  flags.custom("data-type",
               [](const std::string& text) -> std::string {
                 return text == "int" ? "" : "is none of int: weights become integers here";
               },
               {.aliases = {"dtype"}, .value = "TYPE", .hidden = true});
  flags.custom("platform",
               [](const std::string& text) -> std::string {
                 return text == "hf" ? "" : "is none of hf: download the model and give its folder";
               },
               {.value = "NAME", .hidden = true});
  flags.custom(
      "model-dtype",
      [&](const std::string&) -> std::string {
        notes.push_back("--model-dtype has no effect: weights are read as they are stored");
        return "";
      },
      {.value = "TYPE", .hidden = true});
  for (const auto& [names, why] : kWithoutEffect)
    for_each_name(names, [&, why = why](std::string_view name) {
      flags.action(name,
                   [&notes, note = "--" + std::string(name) + " has no effect: " +
                                   std::string(why)] { notes.push_back(note); },
                   {.hidden = true});
    });
  for (const auto& [names, why] : kRefused)
    for_each_name(names, [&, why = why](std::string_view name) {
      flags.explain(name, std::string(why));
      flags.explain("no_" + std::string(name), std::string(why));
    });
}

void check_quantize_flags(Flags& flags, const QuantizeOptions& options) {
  if (flags.was_set("group-size") && options.group_size == 0)
    flags.problem("--group-size: 0 is no size; -1 gives each row one scale");
  for (auto& problem : options.problems()) flags.problem(std::move(problem));
}

}  // namespace signround
