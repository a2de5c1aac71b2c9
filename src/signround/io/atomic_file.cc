#include "signround/io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <vector>

#include "signround/io/file.h"

namespace signround {
namespace {

constexpr const char* kWhere = "atomic_file";

// `fill` writes the content into the open file beside `path`.
void write_beside(
    const std::filesystem::path& path, int64_t size,
    const std::function<void(const FileDescriptor&, const std::filesystem::path&)>& fill) {
  std::filesystem::path beside = path;
  beside += ".tmp";
  const FileDescriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file.is_open())
    fail_io(kWhere, "create a file of " + std::to_string(size) + " bytes at", beside, errno);
  try {
    fill(file, beside);
    sync_file(kWhere, file, beside);
    if (std::rename(beside.c_str(), path.c_str()) != 0)
      fail_io(kWhere, "rename " + beside.string() + " to", path, errno);
  } catch (...) {
    ::unlink(beside.c_str());
    throw;
  }
  sync_folder_of(kWhere, path);
}

}  // namespace

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes) {
  write_beside(path, static_cast<int64_t>(bytes.size()),
               [&](const FileDescriptor& file, const std::filesystem::path& beside) {
                 write_fully(kWhere, file, beside, std::as_bytes(std::span(bytes)), 0);
               });
}

void copy_file_atomically(const std::filesystem::path& from, const std::filesystem::path& path) {
  const FileDescriptor source = open_to_read(kWhere, from);
  write_beside(path, size_of_file(kWhere, source, from),
               [&](const FileDescriptor& file, const std::filesystem::path& beside) {
                 std::vector<std::byte> piece(size_t{1} << 20);
                 for (int64_t done = 0;;) {
                   const ssize_t n = ::read(source.get(), piece.data(), piece.size());
                   if (n < 0 && errno == EINTR) continue;
                   if (n < 0) fail_io(kWhere, "read", from, errno);
                   if (n == 0) break;
                   write_fully(kWhere, file, beside, std::span(piece).first(static_cast<size_t>(n)),
                               done);
                   done += n;
                 }
               });
}

}  // namespace signround
