// What `signround quantize` does to one model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "signround/base/fields.h"
#include "signround/quant/scheme.h"

namespace signround {

// Whether a method looks at calibration text: all but those that round weights by themselves.
bool reads_text(std::string_view method);

// Defaults are AutoRound's. The field list is the list of flags (docs of each: the help texts), of
// the record in signround.json, and of what a continued run must agree with.
struct QuantizeOptions {
  std::string output;
  std::string scheme = "W4A16";
  int bits = 0;
  int64_t group_size = 0;
  std::string symmetry;
  std::string scale_dtype = "float16";
  std::vector<std::string> formats;
  std::string method = "signround";
  std::string recipe = "auto";
  int iters = -1;  // -1, and 0 or "" below: as the recipe has it
  double early_stop = 0;
  double lr = 0, minmax_lr = 0;
  std::string scales, start;
  double scale_lr = 2e-3;
  int64_t nblocks = 1;
  int64_t e2e_epochs = -1;  // -1: as the recipe has it
  double e2e_lr = 1e-3;
  bool e2e_norms = true;
  bool awq = false;
  double damp = 0.01;
  bool act_order = true;
  bool bnb_double_quant = true;
  bool enable_minmax_tuning = true;
  bool enable_norm_bias_tuning = false;
  bool enable_quanted_input = true;
  bool not_use_best_mse = false;
  bool enable_opt_rtn = true;
  double momentum = 0;
  std::string dataset = "default";
  int64_t nsamples = 0, seqlen = 2048, batch_size = 8, gradient_accumulate_steps = 1;
  bool shuffle = true;
  uint64_t seed = 42;
  std::vector<std::string> ignore_layers;
  std::string layer_config;
  double avg_bits = 0;
  std::string size;
  std::vector<std::string> choices = {"2", "3", "4", "8"};
  std::string sensitivity, sensitivity_measure = "delta-loss";
  bool quant_lm_head = false;
  std::string blocks;
  std::string compute_dtype = "auto";
  std::string gradient_dtype = "as-compute";
  std::string stream_dtype = "auto";
  std::string device = "auto";
  int threads = 0;
  double max_memory = 0, max_gpu_memory = 0;
  double shard_size = 5;
  bool strict = false;
  bool timing = false;
  bool restart = false;

