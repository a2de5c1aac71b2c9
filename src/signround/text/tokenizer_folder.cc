// Which of a model folder's files its tokenizer is made of.
#include <filesystem>
#include <fstream>
#include <sstream>

#include "signround/base/error.h"
#include "signround/text/tokenizer.h"

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

nlohmann::json read_config(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return nullptr;
  try {
    return nlohmann::json::parse(read_file(path));
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorKind::kCorruptFile, kWhere, path.string(), ": ", e.what());
  }
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::load(const std::filesystem::path& folder) {
  const nlohmann::json config = read_config(folder / "tokenizer_config.json");
  if (std::filesystem::exists(folder / "tokenizer.json"))
    return from_json(read_file(folder / "tokenizer.json"), config);
  fail(ErrorKind::kUnsupported, kWhere, folder.string(), ": no tokenizer.json");
}

}  // namespace signround
