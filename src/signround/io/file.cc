#include "signround/io/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "signround/base/error.h"

namespace signround {
namespace {

// Linux moves at most 2^31 - 4096 bytes per call; smaller pieces keep a signal's latency short.
constexpr size_t kPiece = size_t{1} << 28;

}  // namespace

void fail_io(const char* where, std::string_view action, const std::filesystem::path& path,
             int error_number) {
  fail(ErrorKind::kIo, where, "cannot ", action, " ", path.string(), ": ",
       std::generic_category().message(error_number));
}

FileDescriptor::~FileDescriptor() { close(); }

void FileDescriptor::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

FileDescriptor open_to_read(const char* where, const std::filesystem::path& path) {
  FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.is_open()) fail_io(where, "open", path, errno);
  struct stat status {};
  if (fstat(file.get(), &status) != 0) fail_io(where, "examine", path, errno);
  require(S_ISREG(status.st_mode), where, path.string(), " is not a regular file");
  return file;
}

int64_t size_of_file(const char* where, const FileDescriptor& file,
                     const std::filesystem::path& path) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) fail_io(where, "examine", path, errno);
  return status.st_size;
}

void write_fully(const char* where, const FileDescriptor& file, const std::filesystem::path& path,
                 std::span<const std::byte> bytes, int64_t offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t piece = std::min(bytes.size() - done, kPiece);
    const ssize_t n =
        pwrite(file.get(), bytes.data() + done, piece, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error_number = n < 0 ? errno : ENOSPC;
      fail(ErrorKind::kIo, where, "cannot write ", bytes.size(), " bytes at offset ", offset,
           " of ", path.string(), " (", done,
           " were written): ", std::generic_category().message(error_number));
    }
    done += static_cast<size_t>(n);
  }
}

// fallocate(2) itself, not posix_fallocate: where the file system cannot reserve, glibc's would write
// every block of the file instead of saying so.
void reserve_space(const char* where, const FileDescriptor& file, const std::filesystem::path& path,
                   int64_t bytes) {
  const auto refuse = [&](int error_number) {
    fail(ErrorKind::kIo, where, "cannot reserve ", bytes, " bytes for ", path.string(), ": ",
         std::generic_category().message(error_number));
  };
  while (fallocate(file.get(), 0, 0, bytes) != 0) {
    if (errno == EINTR) continue;
    if (errno != EOPNOTSUPP && errno != ENOSYS) refuse(errno);
    struct statvfs fs {};
    if (fstatvfs(file.get(), &fs) == 0 &&
        static_cast<uint64_t>(fs.f_bavail) * fs.f_frsize < static_cast<uint64_t>(bytes))
      refuse(ENOSPC);
    if (ftruncate(file.get(), bytes) != 0) refuse(errno);
    return;
  }
}

void read_fully(const char* where, const FileDescriptor& file, const std::filesystem::path& path,
                std::span<std::byte> bytes, int64_t offset) {
  size_t done = 0;
  while (done < bytes.size()) {
    const size_t piece = std::min(bytes.size() - done, kPiece);
    const ssize_t n =
        pread(file.get(), bytes.data() + done, piece, offset + static_cast<int64_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(ErrorKind::kIo, where, "cannot read ", bytes.size(), " bytes at offset ", offset, " of ",
           path.string(), " (", done, " were read): ",
           n < 0 ? std::generic_category().message(errno) : "the file ends there");
    done += static_cast<size_t>(n);
  }
}

void sync_file(const char* where, const FileDescriptor& file, const std::filesystem::path& path) {
  if (fsync(file.get()) != 0) fail_io(where, "bring to disk (fsync)", path, errno);
}

void sync_folder_of(const char* where, const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  FileDescriptor file(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.is_open()) fail_io(where, "open", folder, errno);
  // Some network file systems cannot fsync a folder and say EINVAL; there is nothing more to be
  // done there.
  if (fsync(file.get()) != 0 && errno != EINVAL)
    fail_io(where, "bring to disk (fsync)", folder, errno);
}

std::string read_text_file(const char* where, const std::filesystem::path& path,
                           int64_t max_bytes) {
  const FileDescriptor file = open_to_read(where, path);
  const int64_t size = size_of_file(where, file, path);
  if (size > max_bytes)
    fail(ErrorKind::kCorruptFile, where, path.string(), " has ", size, " bytes, at most ",
         max_bytes, " are expected of such a file");
  std::string text(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::read(file.get(), text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io(where, "read", path, errno);
    if (n == 0) break;  // somebody made it shorter meanwhile
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

}  // namespace signround