  template <class Visitor>
  void visit(Visitor&& v) {
    v("output", output,
      {.help = "or -o: folder of the result; with several formats, each gets a folder in it",
       .aliases = {"output_dir", "out"},
       .value = "OUT"});
    v("format", formats,
      {.help = "checkpoint formats, comma-separated: auto_round (the default), gptq (v1 or v2, as the "
               "layers need), gptq_v1, gptq_v2, awq, bnb (the default and only packed one of "
               "--method nf4), fake",
       .aliases = {"formats"},
       .value = "LIST",
       .spellings = {{"auto_gptq", "gptq"},
                     {"auto_awq", "awq"},
                     {"auto_round:auto_gptq", "auto_round"},
                     {"auto_round:auto_awq", "auto_round"},
                     {"auto_round:gptqmodel", "auto_round"}}});
    v("scheme", scheme,
      {.help = "preset of bits and group size: W2A16, W3A16, W4A16, W8A16, W2A16G32, W2A16G64",
       .value = "NAME",
       .group = "Grid:"});
    v("bits", bits,
      {.help = "bits per weight, 2, 3, 4 or 8; overrides the scheme",
       .min = 2,
       .max = 8,
       .value = "N"});
    v("group_size", group_size,
      {.help = "weights that share one scale, -1 for a whole row; overrides the scheme",
       .min = -1,
       .max = 1 << 20,
       .value = "N"});
    v("symmetry", symmetry,
      {.help = "full (signed scales, the default), asym (zero points), gptq-sym (positive scales); "
               "also --sym, --asym, --gptq-sym",
       .choices = {"", "full", "asym", "gptq-sym"},
       .value = "KIND"});
    v("scale_dtype", scale_dtype,
      {.help = "what scales are rounded to while tuning; packed formats hold float16",
       .choices = {"float16", "bfloat16", "float32", "fp16", "bf16", "fp32"},
       .value = "TYPE"});
    v("ignore_layers", ignore_layers,
      {.help = "layers left in 16 bit: parts of names, comma-separated",
       .aliases = {"fp_layers"},
       .value = "LIST"});
    v("layer_config", layer_config,
      {.help = "schemes of single layers: JSON or a file of it, from names, parts of names or regular "
               "expressions to bits, a scheme's name, or {bits, group_size, sym}",
       .value = "JSON"});
    v("avg_bits", avg_bits,
      {.help = "mixed precision: the schemes of --options are given to layers so that weights, scales "
               "and zero points take this many bits per weight and predictions change least; q, k, "
               "v and gate, up stay alike",
       .aliases = {"target_bits"},
       .min = 0,
       .max = 16,
       .value = "X"});
    v("size", size,
      {.help = "the same, for a size of the whole checkpoint, e.g. 4.2GB", .value = "SIZE"});
    v("options", choices,
      {.help = "what to choose from: bits, or names of schemes; 16 leaves a layer as it is",
       .value = "LIST"});
    v("sensitivity", sensitivity,
      {.help = "file of what each choice costs; read if it is of this model and text, else measured "
               "and written; default OUT.sensitivity.json",
       .value = "FILE"});
    v("sensitivity_measure", sensitivity_measure,
      {.help = "cost of a choice: delta-loss (AutoScheme's sum of |gradient x change|), kl "
               "(divergence to second order), error (of the layer's output)",
       .choices = {"delta-loss", "kl", "error"},
       .value = "NAME"});
    v("quant_lm_head", quant_lm_head,
      {.help = "quantize the head as well (models whose head is not tied to the embedding)"});
    v("blocks", blocks,
      {.help = "only these blocks, e.g. 0-7 or 0,3,5; the others are copied. For trials",
       .value = "RANGE"});
    v("method", method,
      {.help = "signround (tuned), gptq (column by column by second moments), opt-rtn (searched "
               "scales), rtn (round to nearest), nf4 (bitsandbytes' 16 levels in blocks of 64)",
       .choices = {"signround", "gptq", "opt-rtn", "rtn", "nf4"},
       .value = "NAME",
       .group = "Method:",
       .spellings = {{"auto_round", "signround"}, {"opt_rtn", "opt-rtn"}}});
    v("recipe", recipe,
      {.help =
           "settings of signround that are not given: auto (searched start, free scales; 50 steps; for "
           "3 bits and less 200 steps and two end-to-end passes), autoround (AutoRound's rules, 200 "
           "steps), light (its 50 steps), best (its 1000 steps, 512 samples)",
       .choices = {"auto", "autoround", "light", "best"},
       .value = "NAME"});
    v("iters", iters,
      {.help = "tuning steps per block; 0 means opt-rtn, or rtn with --disable-opt-rtn",
       .min = 0,
       .max = 1e6,
       .value = "N"});
    v("early_stop", early_stop,
      {.help = "end a block's steps where its loss over all samples is not lower by this share than "
               "the time before; 0: never. 0.03 saves a third of 200 steps (docs/accuracy.md)",
       .min = 0,
       .max = 1,
       .value = "X"});
    v("lr", lr,
      {.help =
           "first step of the rounding offsets; 0: as the recipe has it (autoround: 1/iters, or "
           "2/iters for 3 bits and less from 1000 iterations on)",
       .min = 0,
       .max = 1,
       .value = "X"});
    v("scales", scales,
      {.help = "what is tuned of a group's grid: range (its ends, by factors of at most 1), free "
               "(its scale)",
       .choices = {"", "range", "free"},
       .value = "KIND"});
    v("start", start,
      {.help = "the grid that free scales begin with: nearest (of the group's range), searched (of "
               "least error in the layer's output)",
       .choices = {"", "nearest", "searched"},
       .value = "KIND"});
    v("scale_lr", scale_lr,
      {.help = "first step of a free scale's logarithm", .min = 0, .max = 1, .value = "X"});
    v("minmax_lr", minmax_lr,
      {.help = "first step of the range factors; 0: as --lr", .min = 0, .max = 1, .value = "X"});
    v("enable_minmax_tuning", enable_minmax_tuning, {.help = "tune the range of each group"});
    v("enable_norm_bias_tuning", enable_norm_bias_tuning,
      {.help = "tune the weights of a block's norms and the biases of its rounded layers as well, in "
               "the range that each of them has"});
    v("enable_quanted_input", enable_quanted_input,
      {.help = "feed each block what the quantized blocks before it give"});
    v("not_use_best_mse", not_use_best_mse,
      {.help = "keep the last parameters instead of those of the lowest loss (free scales: the last "
               "ones anyway; with this flag no fixed samples tell where steps are too long)"});
    v("enable_opt_rtn", enable_opt_rtn, {.help = "search scales where --iters is 0"});
    v("momentum", momentum,
      {.help = "momentum of the sign descent", .min = 0, .max = 0.999, .value = "X"});
    v("nblocks", nblocks,
      {.help = "consecutive blocks that are tuned as one, against the last one's output; memory and "
               "the time of a step grow with it",
       .min = 1,
       .max = 1000,
       .value = "N"});
    v("e2e_epochs", e2e_epochs,
      {.help = "after all blocks: passes over the samples in which the scales of all layers learn "
               "together what keeps the model's predictions close to the original's; left out, as the "
               "recipe has it",
       .min = 0,
       .max = 1000,
       .value = "N"});
    v("e2e_norms", e2e_norms,
      {.help = "in those passes the norms' weights learn as well as the scales"});
    v("e2e_lr", e2e_lr,
      {.help = "its first step of a scale's logarithm", .min = 0, .max = 1, .value = "X"});
    v("awq", awq,
      {.help = "before rounding, scale input channels by their activations (AWQ) and fold the inverse "
               "into the layer in front; for every method that reads text"});
    v("damp", damp,
      {.help = "gptq: share of the mean second moment that is added to all",
       .aliases = {"damp_percent"},
       .min = 1e-9,
       .max = 10,
       .value = "X"});
    v("act_order", act_order,
      {.help = "gptq: round the columns with the largest inputs first; groups stay where they are",
       .aliases = {"desc_act"}});
    v("bnb_double_quant", bnb_double_quant,
      {.help = "nf4: store the scales of blocks in 8 bits, 4.13 instead of 4.5 bits per weight"});
    v("dataset", dataset,
      {.help = "calibration text: a .jsonl, .json, .txt or .parquet file, a data set's name, or "
               "'default' (built in)",
       .value = "SPEC",
       .group = "Calibration:"});
    v("nsamples", nsamples,
      {.help = "samples; 128, or 512 with --recipe best",
       .aliases = {"nsample"},
       .min = 1,
       .max = 1e7,
       .value = "N"});
    v("seqlen", seqlen,
      {.help = "tokens of each sample",
       .aliases = {"seq_len"},
       .min = 2,
       .max = 1 << 20,
       .value = "N"});
    v("batch_size", batch_size,
      {.help = "samples per step",
       .aliases = {"bs", "train_bs"},
       .min = 1,
       .max = 1 << 20,
       .value = "N"});
    v("gradient_accumulate_steps", gradient_accumulate_steps,
      {.help = "batches per step", .min = 1, .max = 1 << 20, .value = "N"});
    v("shuffle", shuffle,
      {.help =
           "shuffle the documents before samples are taken; --no-shuffle keeps the file's order"});
    v("seed", seed, {.help = "of all random choices", .value = "N"});
    v("device", device,
      {.help = "where blocks are tuned: cpu, cuda, cuda:N, or auto (a GPU if this program and the "
               "machine have one)",
       .aliases = {"device_map", "devices"},
       .value = "NAME",
       .group = "Run:",
       .spellings = {{"0", "cuda:0"}}});
    v("threads", threads,
      {.help = "processor threads; 0: all that this process may use",
       .min = 0,
       .max = 4096,
       .value = "N"});
    v("compute_dtype", compute_dtype,
      {.help = "precision of matrix products; auto: what is faster here, by measurement",
       .choices = {"auto", "float32", "bfloat16"},
       .value = "TYPE"});
    v("gradient_dtype", gradient_dtype,
      {.help = "what the products of tuning's gradients multiply: as-compute, or int8, rounded by a step for each "
               "row and column: faster, and the result varies more (docs/accuracy.md)",
       .choices = {"as-compute", "int8"},
       .value = "TYPE"});
    v("stream_dtype", stream_dtype,
      {.help = "precision in which activations wait between blocks; auto: float32 up to 2 GB, else "
               "bfloat16",
       .choices = {"auto", "float32", "bfloat16"},
       .value = "TYPE"});
    v("max_memory", max_memory,
      {.help = "GB that the run may hold; where activations of all samples do not fit, they wait in a "
               "file in OUT, and then micro-batches shrink; 0: what is free",
       .min = 0,
       .max = 1e6,
       .value = "GB"});
    v("max_gpu_memory", max_gpu_memory,
      {.help = "the same for a GPU's memory: activations of all samples then wait in the host's, and "
               "then micro-batches shrink; 0: what is free",
       .min = 0,
       .max = 1e6,
       .value = "GB"});
    v("shard_size", shard_size,
      {.help = "largest file of the result, in GB", .min = 0.001, .max = 1000, .value = "GB"});
    v("strict", strict,
      {.help = "anything degraded (skipped layers, dropped samples, non-finite weights or losses) "
               "is an error"});
    v("timing", timing,
      {.help = "print for each block the time and rate of every part of the work, and their shares "
               "of what this machine was measured to do"});
    v("restart", restart,
      {.help = "begin anew where OUT holds an unfinished or finished run of this program"});
  }

