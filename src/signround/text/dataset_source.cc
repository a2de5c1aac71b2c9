#include "signround/text/dataset_source.h"

#include <zstd.h>

#include <algorithm>

#include "signround/base/error.h"

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

std::vector<fs::path> document_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && is_document_file(entry.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  require(!files.empty(), kWhere, folder.string(),
          ": the folder has no file that ends in .json, .jsonl or .txt");
  return files;
}

DocumentFields fields_of(const DatasetSpec& spec) {
  DocumentFields fields;
  if (!spec.column.empty()) fields.names = {spec.column};
  return fields;
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
  source.name = spec.name;
  if (spec.name == "default") {
    read_jsonl_text(default_dataset_jsonl(), "default", {}, limits, source.documents);
    for (Document& document : source.documents.items) document.text += "\n\n";
    source.concat = true;
    source.truncate = false;
    return source;
  }
  std::error_code ignored;
  if (fs::is_directory(spec.name, ignored)) {
    for (const fs::path& file : document_files(spec.name))
      read_documents(file, fields_of(spec), limits, source.documents);
  } else if (fs::exists(spec.name, ignored)) {
    read_documents(spec.name, fields_of(spec), limits, source.documents);
  } else {
    fail(ErrorKind::kInvalidArgument, kWhere, "'", spec.name,
         "' is neither 'default' nor a file or folder that exists");
  }
  source.concat = source.documents.continuous;
  source.truncate = !source.documents.continuous;
  return source;
}

}  // namespace signround
