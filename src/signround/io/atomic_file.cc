#include "signround/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "signround/io/file.h"

namespace signround {
namespace {

constexpr const char* kWhere = "atomic_file";

void write_beside(const std::filesystem::path& path, const std::filesystem::path& beside,
                  std::string_view bytes) {
  const FileDescriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.is_open())
    fail_io(kWhere, "create a file of " + std::to_string(bytes.size()) + " bytes at", beside,
            errno);
  try {
    write_fully(kWhere, file, beside, std::as_bytes(std::span(bytes)), 0);
    sync_file(kWhere, file, beside);
    if (std::rename(beside.c_str(), path.c_str()) != 0)
      fail_io(kWhere, "rename " + beside.string() + " to", path, errno);
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
}

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::path beside = path;
  beside += ".tmp";
  write_beside(path, beside, bytes);
  sync_folder_of(kWhere, path);
}

}  // namespace signround
