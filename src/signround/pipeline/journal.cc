#include "signround/pipeline/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include "signround/base/error.h"
#include "signround/io/atomic_file.h"

namespace signround {

using nlohmann::ordered_json;

namespace {

constexpr int64_t kMaxJournal = int64_t{1} << 30;

bool is_list_of_texts(const ordered_json& value) {
  return value.is_array() &&
         std::all_of(value.begin(), value.end(), [](const auto& v) { return v.is_string(); });
}

// What every reader of a line may rely on.
bool is_finished_block(const ordered_json& entry) {
  const auto index = entry.find("index");
  const auto best = entry.find("best_iteration");
  return index != entry.end() && index->is_number_integer() && entry.contains("hashes") &&
         is_list_of_texts(entry["hashes"]) && (best == entry.end() || best->is_number_integer()) &&
         (!entry.contains("degradations") || is_list_of_texts(entry["degradations"]));
}

}  // namespace

std::string differences(const ordered_json& old, const ordered_json& now) {
  std::string text;
  for (const auto& [key, value] : now.items())
    if (!old.contains(key) || old[key] != value)
      text += "\n  " + key + ": " + (old.contains(key) ? old[key].dump() : "not there") +
              " then, " + value.dump() + " now";
  for (const auto& [key, value] : old.items())
    if (!now.contains(key)) text += "\n  " + key + ": " + value.dump() + " then, not there now";
  return text;
}

Journal Journal::open(const std::filesystem::path& path, const ordered_json& settings) {
  Journal journal;
  journal.path_ = path;
  journal.settings_ = settings;
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored)) {
    const std::string text = read_text_file("journal", path, kMaxJournal);
    for (size_t start = 0, line = 0; start < text.size(); ++line) {
      const size_t end = text.find('\n', start);
      if (end == std::string::npos) break;  // cut by a kill
      const auto entry = ordered_json::parse(text.substr(start, end - start), nullptr, false);
      if (!entry.is_object()) {
        if (line == 0) break;
        fail(ErrorKind::kCorruptFile, "journal", path.string(), ":", line + 1,
             " is no JSON object; --restart begins anew");
      }
      start = end + 1;
      if (line > 0) {
        if (!is_finished_block(entry))
          fail(ErrorKind::kCorruptFile, "journal", path.string(), ":", line + 1,
               " does not describe a finished block; --restart begins anew");
        journal.finished_.push_back(entry);
      } else if (entry != settings) {
        fail(ErrorKind::kBusy, "journal", path.parent_path().parent_path().string(),
             " holds an unfinished run with other settings; --restart begins anew, another OUT "
             "leaves it alone:",
             differences(entry, settings));
      }
    }
  }
  return journal;
}

void Journal::begin(size_t count) {
  finished_.resize(std::min(count, finished_.size()));
  std::string text = settings_.dump() + "\n";
  for (const auto& line : finished_) text += line.dump() + "\n";
  file_.close();
  write_file_atomically(path_, text);
  file_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file_.is_open()) fail_io("journal", "open", path_, errno);
  end_ = static_cast<int64_t>(text.size());
}

void Journal::append(const ordered_json& block) {
  const std::string line = block.dump() + "\n";
  write_fully("journal", file_, path_, std::as_bytes(std::span(line)), end_);
  sync_file("journal", file_, path_);
  end_ += static_cast<int64_t>(line.size());
  finished_.push_back(block);
}

}  // namespace signround
