#include "signround/text/dataset_source.h"

#include <zstd.h>

#include <algorithm>

#include "signround/base/error.h"
#include "signround/io/hub.h"
#include "signround/text/dataset_registry.h"

// data/default.jsonl.zst, put into the object file by the assembler; the path comes from CMake.
__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    "signround_default_dataset:\n"
    ".incbin \"" SIGNROUND_DEFAULT_DATASET
    "\"\n"
    "signround_default_dataset_end:\n"
    ".byte 0\n"
    ".popsection\n");
extern "C" {
extern const char signround_default_dataset[] __attribute__((visibility("hidden")));
extern const char signround_default_dataset_end[] __attribute__((visibility("hidden")));
}

namespace signround {
namespace {

namespace fs = std::filesystem;
constexpr const char* kWhere = "dataset";

std::vector<fs::path> document_files(const fs::path& folder, const DatasetSpec& spec) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      paths.push_back(entry.path().lexically_relative(folder).generic_string());
  std::sort(paths.begin(), paths.end());
  std::vector<fs::path> files;
  for (const std::string& path : choose_dataset_files(paths, spec.config, spec.splits))
    files.push_back(folder / path);
  require(!files.empty(), kWhere, folder.string(),
          ": the folder has no file of the split that ends in .json, .jsonl, .txt or .parquet");
  return files;
}

std::vector<std::string> split_at_plus(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find('+'), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

DatasetSource open_local(const DatasetSpec& spec, const DocumentLimits& limits) {
  DatasetSource source;
  const DocumentFields fields{split_at_plus(spec.column), "\n\n"};
  std::error_code ignored;
  if (fs::is_directory(spec.name, ignored)) {
    for (const fs::path& file : document_files(spec.name, spec))
      read_documents(file, fields, limits, source.documents);
  } else {
    read_documents(spec.name, fields, limits, source.documents);
  }
  source.concat = source.documents.continuous;
  source.truncate = !source.documents.continuous;
  return source;
}

// `entry` may be null: then any data set of the Hub with files of text.
DatasetSource open_hub(const DatasetSpec& spec, const RegisteredDataset* entry,
                       const DocumentLimits& limits) {
  DatasetSource source;
  const std::string id = entry ? std::string(entry->id) : spec.name;
  const std::string columns =
      spec.column.empty() && entry ? std::string(entry->columns) : spec.column;
  const DocumentFields fields{split_at_plus(columns),
                              entry && spec.column.empty() ? std::string(entry->joiner) : "\n\n"};
  std::vector<std::string> splits = spec.splits;
  if (splits.empty() && entry) splits = split_at_plus(entry->splits);
  if (splits.empty()) splits = {""};
  const std::string config =
      spec.config.empty() && entry ? std::string(entry->config) : spec.config;

  // One after the other: the order of the splits is the order of the documents before they are
  // shuffled.
  int64_t files = 0, left_out = 0;
  for (const std::string& split : splits) {
    constexpr std::string_view kSplit = "{split}";
    std::string folder = config;
    std::vector<std::string> one;
    if (const size_t at = folder.find(kSplit); at != std::string::npos) {
      folder.replace(at, kSplit.size(), split);
    } else if (!split.empty()) {
      one = {split};
    }
    int64_t more = 0;
    const auto choose = [&](const std::vector<std::string>& paths) {
      return choose_dataset_files(paths, folder, one);
    };
    for (const fs::path& file : hub_dataset_files(id, choose, &more)) {
      read_documents(file, fields, limits, source.documents);
      ++files;
    }
    left_out += more;
  }
  require(files > 0, kWhere, "'", id, "' has no files of text", config.empty() ? "" : " under ",
          config, spec.splits.empty() ? "" : " in this split",
          "; choose with :split=NAME and :config=FOLDER");
  if (left_out > 0)
    source.documents.warnings.push_back(id + ": only " + std::to_string(files) + " of " +
                                        std::to_string(files + left_out) +
                                        " files were downloaded and read");
  source.rule = entry && entry->python_shuffle ? ShuffleRule::kPython : ShuffleRule::kNumpy;
  source.concat = (entry && entry->concat) || source.documents.continuous;
  source.truncate = !source.documents.continuous;
  return source;
}

DatasetSource open_built_in(const DocumentLimits& limits) {
  DatasetSource source;
  read_jsonl_text(default_dataset_jsonl(), "default", {}, limits, source.documents);
  for (Document& document : source.documents.items) document.text += "\n\n";
  source.concat = true;
  source.truncate = false;
  return source;
}

[[noreturn]] void fail_unknown(const std::string& name) {
  std::string names;
  for (const RegisteredDataset& d : registered_datasets())
    names += ", " + std::string(d.short_name);
  fail(ErrorKind::kInvalidArgument, kWhere, "'", name,
       "' is not a file or folder that exists, not org/name of the Hub, and not one of default",
       names);
}

}  // namespace

std::string default_dataset_jsonl() {
  const size_t packed =
      static_cast<size_t>(signround_default_dataset_end - signround_default_dataset);
  const unsigned long long size = ZSTD_getFrameContentSize(signround_default_dataset, packed);
  if (size > (64u << 20)) fail(ErrorKind::kInternal, kWhere, "the built-in data set is damaged");
  std::string text(size, '\0');
  const size_t got = ZSTD_decompress(text.data(), text.size(), signround_default_dataset, packed);
  if (ZSTD_isError(got) || got != size)
    fail(ErrorKind::kInternal, kWhere, "the built-in data set is damaged");
  return text;
}

DatasetSource open_dataset(const DatasetSpec& spec, const DocumentLimits& limits) {
  DatasetSource source;
  std::error_code ignored;
  const RegisteredDataset* entry = find_registered_dataset(spec.name);
  if (spec.name == "default") {
    source = open_built_in(limits);
  } else if (fs::exists(spec.name, ignored)) {
    source = open_local(spec, limits);
  } else if (entry || looks_like_hub_id(spec.name)) {
    source = open_hub(spec, entry, limits);
  } else {
    fail_unknown(spec.name);
  }
  source.name = spec.name;
  return source;
}

}  // namespace signround
