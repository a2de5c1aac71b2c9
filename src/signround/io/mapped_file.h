// A file seen as memory, read-only. Only the pages that are touched are read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace signround {

// Neither copied nor moved: views into it stay valid as long as it lives. If another program
// shortens the file meanwhile, the system ends this one with SIGBUS; that is the price of mapping.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  int64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  // Takes the pages of [offset, offset + size) out of this process's memory; the next touch maps
  // them again.
  void release(int64_t offset, int64_t size) const;

 private:
  std::filesystem::path path_;
  std::byte* data_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace signround
