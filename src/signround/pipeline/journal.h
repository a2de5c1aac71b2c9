// What survives a kill: a line per finished block, brought to disk after the block's tensors were.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "signround/io/file.h"

namespace signround {

// OUT/.signround/journal.jsonl. The first line holds what a continued run must agree with; every
// further line is a finished block. A last line that was cut by a kill is ignored.
class Journal {
 public:
  // The blocks that an earlier run finished under the same settings; none where there is no
  // journal. Another run's journal: Error{kBusy} that lists the settings that differ, old and new.
  // Writes nothing.
  static Journal open(const std::filesystem::path& path, const nlohmann::ordered_json& settings);

  const std::vector<nlohmann::ordered_json>& finished() const { return finished_; }
  // Before the first append: writes the settings and the first `count` finished blocks, and forgets
  // the others (their tensors turned out to be damaged). From here on a kill leaves a run that can
  // be continued.
  void begin(size_t count);
  void append(const nlohmann::ordered_json& block);

 private:
  std::filesystem::path path_;
  nlohmann::ordered_json settings_;
  std::vector<nlohmann::ordered_json> finished_;
  FileDescriptor file_;
  int64_t end_ = 0;
};

// A line for each setting that is not the same: "\n  seed: 42 then, 7 now".
std::string differences(const nlohmann::ordered_json& old, const nlohmann::ordered_json& now);

}  // namespace signround
