#include "signround/pipeline/run_folder.h"

#include "signround/base/error.h"
#include "signround/formats/format.h"
#include "signround/io/file.h"

namespace signround {

namespace fs = std::filesystem;

namespace {

// Files that a run of this program writes and that no user would have put there.
bool is_ours(const fs::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.partial") ||
         name == "model.safetensors.index.json" || name == "config.json" ||
         name == "quantize_config.json" || name == "quantization_config.json" ||
         name == "signround.json" || name == "signround.md";
}

// config.json goes first and comes last (OutputFolder::finish): where it stands, the weights are
// whole.
void remove_files(const fs::path& folder) {
  std::error_code error;
  fs::remove(folder / "config.json", error);
  for (const auto& entry : fs::directory_iterator(folder, error))
    if (!entry.is_directory(error) && is_ours(entry.path())) fs::remove(entry.path(), error);
}

}  // namespace

RunFolder::RunFolder(const fs::path& out, const fs::path& source)
    : out_(out), work_(out / ".signround") {
  std::error_code error;
  if (fs::exists(source, error) && fs::equivalent(out, source, error))
    fail(ErrorKind::kInvalidArgument, "output", out.string(),
         " is the folder of the model itself; choose another OUT");
  const bool used = fs::exists(work_, error) || fs::exists(out / "signround.json", error);
  created_ = !fs::exists(out, error);
  if (!created_ && !fs::is_directory(out, error))
    fail(ErrorKind::kBusy, "output", out.string(), " is a file, expected a folder");
  if (!used && !created_ && !fs::is_empty(out, error))
    fail(ErrorKind::kBusy, "output", out.string(), " holds something else (",
         fs::directory_iterator(out, error)->path().filename().string(),
         "); choose an empty or a new folder");
  fs::create_directories(work_, error);
  if (error)
    fail(ErrorKind::kIo, "output", "cannot create ", work_.string(), ": ", error.message());
  lock_.emplace(work_ / "lock");
  if (!has_unfinished_run() && !fs::exists(out_ / "signround.json", error)) clear();
}

RunFolder::~RunFolder() {
  std::error_code error;
  if (!lock_ || has_unfinished_run()) return;
  if (!fs::exists(out_ / "signround.json", error)) clear();
  lock_.reset();
  fs::remove_all(work_, error);
  if (created_) fs::remove(out_, error);  // only if nothing lies in it
}

void RunFolder::clear() {
  std::error_code error;
  // In this order no moment looks like a finished run, or like an unfinished one that lacks its
  // files.
  fs::remove(out_ / "signround.json", error);
  fs::remove(journal(), error);
  fs::remove(scales(), error);
  fs::remove(factors(), error);
  fs::remove_all(vectors(), error);
  remove_files(out_);
  for (auto name : format_names()) {
    remove_files(out_ / name);
    fs::remove(out_ / name, error);
  }
}

bool RunFolder::has_unfinished_run() const {
  std::error_code error;
  return fs::exists(journal(), error);
}

std::optional<nlohmann::ordered_json> RunFolder::finished_settings() const {
  std::error_code error;
  if (has_unfinished_run() || !fs::exists(out_ / "signround.json", error)) return std::nullopt;
  const auto json = finished_report();
  if (!json.contains("settings")) return nlohmann::ordered_json::object();
  return json["settings"];
}

nlohmann::ordered_json RunFolder::finished_report() const {
  auto json = nlohmann::ordered_json::parse(
      read_text_file("output", out_ / "signround.json", int64_t{1} << 30), nullptr, false);
  return json.is_object() ? json : nlohmann::ordered_json();
}

std::optional<nlohmann::ordered_json> RunFolder::earlier_settings() const {
  if (!has_unfinished_run()) return finished_settings();
  const std::string text = read_text_file("output", journal(), int64_t{1} << 30);
  auto settings = nlohmann::ordered_json::parse(text.substr(0, text.find('\n')), nullptr, false);
  if (!settings.is_object()) return std::nullopt;
  return settings;
}

void RunFolder::remove_work_folder() {
  std::error_code error;
  fs::remove(journal(), error);
  sync_folder_of("output", journal());
  lock_.reset();
  fs::remove_all(work_, error);
}

}  // namespace signround
