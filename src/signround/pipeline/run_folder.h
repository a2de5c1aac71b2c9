// OUT as a whole: who may write there, and what an earlier run left.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "signround/io/lock_file.h"

namespace signround {

class RunFolder {
 public:
  // Creates and locks OUT. Error{kBusy}: another run writes there, or it holds files that are none
  // of ours; Error{kIo}: it cannot be written; Error{kInvalidArgument}: it is the model's own
  // folder.
  RunFolder(const std::filesystem::path& out, const std::filesystem::path& source);
  // A run that failed before its journal began leaves nothing behind.
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  std::filesystem::path journal() const { return work_ / "journal.jsonl"; }
  std::filesystem::path scales() const {
    return work_ / "scales.safetensors";
  }  // of the end-to-end pass
  std::filesystem::path factors() const { return work_ / "awq.safetensors"; }  // of --awq
  std::filesystem::path vectors() const {
    return work_ / "vectors";
  }  // folder of the norms and biases that --enable-norm-bias-tuning tuned, a file for each unit
  bool has_unfinished_run() const;
  // "settings" of the finished run that OUT holds.
  std::optional<nlohmann::ordered_json> finished_settings() const;
  // All of its signround.json; null if that is no JSON object.
  nlohmann::ordered_json finished_report() const;
  // Of the run that OUT holds, finished or not.
  std::optional<nlohmann::ordered_json> earlier_settings() const;
  // --restart: removes what an earlier run of this program wrote. A kill on the way leaves what the
  // next run removes.
  void clear();
  void remove_work_folder();  // the run is done

 private:
  std::filesystem::path out_, work_;
  std::optional<LockFile> lock_;
  bool created_ = false;
};

}  // namespace signround
