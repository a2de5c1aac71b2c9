#include <cstdio>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/base/parallel.h"
#include "signround/cli/commands.h"
#include "signround/cli/flags.h"
#include "signround/formats/open_model.h"
#include "signround/infer/generate.h"
#include "signround/model/architecture.h"
#include "signround/ops/matmul.h"
#include "signround/text/chat_template.h"

namespace signround {

int cmd_generate(int argc, const char* const* argv) {
  std::string model, prompt, compute, device = "auto";
  SampleOptions options;
  int threads = 0;
  bool json = false, chat = false, ignore_eos = false;
  Flags flags("generate MODEL --prompt TEXT [flags]",
              "Continues a text with MODEL, an original or a quantized checkpoint.");
  flags.positional("MODEL", model, "folder, .gguf file or Hub id");
  flags.add("prompt", prompt, {.help = "the text to continue", .value = "TEXT"});
  flags.add("chat", chat,
            {.help = "take the prompt as a user's turn, through the model's chat template"});
  flags.add("max-tokens", options.max_tokens,
            {.help = "longest answer in tokens",
             .aliases = {"max_new_tokens"},
             .min = 1,
             .max = 1 << 20,
             .value = "N"});
  flags.add("temperature", options.temperature,
            {.help = "0: always the most likely token", .min = 0, .max = 100, .value = "X"});
  flags.add("top-p", options.top_p,
            {.help = "draw only among the most likely tokens of this total probability",
             .min = 0,
             .max = 1,
             .value = "X"});
  flags.add("seed", options.seed, {.help = "of the draws", .value = "N"});
  flags.add("ignore-eos", ignore_eos, {.help = "go on behind the end-of-text token"});
  flags.add("compute-dtype", compute,
            {.help = "precision of matrix products; default: float32, on a GPU bfloat16",
             .choices = {"float32", "bfloat16", "auto"},
             .value = "TYPE"});
  flags.add("device", device,
            {.help = "where the model computes: cpu, cuda, cuda:N, or auto (a GPU if this program "
                     "and the machine have one)",
             .value = "NAME",
             .spellings = {{"0", "cuda:0"}}});
  flags.add("threads", threads,
            {.help = "processor threads; 0: all", .min = 0, .max = 4096, .value = "N"});
  flags.add("json", json, {.help = R"(print {"text", "tokens"} and the times that they took)"});
  if (!flags.parse(argc, argv)) return 0;
  if (prompt.empty()) flags.problem("--prompt is missing: the text to continue");
  flags.check();
  set_num_threads(threads);
  const Device where = parse_device(device);

  const auto checkpoint = open_model(model);
  const auto tokenizer = open_tokenizer(*checkpoint);
  if (!ignore_eos) options.stop = end_tokens(*checkpoint, *tokenizer);
  std::vector<int32_t> ids;
  if (chat) {
    const auto chat_template = ChatTemplate::load(checkpoint->source());
    if (!chat_template)
      fail(ErrorKind::kUnsupported, "generate", "--chat: ", model, " has no chat template");
    ids = tokenizer->encode(chat_template->render(nlohmann::ordered_json::array(
                                                      {{{"role", "user"}, {"content", prompt}}}),
                                                  nullptr, {.add_generation_prompt = true}),
                            false);
  } else {
    ids = tokenizer->encode(prompt);
  }
  const bool narrow = compute == "bfloat16" || (where.is_cuda() && compute != "float32");
  const DType dtype = narrow              ? DType::kBF16
                      : compute == "auto" ? fastest_compute_dtype()
                                          : DType::kF32;
  const int64_t wanted = static_cast<int64_t>(ids.size()) + options.max_tokens;
  if (const int64_t longest = read_architecture(*checkpoint).max_position;
      longest > 0 && wanted > longest)
    log_warn("the prompt and --max-tokens make up to " + std::to_string(wanted) +
             " tokens, the model's longest input is " + std::to_string(longest));
  Generator generator(*checkpoint, dtype, where);
  std::vector<int32_t> tokens;
  if (json) {
    tokens = generator.generate(ids, options);
    std::printf("%s\n",
                nlohmann::ordered_json({{"text", tokenizer->decode(tokens)},
                                        {"tokens", tokens},
                                        {"prompt_seconds", generator.times().prompt_seconds},
                                        {"seconds_per_token", generator.times().seconds_per_token},
                                        {"device", name_of(where)}})
                    .dump(2, ' ', false, nlohmann::json::error_handler_t::replace)
                    .c_str());
    return 0;
  }
  StreamDecoder decoder(*tokenizer);
  const auto print = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  generator.generate(ids, options, [&](int32_t token) {
    print(decoder.push(token));
    return true;
  });
  print(decoder.flush() + "\n");
  return 0;
}

}  // namespace signround
