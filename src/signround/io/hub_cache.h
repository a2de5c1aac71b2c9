// The cache's layout and one repository of the Hub in it. hub.h is for callers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "signround/io/hub.h"

namespace signround::hub {

enum class Kind { kModel, kDataset };

struct Id {
  std::string name;  // org/name
  std::string revision = "main";
};
// Error{kInvalidArgument} where looks_like_hub_id would say no.
Id parse_id(const std::string& text);

struct RemoteFile {
  std::string path;   // inside the repository, checked: it cannot lead out of a folder
  int64_t size = -1;  // -1: not announced
  std::string blob;   // sha256 of a large file, git's name of a small one; "": not announced
};

struct Listing {
  std::string commit;
  std::vector<RemoteFile> files;  // by path
};

class Repository {
 public:
  Repository(Kind kind, const std::string& id, HubOptions options);

  // What the endpoint says; nothing where it cannot be reached and the cache has a snapshot, with a
  // warning. Error{kIo} where there is neither; kInvalidArgument where the endpoint knows no such
  // name or denies it.
  std::optional<Listing> list();
  std::filesystem::path cached_snapshot() const;  // "" if there is none
  std::filesystem::path snapshot_folder(const std::string& commit) const {
    return folder_ / "snapshots" / commit;
  }

  // Brings the file into the cache and under the snapshot; returns its path there.
  std::filesystem::path fetch(const Listing& listing, const RemoteFile& file);
  void write_ref(const std::string& commit) const;
  const Id& id() const { return id_; }
  const HubOptions& options() const { return options_; }

 private:
  std::string url(const std::string& kind_of_page, const std::string& rest) const;
  std::filesystem::path lock_path(const std::string& name) const;
  RemoteFile announced(const Listing& listing, const RemoteFile& file) const;
  void download_blob(const Listing& listing, const RemoteFile& file,
                     const std::filesystem::path& blob) const;
  // `what` was asked for: "" for the repository itself, else one of its files.
  [[noreturn]] void fail_status(int status, const std::string& what,
                                const std::string& message) const;

  Kind kind_;
  Id id_;
  HubOptions options_;
  std::filesystem::path folder_;  // CACHE/models--org--name
};

const RemoteFile* find(const Listing& listing, const std::string& path);

}  // namespace signround::hub
