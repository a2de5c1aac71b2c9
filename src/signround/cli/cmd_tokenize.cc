#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/cli/commands.h"
#include "signround/cli/flags.h"
#include "signround/io/gguf.h"
#include "signround/text/gguf_tokenizer.h"
#include "signround/text/tokenizer.h"
#include "signround/text/unicode.h"

namespace signround {

namespace {

std::unique_ptr<Tokenizer> open_tokenizer(const std::filesystem::path& model) {
  if (model.extension() != ".gguf") return Tokenizer::load(model);
  const GgufFile file(model);
  return Tokenizer::from_json(tokenizer_json_from_gguf(file), tokenizer_config_from_gguf(file));
}

std::string field_text(const std::string& line, const std::string& path, int64_t number) {
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(line);
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorKind::kCorruptFile, "tokenize", path, " line ", number,
         ": not JSON: ", excerpt(error.what(), 300));
  }
  if (!json.is_object() || !json.contains("text") || !json["text"].is_string())
    fail(ErrorKind::kCorruptFile, "tokenize", path, " line ", number,
         ": expected an object with a string \"text\"");
  return json["text"].get<std::string>();
}

// A line of ids; or with the tokens' texts, each as JSON writes strings, so that spaces and
// controls show.
void print_ids(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool only_ids,
               bool json) {
  if (json) {
    std::cout << nlohmann::json{{"ids", ids}}.dump() << '\n';
    return;
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (only_ids) {
      std::cout << (i > 0 ? " " : "") << ids[i];
    } else {
      const nlohmann::json token = tokenizer.id_to_token(ids[i]);
      std::cout << ids[i] << '\t'
                << token.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    }
  }
  if (only_ids) std::cout << '\n';
}

// What the tokenizer does with bytes that are no text is said, not only done.
void warn_if_not_text(const std::string& text, const std::string& source) {
  if (const size_t good = unicode::valid_prefix(text); good < text.size())
    log_warn(source + ": byte " + std::to_string(good) +
             " is not UTF-8 text: such bytes are read as U+FFFD");
}

}  // namespace

int cmd_tokenize(int argc, const char* const* argv) {
  std::string model, text, path;
  bool ids = false, json = false, special = true;
  Flags flags("tokenize MODEL [flags]",
              "Prints the token ids of a text, as the model's reference tokenizer makes them.");
  flags.positional("MODEL", model, "folder with a tokenizer, or .gguf file");
  flags.add("text", text, {.help = "the text", .value = "TEXT"});
  flags.add("file", path,
            {.help = "a text file, or .jsonl whose lines' \"text\" fields are tokenized one by one",
             .value = "FILE"});
  flags.add("ids", ids, {.help = "print only the ids, a line for each text"});
  flags.add("special", special, {.help = "add what the reference's default call adds (BOS, EOS)"});
  flags.add("json", json, {.help = "print {\"ids\": [...]}, a line for each text"});
  if (!flags.parse(argc, argv)) return 0;
  if (flags.was_set("text") == flags.was_set("file"))
    flags.problem("expected either --text or --file");
  flags.check();

  const auto tokenizer = open_tokenizer(model);
  for (const std::string& note : tokenizer->notes()) log_warn(note);
  if (!flags.was_set("file")) {
    warn_if_not_text(text, "--text");
    print_ids(*tokenizer, tokenizer->encode(text, special), ids, json);
    return 0;
  }
  std::ifstream in(path, std::ios::binary);
  if (std::filesystem::is_directory(path))
    fail(ErrorKind::kIo, "tokenize", path, ": is a folder, expected a file");
  if (!in) fail(ErrorKind::kIo, "tokenize", path, ": cannot be opened");
  if (std::filesystem::path(path).extension() == ".jsonl") {
    int64_t number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.empty()) continue;
      print_ids(*tokenizer, tokenizer->encode(field_text(line, path, number), special), ids, json);
    }
  } else {
    const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    warn_if_not_text(all, path);
    print_ids(*tokenizer, tokenizer->encode(all, special), ids, json);
  }
  if (!std::cout.flush()) fail(ErrorKind::kIo, "tokenize", "the output cannot be written");
  return 0;
}

}  // namespace signround
