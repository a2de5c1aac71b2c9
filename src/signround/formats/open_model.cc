#include "signround/formats/open_model.h"

#include <filesystem>

#include "signround/base/error.h"
#include "signround/formats/decoded_checkpoint.h"
#include "signround/io/file.h"
#include "signround/io/hub.h"
#include "signround/model/gguf_checkpoint.h"

namespace signround {

namespace fs = std::filesystem;

std::unique_ptr<Checkpoint> open_model(const std::string& model, bool decoded) {
  std::error_code ignored;
  fs::path path = model;
  if (!fs::exists(path, ignored)) {
    if (!looks_like_hub_id(model))
      fail(ErrorKind::kIo, "open", "there is no ", model,
           "; expected a folder, a .gguf file or a Hub id such as org/name");
    path = hub_model_folder(model);
  }
  if (!fs::is_directory(path, ignored)) {
    if (path.extension() == ".gguf") return open_gguf_checkpoint(path);
    fail(ErrorKind::kUnsupported, "open", path.string(), " is neither a folder nor a .gguf file");
  }
  auto checkpoint = open_hf_checkpoint(path);
  return decoded ? decode_quantized(std::move(checkpoint)) : std::move(checkpoint);
}

namespace {

constexpr int64_t kMaxTextFile = 256 << 20;

std::string find_text(const Checkpoint& checkpoint, const std::string& name) {
  for (const ExtraFile& file : checkpoint.extra_files())
    if (file.name == name)
      return file.path.empty() ? file.content : read_text_file("open", file.path, kMaxTextFile);
  return "";
}

}  // namespace

nlohmann::json read_tokenizer_config(const Checkpoint& checkpoint) {
  const std::string text = find_text(checkpoint, "tokenizer_config.json");
  if (text.empty()) return nlohmann::json::object();
  auto config = nlohmann::json::parse(text, nullptr, false);
  if (!config.is_object())
    fail(ErrorKind::kCorruptFile, "open", "tokenizer_config.json of ", checkpoint.source(),
         " is no JSON object");
  return config;
}

std::vector<int32_t> end_tokens(const Checkpoint& checkpoint, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  const auto add = [&](const nlohmann::json& value) {
    if (value.is_number_integer()) ids.push_back(value.get<int32_t>());
  };
  const auto add_all = [&](const nlohmann::json& config) {
    const auto found = config.is_object() ? config.find("eos_token_id") : config.end();
    if (found == config.end()) return;
    if (found->is_array())
      for (const auto& value : *found) add(value);
    else
      add(*found);
  };
  add_all(nlohmann::json::parse(find_text(checkpoint, "generation_config.json"), nullptr, false));
  if (ids.empty()) add_all(checkpoint.config());
  if (tokenizer.eos_id() >= 0) ids.push_back(tokenizer.eos_id());
  return ids;
}

std::unique_ptr<Tokenizer> open_tokenizer(const Checkpoint& checkpoint) {
  std::error_code ignored;
  if (fs::is_directory(checkpoint.source(), ignored)) return Tokenizer::load(checkpoint.source());
  const std::string text = find_text(checkpoint, "tokenizer.json");
  if (text.empty()) fail(ErrorKind::kUnsupported, "open", checkpoint.source(), " has no tokenizer");
  return Tokenizer::from_json(text, read_tokenizer_config(checkpoint));
}

}  // namespace signround
