#include "signround/io/hub.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "signround/base/error.h"
#include "signround/base/log.h"
#include "signround/io/file.h"
#include "signround/io/hub_cache.h"

namespace signround {
namespace {

namespace fs = std::filesystem;
using hub::Kind;
using hub::Listing;
using hub::RemoteFile;
using hub::Repository;
constexpr const char* kWhere = "hub";
constexpr const char* kIndex = "model.safetensors.index.json";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool is_set(const char* name) {
  std::string value = environment(name);
  for (char& c : value)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return value == "1" || value == "ON" || value == "YES" || value == "TRUE";
}

std::string read_token(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return "";
  return read_text_file(kWhere, path, 10'000);
}

// A token with a line break inside would let a file write headers of its own.
std::string clean_token(std::string token) {
  std::erase_if(token, [](char c) { return c <= ' ' || c == 127; });
  return token;
}

// Files beside the weights that a model needs, or that travel with it: all at the top, none of them
// weights.
bool is_model_companion(const std::string& path) {
  if (path.starts_with("additional_chat_templates/")) return path.ends_with(".jinja");
  if (path.find('/') != std::string::npos || path == ".gitattributes") return false;
  for (const char* end : {".json", ".txt", ".model", ".tiktoken", ".jinja", ".py", ".md"})
    if (path.ends_with(end)) return true;
  for (const char* begin : {"LICENSE", "LICENCE", "NOTICE", "USE_POLICY", "license"})
    if (path.starts_with(begin)) return true;
  return false;
}

// The weights: the index's shards, else the usual single file, else every file at the top.
std::vector<RemoteFile> weight_files(const Listing& listing, const fs::path& index,
                                     const std::string& id) {
  std::vector<RemoteFile> files;
  if (!index.empty()) {
    std::set<std::string> names;
    try {
      const auto json = nlohmann::json::parse(read_text_file(kWhere, index, 1 << 28));
      for (const auto& [tensor, shard] : json.at("weight_map").items())
        names.insert(shard.get<std::string>());
    } catch (const nlohmann::json::exception& error) {
      fail(ErrorKind::kCorruptFile, kWhere, index.string(),
           ": is no index of weights: ", excerpt(error.what(), 300));
    }
    for (const std::string& name : names) {
      const RemoteFile* file = find(listing, name);
      if (!file)
        fail(ErrorKind::kCorruptFile, kWhere, index.string(), ": names '", name, "', which '", id,
             "' does not have");
      files.push_back(*file);
    }
    return files;
  }
  if (const RemoteFile* single = find(listing, "model.safetensors")) return {*single};
  for (const RemoteFile& file : listing.files)
    if (file.path.ends_with(".safetensors") && file.path.find('/') == std::string::npos)
      files.push_back(file);
  return files;
}

void require_weights(const std::vector<RemoteFile>& weights, const Listing& listing,
                     const std::string& id) {
  if (!weights.empty()) return;
  std::string others;
  for (const RemoteFile& file : listing.files)
    if (file.path.ends_with(".bin") || file.path.ends_with(".gguf") || file.path.ends_with(".pth"))
      others += " " + file.path;
  fail(ErrorKind::kUnsupported, kWhere, "'", id, "' has no .safetensors files",
       others.empty() ? ""
                      : "; it has" + others.substr(0, 300) +
                            "; download a GGUF file and give its path, or convert");
}

bool is_text_data(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  if (name.starts_with(".") || name == "dataset_infos.json" || name == "dataset_info.json" ||
      name == "state.json")
    return false;
  for (const char* end : {".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz", ".txt"})
    if (path.ends_with(end)) return true;
  return false;
}

}  // namespace

HubOptions HubOptions::from_environment() {
  HubOptions options;
  if (const std::string endpoint = environment("HF_ENDPOINT"); !endpoint.empty())
    options.endpoint = endpoint;
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  fs::path home = environment("HF_HOME");
  if (home.empty()) {
    fs::path cache = environment("XDG_CACHE_HOME");
    if (cache.empty()) cache = fs::path(environment("HOME")) / ".cache";
    home = cache / "huggingface";
  }
  options.cache = environment("HF_HUB_CACHE");
  if (options.cache.empty()) options.cache = home / "hub";
  options.token = environment("HF_TOKEN");
  if (options.token.empty()) {
    const std::string path = environment("HF_TOKEN_PATH");
    options.token = read_token(path.empty() ? home / "token" : fs::path(path));
  }
  options.token = clean_token(options.token);
  options.offline = is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE");
  return options;
}

bool looks_like_hub_id(std::string_view text) {
  try {
    hub::parse_id(std::string(text));
    return true;
  } catch (const Error&) {
    return false;
  }
}

fs::path hub_model_folder(const std::string& id, const HubOptions& options) {
  Repository repository(Kind::kModel, id, options);
  const auto listing = repository.list();
  if (!listing) return repository.cached_snapshot();
  fs::path index;
  for (const RemoteFile& file : listing->files) {
    if (!is_model_companion(file.path)) continue;
    const fs::path path = repository.fetch(*listing, file);
    if (file.path == kIndex) index = path;
  }
  const auto weights = weight_files(*listing, index, id);
  require_weights(weights, *listing, id);
  for (const RemoteFile& file : weights) repository.fetch(*listing, file);
  repository.write_ref(listing->commit);
  return repository.snapshot_folder(listing->commit);
}

std::vector<fs::path> hub_dataset_files(const std::string& id, const ChooseFiles& choose,
                                        int64_t* left_out, const HubOptions& options) {
  Repository repository(Kind::kDataset, id, options);
  const auto listing = repository.list();
  const fs::path folder =
      listing ? repository.snapshot_folder(listing->commit) : repository.cached_snapshot();
  std::vector<std::string> names;
  if (listing) {
    for (const RemoteFile& file : listing->files) names.push_back(file.path);
  } else {
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      if (fs::is_regular_file(entry.path()))
        names.push_back(entry.path().lexically_relative(folder).generic_string());
  }
  std::vector<std::string> wanted = choose(names);
  std::sort(wanted.begin(), wanted.end());
  std::vector<fs::path> paths;
  int64_t bytes = 0;
  if (left_out) *left_out = 0;
  for (const std::string& name : wanted) {
    if (!listing) {
      paths.push_back(folder / name);
      continue;
    }
    const RemoteFile* file = find(*listing, name);
    if (!file) continue;
    bytes += std::max<int64_t>(file->size, 0);
    if (bytes <= options.max_dataset_bytes || paths.empty()) {
      paths.push_back(repository.fetch(*listing, *file));
    } else if (left_out) {
      ++*left_out;
    }
  }
  if (listing && !paths.empty()) repository.write_ref(listing->commit);
  return paths;
}

fs::path hub_dataset_folder(const std::string& id, const HubOptions& options) {
  int64_t left_out = 0;
  const auto files = hub_dataset_files(
      id,
      [](std::vector<std::string> paths) {
        std::erase_if(paths, [](const std::string& path) { return !is_text_data(path); });
        return paths;
      },
      &left_out, options);
  if (files.empty())
    fail(ErrorKind::kUnsupported, kWhere, "'", id,
         "' has no files of text that can be read (.parquet, .jsonl, .json, .txt)");
  if (left_out > 0)
    log_warn("'" + id + "': " + std::to_string(left_out) +
             " files were left out, the others have " +
             std::to_string(options.max_dataset_bytes >> 20) + " MiB");
  Repository repository(Kind::kDataset, id, options);
  return repository.cached_snapshot();
}

}  // namespace signround
