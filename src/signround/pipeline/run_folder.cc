#include "signround/pipeline/run_folder.h"

#include "signround/base/error.h"
#include "signround/io/file.h"

namespace signround {

namespace fs = std::filesystem;

namespace {

// Files that a run of this program writes and that no user would have put there.
bool is_ours(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.partial") || name == "model.safetensors.index.json" ||
         name == "config.json" || name == "quantize_config.json" || name == "quantization_config.json" || name == "signround.json" ||
         name == "signround.md";
}

void remove_run(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.is_directory(error) && fs::exists(entry.path() / "config.json", error)) remove_run(entry.path());
    if (entry.is_directory(error)) {
      for (const auto& inner : fs::directory_iterator(entry.path(), error))
        if (is_ours(inner.path())) fs::remove(inner.path(), error);
    } else if (is_ours(entry.path())) {
      fs::remove(entry.path(), error);
    }
  }
}

}  // namespace

RunFolder::RunFolder(const fs::path& out, const fs::path& source, bool restart) : out_(out), work_(out / ".signround") {
  std::error_code error;
  if (fs::exists(source, error) && fs::equivalent(out, source, error))
    fail(ErrorKind::kInvalidArgument, "output", out.string(), " is the folder of the model itself; choose another OUT");
  const bool used = fs::exists(out / ".signround", error) || fs::exists(out / "signround.json", error);
  if (fs::exists(out, error) && !fs::is_directory(out, error)) fail(ErrorKind::kBusy, "output", out.string(), " is a file, expected a folder");
  if (!used && fs::exists(out, error) && !fs::is_empty(out, error))
    fail(ErrorKind::kBusy, "output", out.string(), " holds something else (", fs::directory_iterator(out, error)->path().filename().string(),
         "); choose an empty or a new folder");
  fs::create_directories(work_, error);
  if (error) fail(ErrorKind::kIo, "output", "cannot create ", work_.string(), ": ", error.message());
  lock_.emplace(work_ / "lock");
  if (restart && used) {
    remove_run(out);
    fs::remove(journal(), error);
  }
}

bool RunFolder::has_unfinished_run() const {
  std::error_code error;
  return fs::exists(journal(), error);
}

std::optional<nlohmann::ordered_json> RunFolder::finished_settings() const {
  std::error_code error;
  if (has_unfinished_run() || !fs::exists(out_ / "signround.json", error)) return std::nullopt;
  const auto json = nlohmann::ordered_json::parse(read_text_file("output", out_ / "signround.json", int64_t{1} << 30), nullptr, false);
  if (!json.is_object() || !json.contains("settings")) return nlohmann::ordered_json::object();
  return json["settings"];
}

void RunFolder::remove_work_folder() {
  std::error_code error;
  fs::remove(journal(), error);
  sync_folder_of("output", journal());
  lock_.reset();
  fs::remove_all(work_, error);
}

}  // namespace signround
