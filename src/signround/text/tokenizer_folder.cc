// Which of a model folder's files its tokenizer is made of.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "signround/base/error.h"
#include "signround/text/tokenizer.h"
#include "signround/text/tokenizer_sources.h"

namespace signround {

namespace {

constexpr const char* kWhere = "tokenizer";

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  if (!in) fail(ErrorKind::kIo, kWhere, path.string(), ": cannot be read");
  return std::move(text).str();
}

nlohmann::json read_json(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return nullptr;
  try {
    return nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), ": ", excerpt(e.what(), 300));
  }
}

bool names_special_token(const nlohmann::json& config, const std::string& content) {
  if (!config.is_object()) return false;
  for (const auto& [name, value] : config.items()) {
    if (name.find("token") == std::string::npos) continue;
    if (value == content ||
        (value.is_object() && value.value("content", nlohmann::json()) == content))
      return true;
    if (value.is_array() && std::find(value.begin(), value.end(), content) != value.end())
      return true;
  }
  return false;
}

// added_tokens.json, {"token": id, ...}: appended in the order of the ids.
void add_added_tokens(const nlohmann::json& added, TokenizerSource& source) {
  if (!added.is_object()) return;
  std::vector<std::pair<int64_t, std::string>> tokens;
  for (const auto& [content, id] : added.items())
    if (id.is_number_integer()) tokens.emplace_back(id.get<int64_t>(), content);
  std::sort(tokens.begin(), tokens.end());
  auto& list = source.tokenizer["added_tokens"];
  if (list.is_null()) list = nlohmann::json::array();
  for (const auto& [id, content] : tokens)
    list.push_back({{"id", id},
                    {"content", content},
                    {"special", names_special_token(source.config, content)},
                    {"normalized", false}});
}

std::unique_ptr<Tokenizer> load_folder(const std::filesystem::path& folder) {
  const auto has = [&](const char* name) {
    return std::filesystem::is_regular_file(folder / name);
  };
  nlohmann::json config = read_json(folder / "tokenizer_config.json");
  // Before 2024 the names of special tokens could stand in a file of their own.
  if (const nlohmann::json names = read_json(folder / "special_tokens_map.json");
      names.is_object()) {
    if (config.is_null()) config = nlohmann::json::object();
    for (const auto& [name, value] : names.items())
      if (config.is_object() && !config.contains(name)) config[name] = value;
  }
  if (has("tokenizer.json"))
    return make_tokenizer({read_json(folder / "tokenizer.json"), std::move(config), {}});
  if (has("vocab.json") && has("merges.txt")) {
    TokenizerSource source = vocab_and_merges(read_json(folder / "vocab.json"),
                                              read_file(folder / "merges.txt"), std::move(config));
    add_added_tokens(read_json(folder / "added_tokens.json"), source);
    return make_tokenizer(std::move(source));
  }
  for (const char* name : {"tokenizer.model", "qwen.tiktoken"}) {
    if (!has(name)) continue;
    const std::string file = read_file(folder / name);
    TokenizerSource source = is_tiktoken(file) ? tiktoken_model(file, std::move(config))
                                               : sentencepiece_model(file, std::move(config));
    add_added_tokens(read_json(folder / "added_tokens.json"), source);
    return make_tokenizer(std::move(source));
  }
  fail(ErrorKind::kUnsupported, kWhere, folder.string(),
       ": no tokenizer.json, vocab.json with merges.txt, tokenizer.model or qwen.tiktoken");
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder))
    fail(ErrorKind::kIo, kWhere, folder.string(),
         std::filesystem::exists(folder) ? " is neither a folder nor a .gguf file"
                                         : ": there is no such folder");
  try {
    return load_folder(folder);
  } catch (const Error& error) {  // most know what is wrong and not in which folder
    const std::string what = error.what(), name = folder.string();
    if (what.find(name) != std::string::npos) throw;
    throw Error(error.kind(), what + " (" + name + ")");
  }
}

}  // namespace signround
