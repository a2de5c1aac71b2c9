#include <cstdio>

#include "signround/base/log.h"
#include "signround/base/parallel.h"
#include "signround/cli/commands.h"
#include "signround/cli/flags.h"
#include "signround/eval/perplexity.h"
#include "signround/formats/open_model.h"
#include "signround/io/file.h"
#include "signround/model/architecture.h"
#include "signround/ops/matmul.h"
#include "signround/text/eval_text.h"

namespace signround {

int cmd_eval(int argc, const char* const* argv) {
  std::string model, reference, text_file, compute = "float32", device = "auto";
  EvalOptions options;
  int threads = 0;
  bool json = false;
  Flags flags("eval MODEL [--reference MODEL0] [flags]",
              "Perplexity of MODEL on a text; with --reference also the Kullback-Leibler "
              "divergence of its predictions from MODEL0's, which is the original.");
  flags.positional("MODEL", model,
                   "an original or quantized checkpoint: folder, .gguf file or Hub id");
  flags.add("reference", reference, {.help = "the original model", .value = "MODEL0"});
  flags.add("text", text_file,
            {.help = "text file; the built-in text if left out", .value = "FILE"});
  flags.add("seqlen", options.seqlen,
            {.help = "tokens of a chunk; each chunk is read from its own beginning",
             .min = 2,
             .max = 1 << 20,
             .value = "N"});
  flags.add("limit", options.limit, {.help = "chunks to read; 0: all", .min = 0, .value = "N"});
  flags.add("compute-dtype", compute,
            {.help = "precision of matrix products; float32 measures best",
             .choices = {"float32", "bfloat16", "auto"},
             .value = "TYPE"});
  flags.add("device", device,
            {.help = "where models compute: cpu, cuda, cuda:N, or auto (a GPU if this program and "
                     "the machine have one)",
             .value = "NAME",
             .spellings = {{"0", "cuda:0"}}});
  flags.add("threads", threads,
            {.help = "processor threads; 0: all", .min = 0, .max = 4096, .value = "N"});
  flags.add("json", json, {.help = "print a JSON object"});
  if (!flags.parse(argc, argv)) return 0;
  flags.check();
  set_num_threads(threads);
  options.device = parse_device(device);
  options.compute = compute == "float32"       ? DType::kF32
                    : compute == "bfloat16"    ? DType::kBF16
                    : options.device.is_cuda() ? DType::kBF16
                                               : fastest_compute_dtype();

  const auto checkpoint = open_model(model);
  const auto original = reference.empty() ? nullptr : open_model(reference);
  // The original's tokenizer, so that both read the same tokens whatever was exported with the
  // copy.
  const auto tokenizer = open_tokenizer(original ? *original : *checkpoint);
  const std::string text = text_file.empty() ? std::string(builtin_eval_text())
                                             : read_text_file("eval", text_file, int64_t{1} << 32);
  const auto chunks = chunks_of_text(*tokenizer, text, options);
  if (const int64_t longest = read_architecture(*checkpoint).max_position;
      longest > 0 && static_cast<int64_t>(chunks[0].size()) > longest)
    log_warn("chunks of " + std::to_string(chunks[0].size()) +
             " tokens are longer than the model's " + std::to_string(longest) + "; use --seqlen " +
             std::to_string(longest));
  EvalResult result = evaluate(*checkpoint, original.get(), chunks, options);
  result.model = model;
  if (json) {
    nlohmann::ordered_json all = {{"results", nlohmann::ordered_json::array({result.to_json()})}};
    all["chunks"] = chunks.size();
    all["seqlen"] = chunks[0].size();
    all["text"] = text_file.empty() ? "built in" : text_file;
    all["device"] = name_of(options.device);
    std::printf("%s\n", all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    return 0;
  }
  const auto& p = result.perplexity;
  std::printf("%s\n  perplexity    %.4f +- %.4f  (%lld tokens, chunks of %zu)\n", model.c_str(),
              p.value, p.stderr_, static_cast<long long>(p.tokens), chunks[0].size());
  if (result.has_reference) {
    const auto& kl = result.kl;
    std::printf(
        "  of original   %.4f\n  KL divergence %.6f +- %.6f  (median %.6f, p90 %.5f, p99 %.5f, max "
        "%.4f)\n  same top      %.2f%% +- %.2f%%\n",
        result.reference_perplexity.value, kl.mean, kl.stderr_, kl.median, kl.p90, kl.p99, kl.max,
        100 * kl.same_top, 100 * kl.same_top_stderr);
  }
  return 0;
}

}  // namespace signround
