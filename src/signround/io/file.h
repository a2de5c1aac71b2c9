// What every reader and writer below shares: owned descriptors, and errors that repeat what the
// system said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace signround {

// Fails with kIo: "[where] cannot <action> <path>: <text of error_number>".
[[noreturn]] void fail_io(const char* where, std::string_view action,
                          const std::filesystem::path& path, int error_number);

// Owner of an open file. Move-only; closes on destruction (an error of close() is not seen: sync
// first).
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~FileDescriptor();

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

// A regular file for reading. A folder, pipe or device is refused (a pipe would block forever).
FileDescriptor open_to_read(const char* where, const std::filesystem::path& path);
int64_t size_of_file(const char* where, const FileDescriptor& file,
                     const std::filesystem::path& path);

// All of `bytes` at `offset`, however often the system splits it. Fails with kIo naming path and
// sizes.
void write_fully(const char* where, const FileDescriptor& file, const std::filesystem::path& path,
                 std::span<const std::byte> bytes, int64_t offset);
// Makes the file `bytes` long, with real blocks where the file system can reserve them, so that a full
// disk shows now and not after hours. kIo where there is too little space.
void reserve_space(const char* where, const FileDescriptor& file, const std::filesystem::path& path,
                   int64_t bytes);
// bytes.size() bytes at `offset`. Fails with kIo, also where the file is shorter.
void read_fully(const char* where, const FileDescriptor& file, const std::filesystem::path& path,
                std::span<std::byte> bytes, int64_t offset);
void sync_file(const char* where, const FileDescriptor& file, const std::filesystem::path& path);
// Makes a rename or a new name in the folder of `path` survive a power cut.
void sync_folder_of(const char* where, const std::filesystem::path& path);

// The whole file; kCorruptFile where it is larger than max_bytes.
std::string read_text_file(const char* where, const std::filesystem::path& path, int64_t max_bytes);

}  // namespace signround