  // These options with everything that the recipe decides written out.
  QuantizeOptions resolved() const;
  std::string chosen_schemes;  // no flag: what mixed precision chose, as layer_config
  bool mixed() const { return avg_bits > 0 || !size.empty(); }
  bool keeps_best() const { return scales != "free" && !not_use_best_mse; }  // of resolved ones
  // Free scales: fixed samples say whether steps are too long for a block (docs/accuracy.md).
  bool judges_states() const { return scales == "free" && !not_use_best_mse; }
  // Grid of every layer, from scheme, bits, group_size and symmetry, or that of nf4.
  QuantScheme quant_scheme() const;
  // formats, or the one that the method has where none is named.
  std::vector<std::string> chosen_formats() const;
  bool tunes() const { return method == "signround" && iters != 0; }
  std::string effective_method() const {
    if (method != "signround" || iters != 0) return method;
    return enable_opt_rtn ? "opt-rtn" : "rtn";
  }
  // Everything that is wrong with the options alone, each with its fix.
  std::vector<std::string> problems() const;
};

// "0-7", "0,3,5-6" or "" (all of `count`): sorted block numbers. Error{kInvalidArgument} for what
// is no such list or names a block that is not there.
std::vector<int64_t> parse_blocks(const std::string& text, int64_t count);

// AutoRound's rule: a layer is left alone if its name contains one of the parts; a part that ends
// in a digit must be followed by a dot.
bool is_ignored(const std::vector<std::string>& parts, const std::string& layer);

}  // namespace signround
