#include "signround/io/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "signround/io/file.h"

namespace signround {

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const FileDescriptor file = open_to_read("mapped_file", path);
  size_ = size_of_file("mapped_file", file, path);
  if (size_ == 0) return;  // mmap refuses an empty range
  void* data = mmap(nullptr, static_cast<size_t>(size_), PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) fail_io("mapped_file", "map", path, errno);
  data_ = static_cast<std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_) munmap(data_, static_cast<size_t>(size_));
}

void MappedFile::release(int64_t offset, int64_t size) const {
  // Outward to whole pages: a neighbour's half page is read again from the page cache, which costs
  // nothing to speak of.
  const int64_t page = sysconf(_SC_PAGESIZE);
  const int64_t begin = std::clamp(offset, int64_t{0}, size_) / page * page;
  const int64_t end = std::clamp(offset + size, int64_t{0}, size_);
  if (end > begin) madvise(data_ + begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
}

}  // namespace signround
